#include "priv/journal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/fd.h"
#include "base/wire.h"

#define HEADER_MAGIC  UINT64_C(0x314c4e4a45484c43) /* "CLHEJNL1" */
#define RECORD_MAGIC  UINT32_C(0x524a4c43)         /* "CLJR" */
#define VERSION       1u
#define CRC_OFFSET    (JOURNAL_ENTRY_BYTES - 4)
#define PID_MAX_LIMIT (1u << 22) /* of Linux */

static void seal(uint8_t entry[JOURNAL_ENTRY_BYTES])
{
    struct wire_writer w;

    wire_writer_init(&w, entry + CRC_OFFSET, 4);
    wire_put_u32(&w, crc32c(0, entry, CRC_OFFSET));
}

static bool is_sealed(const uint8_t entry[JOURNAL_ENTRY_BYTES])
{
    struct wire_reader r;

    wire_reader_init(&r, entry + CRC_OFFSET, 4);
    return wire_get_u32(&r) == crc32c(0, entry, CRC_OFFSET);
}

static bool is_zero(const uint8_t entry[JOURNAL_ENTRY_BYTES])
{
    static const uint8_t zeroes[JOURNAL_ENTRY_BYTES];

    return memcmp(entry, zeroes, sizeof(zeroes)) == 0;
}

static bool parse_header(const uint8_t entry[JOURNAL_ENTRY_BYTES], struct journal_header *ret)
{
    struct wire_reader r;

    wire_reader_init(&r, entry, JOURNAL_ENTRY_BYTES);
    if (!is_sealed(entry) || wire_get_u64(&r) != HEADER_MAGIC || wire_get_u32(&r) != VERSION)
        return false;
    (void)wire_get_u32(&r);
    ret->instance = wire_get_u64(&r);
    memcpy(ret->boot_id, wire_get_bytes(&r, JOURNAL_BOOT_BYTES), JOURNAL_BOOT_BYTES);
    uint32_t pid = wire_get_u32(&r);
    (void)wire_get_u32(&r);
    ret->writer = (struct journal_process){.pid = (int32_t)pid, .start_time = wire_get_u64(&r)};
    return pid > 0 && pid < PID_MAX_LIMIT;
}

static bool parse_record(const uint8_t entry[JOURNAL_ENTRY_BYTES], uint32_t slot,
                         const struct journal_header *header, struct journal_process *ret)
{
    struct wire_reader r;

    wire_reader_init(&r, entry, JOURNAL_ENTRY_BYTES);
    if (!is_sealed(entry) || wire_get_u32(&r) != RECORD_MAGIC || wire_get_u32(&r) != VERSION ||
        wire_get_u32(&r) != slot)
        return false;
    uint32_t pid = wire_get_u32(&r);
    uint64_t start_time = wire_get_u64(&r);
    if (wire_get_u64(&r) != header->instance || pid >= PID_MAX_LIMIT)
        return false;
    *ret = (struct journal_process){.slot = slot, .pid = (int32_t)pid, .start_time = start_time};
    return true;
}

int journal_parse(const void *data, size_t size, struct journal_content *ret_content,
                  struct error *e)
{
    const uint8_t *bytes = data;
    unsigned damaged = 0;

    *ret_content = (struct journal_content){0};
    if (size == 0)
        return 0;
    if (size < JOURNAL_ENTRY_BYTES || !parse_header(bytes, &ret_content->header)) {
        ret_content->header = (struct journal_header){0};
        return error_set(e, ERR_INTERNAL, "the journal's header is damaged");
    }
    for (uint32_t slot = 0; slot < SANDBOX_COUNT_MAX; slot++) {
        size_t at = (size_t)JOURNAL_ENTRY_BYTES * (slot + 1);

        if (at >= size)
            break;
        if (size - at < JOURNAL_ENTRY_BYTES) {
            damaged++;
            break;
        }
        if (is_zero(bytes + at))
            continue;
        if (parse_record(bytes + at, slot, &ret_content->header,
                         &ret_content->processes[ret_content->count]))
            ret_content->count++;
        else
            damaged++;
    }
    if (size > JOURNAL_BYTES_MAX)
        damaged++;
    if (damaged > 0)
        return error_set(e, ERR_INTERNAL, "%u records of the journal are damaged", damaged);
    return 0;
}

int journal_load(int fd, struct journal_content *ret_content, struct error *e)
{
    static uint8_t bytes[JOURNAL_BYTES_MAX + 1];
    ssize_t n = fd_pread_full(fd, bytes, sizeof(bytes), 0);

    if (n < 0) {
        *ret_content = (struct journal_content){0};
        return error_errno(e, errno, "cannot read the journal");
    }
    return journal_parse(bytes, (size_t)n, ret_content, e);
}

static int write_entry(int fd, const uint8_t entry[JOURNAL_ENTRY_BYTES], uint64_t index,
                       struct error *e)
{
    if (fd_pwrite_full(fd, entry, JOURNAL_ENTRY_BYTES, (off_t)(index * JOURNAL_ENTRY_BYTES)) != 0)
        return error_errno(e, errno, "cannot write the journal");
    return 0;
}

int journal_start(int fd, const struct journal_header *header, struct error *e)
{
    uint8_t entry[JOURNAL_ENTRY_BYTES] = {0};
    struct wire_writer w;

    wire_writer_init(&w, entry, CRC_OFFSET);
    wire_put_u64(&w, HEADER_MAGIC);
    wire_put_u32(&w, VERSION);
    wire_put_u32(&w, 0);
    wire_put_u64(&w, header->instance);
    wire_put_bytes(&w, header->boot_id, JOURNAL_BOOT_BYTES);
    wire_put_u32(&w, (uint32_t)header->writer.pid);
    wire_put_u32(&w, 0);
    wire_put_u64(&w, header->writer.start_time);
    assert(!w.bad);
    seal(entry);
    if (ftruncate(fd, 0) != 0)
        return error_errno(e, errno, "cannot empty the journal");
    if (write_entry(fd, entry, 0, e) != 0)
        return -1;
    /* So that a disk that fills up later cannot stop a record. Not every file system can. */
    (void)posix_fallocate(fd, 0, (off_t)JOURNAL_BYTES_MAX);
    return 0;
}

int journal_put(int fd, const struct journal_header *header, const struct journal_process *p,
                struct error *e)
{
    uint8_t entry[JOURNAL_ENTRY_BYTES] = {0};
    struct wire_writer w;

    assert(p->slot < SANDBOX_COUNT_MAX && p->pid >= 0);
    wire_writer_init(&w, entry, CRC_OFFSET);
    wire_put_u32(&w, RECORD_MAGIC);
    wire_put_u32(&w, VERSION);
    wire_put_u32(&w, p->slot);
    wire_put_u32(&w, (uint32_t)p->pid);
    wire_put_u64(&w, p->start_time);
    wire_put_u64(&w, header->instance);
    assert(!w.bad);
    seal(entry);
    return write_entry(fd, entry, (uint64_t)p->slot + 1, e);
}

int journal_clear(int fd, uint32_t slot, struct error *e)
{
    static const uint8_t zeroes[JOURNAL_ENTRY_BYTES];

    return write_entry(fd, zeroes, (uint64_t)slot + 1, e);
}

int journal_end(int fd, struct error *e)
{
    if (ftruncate(fd, 0) != 0)
        return error_errno(e, errno, "cannot empty the journal");
    return 0;
}
