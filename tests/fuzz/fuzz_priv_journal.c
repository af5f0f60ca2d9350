/*
 * The journal that an earlier priv has left. An input is the file itself or, with an odd first
 * byte, edits to a good one after which the checksums are mended. Properties: each slot is named
 * once at most, in order, by a pid that can be; what was read, written anew by the journal's own
 * writer, reads the same.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "priv/journal.h"

#define SLOTS_GOOD 4u
#define GOOD_BYTES ((size_t)JOURNAL_ENTRY_BYTES * (1 + SLOTS_GOOD))
#define EDIT_BYTES 3u /* offset u16, value u8 */

static struct journal_content content, again;

/* A file that is used again and again. */
static int scratch_fd(void)
{
    static int fd = -1;

    if (fd < 0)
        fd = memfd_create("journal", MFD_CLOEXEC);
    assert(fd >= 0);
    return fd;
}

static void write_content(const struct journal_content *c)
{
    struct error e = ERROR_INIT;
    int fd = scratch_fd();
    int failed = journal_start(fd, &c->header, &e);

    for (size_t i = 0; i < c->count; i++)
        failed |= journal_put(fd, &c->header, &c->processes[i], &e);
    assert(failed == 0);
}

static void check_again(void)
{
    struct error e = ERROR_INIT;

    write_content(&content);
    int result = journal_load(scratch_fd(), &again, &e);
    assert(result == 0 && again.count == content.count);
    assert(memcmp(&again.header, &content.header, sizeof(content.header)) == 0);
    for (size_t i = 0; i < content.count; i++) {
        const struct journal_process *a = &content.processes[i], *b = &again.processes[i];

        assert(a->slot == b->slot && a->pid == b->pid && a->start_time == b->start_time);
    }
}

static void check(const uint8_t *bytes, size_t size)
{
    static const struct journal_header none;
    struct error e = ERROR_INIT;
    int result = journal_parse(bytes, size, &content, &e);

    assert(result == 0 ? e.code == ERR_NONE : e.code == ERR_INTERNAL && e.message[0] != '\0');
    assert(content.count <= SANDBOX_COUNT_MAX);
    assert(content.count <= size / JOURNAL_ENTRY_BYTES);
    for (size_t i = 0; i < content.count; i++) {
        const struct journal_process *p = &content.processes[i];

        assert(p->slot < SANDBOX_COUNT_MAX && p->pid >= 0 && p->pid < 1 << 22);
        assert(i == 0 || p->slot > content.processes[i - 1].slot);
        /* It is the record of that slot which says so. */
        uint32_t fields[2];
        memcpy(fields, bytes + JOURNAL_ENTRY_BYTES * (p->slot + 1) + 8, sizeof(fields));
        assert(fields[0] == p->slot && fields[1] == (uint32_t)p->pid);
    }
    if (memcmp(&content.header, &none, sizeof(none)) == 0) {
        assert(content.count == 0 && (result != 0 || size == 0));
        return;
    }
    assert(content.header.writer.pid > 0);
    check_again();
}

static void make_good(uint8_t bytes[GOOD_BYTES])
{
    static const struct journal_content good = {
        .header = {.instance = 0x1122334455667788,
                   .boot_id = "0123456789abcde",
                   .writer = {0, 77, 5}},
        .count = 3,
        .processes = {{0, 100, 1}, {1, 0, 0}, {3, 4000000, UINT64_MAX}}};

    write_content(&good);
    ssize_t n = pread(scratch_fd(), bytes, GOOD_BYTES, 0);
    assert(n == (ssize_t)GOOD_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    if (data[0] % 2 == 0) {
        /* An exact copy, so that a read past its end is found. */
        uint8_t *copy = malloc(size);
        assert(copy != NULL);
        memcpy(copy, data + 1, size - 1);
        check(copy, size - 1);
        free(copy);
        return 0;
    }
    uint8_t bytes[GOOD_BYTES];
    make_good(bytes);
    if (size == 1) {
        struct error e = ERROR_INIT;
        int result = journal_parse(bytes, sizeof(bytes), &content, &e);
        assert(result == 0 && content.count == 3);
    }
    for (size_t at = 1; size - at >= EDIT_BYTES; at += EDIT_BYTES)
        bytes[((size_t)data[at] | (size_t)data[at + 1] << 8) % sizeof(bytes)] ^= data[at + 2];
    for (size_t at = 0; at < sizeof(bytes); at += JOURNAL_ENTRY_BYTES) {
        static const uint8_t free_slot[JOURNAL_ENTRY_BYTES];
        uint32_t crc = crc32c(0, bytes + at, JOURNAL_ENTRY_BYTES - 4);
        if (memcmp(bytes + at, free_slot, sizeof(free_slot)) != 0)
            memcpy(bytes + at + JOURNAL_ENTRY_BYTES - 4, &crc, sizeof(crc));
    }
    check(bytes, sizeof(bytes));
    return 0;
}
