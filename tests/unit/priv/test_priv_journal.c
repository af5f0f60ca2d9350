/* The journal: what was written is read back, and damage is noticed record by record. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "priv/journal.h"

static const struct journal_header header = {
    .instance = UINT64_C(0x1122334455667788),
    .boot_id = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
    .writer = {.pid = 4711, .start_time = 99},
};

static struct journal_content content;

static int make_journal(void)
{
    struct error e = ERROR_INIT;
    int fd = memfd_create("journal", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(journal_start(fd, &header, &e), 0);
    return fd;
}

static void put(int fd, uint32_t slot, int32_t pid, uint64_t start_time)
{
    struct error e = ERROR_INIT;
    struct journal_process p = {.slot = slot, .pid = pid, .start_time = start_time};

    assert_int_equal(journal_put(fd, &header, &p, &e), 0);
}

static void load(int fd)
{
    struct error e = ERROR_INIT;

    assert_int_equal(journal_load(fd, &content, &e), 0);
}

static void test_round_trip(void **state)
{
    struct error e = ERROR_INIT;
    FD_AUTO int fd = make_journal();

    (void)state;
    load(fd);
    assert_int_equal(content.count, 0);
    assert_int_equal(content.header.instance, header.instance);
    assert_memory_equal(content.header.boot_id, header.boot_id, JOURNAL_BOOT_BYTES);
    assert_int_equal(content.header.writer.pid, 4711);
    assert_int_equal(content.header.writer.start_time, 99);
    put(fd, SANDBOX_COUNT_MAX - 1, 123, UINT64_MAX);
    put(fd, 0, 0, 0);
    put(fd, 7, 1, 1);
    put(fd, 7, 2, 2);
    load(fd);
    assert_int_equal(content.count, 3);
    assert_int_equal(content.processes[0].pid, 0);
    assert_int_equal(content.processes[1].slot, 7);
    assert_int_equal(content.processes[1].pid, 2);
    assert_int_equal(content.processes[2].slot, SANDBOX_COUNT_MAX - 1);
    assert_int_equal(content.processes[2].start_time, UINT64_MAX);
    assert_int_equal(journal_clear(fd, 7, &e), 0);
    load(fd);
    assert_int_equal(content.count, 2);
    assert_int_equal(journal_end(fd, &e), 0);
    load(fd);
    assert_int_equal(content.count, 0);
    assert_int_equal(content.header.instance, 0);
}

/* Any flipped bit of a record loses that record and no other; in the header, all. */
static void test_flipped_bits(void **state)
{
    uint8_t bytes[JOURNAL_ENTRY_BYTES * 4];
    FD_AUTO int fd = make_journal();

    (void)state;
    put(fd, 0, 10, 100);
    put(fd, 1, 11, 101);
    put(fd, 2, 12, 102);
    assert_int_equal(fd_pread_full(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
    for (size_t bit = 0; bit < sizeof(bytes) * 8; bit++) {
        struct error e = ERROR_INIT;

        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(journal_parse(bytes, sizeof(bytes), &content, &e), -1);
        assert_int_equal(content.count, bit < JOURNAL_ENTRY_BYTES * 8 ? 0 : 2);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void test_torn(void **state)
{
    uint8_t bytes[JOURNAL_ENTRY_BYTES * 3];
    FD_AUTO int fd = make_journal();

    (void)state;
    put(fd, 0, 10, 100);
    put(fd, 1, 11, 101);
    assert_int_equal(fd_pread_full(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
    for (size_t size = 0; size <= sizeof(bytes); size++) {
        struct error e = ERROR_INIT;
        uint8_t *exact = malloc(size > 0 ? size : 1);

        memcpy(exact, bytes, size);
        int r = journal_parse(exact, size, &content, &e);
        assert_int_equal(r, size == 0 || (size > 0 && size % JOURNAL_ENTRY_BYTES == 0) ? 0 : -1);
        assert_int_equal(content.count,
                         size < JOURNAL_ENTRY_BYTES ? 0 : size / JOURNAL_ENTRY_BYTES - 1);
        free(exact);
    }
}

/* A record that was copied to another slot's place, or comes from another instance. */
static void test_foreign_records(void **state)
{
    uint8_t bytes[JOURNAL_ENTRY_BYTES * 3];
    struct error e = ERROR_INIT;
    struct journal_header other = header;
    struct journal_process p = {.slot = 1, .pid = 5};
    FD_AUTO int fd = make_journal();

    (void)state;
    put(fd, 0, 10, 100);
    other.instance++;
    assert_int_equal(journal_put(fd, &other, &p, &e), 0);
    assert_int_equal(fd_pread_full(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
    assert_int_equal(journal_parse(bytes, sizeof(bytes), &content, &e), -1);
    assert_int_equal(content.count, 1);
    memcpy(bytes + JOURNAL_ENTRY_BYTES * 2, bytes + JOURNAL_ENTRY_BYTES, JOURNAL_ENTRY_BYTES);
    assert_int_equal(journal_parse(bytes, sizeof(bytes), &content, &e), -1);
    assert_int_equal(content.count, 1);
    assert_int_equal(content.processes[0].pid, 10);
}

static void test_too_long(void **state)
{
    struct error e = ERROR_INIT;
    FD_AUTO int fd = make_journal();

    (void)state;
    put(fd, 3, 10, 100);
    assert_int_equal(ftruncate(fd, 10 << 20), 0);
    assert_int_equal(journal_load(fd, &content, &e), -1);
    assert_int_equal(content.count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_torn),       cmocka_unit_test(test_foreign_records),
        cmocka_unit_test(test_too_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
