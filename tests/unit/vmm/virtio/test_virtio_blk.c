/* The disks. */
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_mmio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "virtio_driver.h"

#define ROOT    GUEST_VIRTIO_ROOT
#define SCRATCH GUEST_VIRTIO_SCRATCH
#define SECTORS (DRIVER_DISK_BYTES / 512u)

#define HEADER_GPA DRIVER_DATA_GPA
#define STATUS_GPA (DRIVER_DATA_GPA + 0x100)
#define DATA_GPA   (DRIVER_DATA_GPA + 0x1000)

static struct driver_vm vm;
static struct driver_queue queues[2];

static int setup(void **state)
{
    (void)state;
    driver_vm_init(&vm);
    for (unsigned slot = ROOT; slot <= SCRATCH; slot++) {
        driver_negotiate(&vm, slot);
        driver_queue_init(&queues[slot], &vm, slot, 0, 256);
        driver_start(&vm, slot);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    driver_vm_fini(&vm);
    return 0;
}

/* One request with up to one data buffer at DATA_GPA; returns its status, 0xee if not answered. */
static uint8_t request(unsigned slot, uint32_t type, uint64_t sector, uint32_t bytes, bool in,
                       uint32_t *ret_used)
{
    const struct driver_buffer buffers[] = {
        {HEADER_GPA, 16, false}, {DATA_GPA, bytes, in}, {STATUS_GPA, 1, true}};
    const struct driver_buffer bare[] = {{HEADER_GPA, 16, false}, {STATUS_GPA, 1, true}};
    struct virtio_blk_outhdr *header = driver_at(&vm, HEADER_GPA);
    uint8_t *status = driver_at(&vm, STATUS_GPA);
    struct driver_queue *q = &queues[slot];
    uint32_t used;
    uint16_t head;

    *header = (struct virtio_blk_outhdr){.type = type, .sector = sector};
    *status = 0xee;
    uint16_t mine = bytes > 0 ? driver_add(q, buffers, 3) : driver_add(q, bare, 2);
    driver_kick(q);
    assert_true(driver_take(q, &head, &used));
    assert_int_equal(head, mine);
    assert_false(driver_needs_reset(&vm, slot));
    if (ret_used != NULL)
        *ret_used = used;
    return *status;
}

static uint8_t status_of(unsigned slot, uint32_t type, uint64_t sector, uint32_t bytes, bool in)
{
    return request(slot, type, sector, bytes, in, NULL);
}

static void test_read(void **state)
{
    uint8_t expected[8192];
    uint32_t used;

    (void)state;
    assert_int_equal(request(ROOT, VIRTIO_BLK_T_IN, 3, 8192, true, &used), VIRTIO_BLK_S_OK);
    assert_int_equal(used, 8193);
    assert_int_equal(pread(vm.root_fd, expected, sizeof(expected), 3 * 512), 8192);
    assert_memory_equal(driver_at(&vm, DATA_GPA), expected, sizeof(expected));
    assert_int_equal(driver_interrupts(&vm, ROOT), 1);
    /* The last sector. */
    assert_int_equal(status_of(ROOT, VIRTIO_BLK_T_IN, SECTORS - 1, 512, true), VIRTIO_BLK_S_OK);
    assert_int_equal(*(uint32_t *)driver_at(&vm, DATA_GPA), DRIVER_DISK_BYTES - 512);
}

static void test_write_and_flush(void **state)
{
    uint8_t back[1024];
    uint32_t used;

    (void)state;
    memset(driver_at(&vm, DATA_GPA), 0x5a, 1024);
    assert_int_equal(request(SCRATCH, VIRTIO_BLK_T_OUT, 10, 1024, false, &used), VIRTIO_BLK_S_OK);
    assert_int_equal(used, 1);
    assert_int_equal(pread(vm.scratch_fd, back, sizeof(back), 10 * 512), 1024);
    assert_memory_equal(back, driver_at(&vm, DATA_GPA), sizeof(back));
    assert_int_equal(status_of(SCRATCH, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
    memset(driver_at(&vm, DATA_GPA), 0, 1024);
    assert_int_equal(status_of(SCRATCH, VIRTIO_BLK_T_IN, 10, 1024, true), VIRTIO_BLK_S_OK);
    assert_memory_equal(back, driver_at(&vm, DATA_GPA), sizeof(back));
}

static void test_out_of_range(void **state)
{
    static const struct {
        uint64_t sector;
        uint32_t bytes;
    } bad[] = {
        {SECTORS, 512},
        {SECTORS - 1, 1024},
        {SECTORS + 1, 512},
        {UINT64_MAX, 512},
        {UINT64_MAX / 512, 512},
        {UINT64_MAX / 512 + 1, 512}, /* 0 when taken as bytes */
        {UINT64_C(1) << 55, 512},
        {UINT64_C(1) << 63, 512},
        {0, 1},
        {0, 511},
        {0, 513},
        {0, DRIVER_DISK_BYTES + 512},
    };
    struct stat st;
    uint32_t used;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(request(ROOT, VIRTIO_BLK_T_IN, bad[i].sector, bad[i].bytes, true, &used),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(used, 1);
        assert_int_equal(status_of(SCRATCH, VIRTIO_BLK_T_OUT, bad[i].sector, bad[i].bytes, false),
                         VIRTIO_BLK_S_IOERR);
    }
    assert_int_equal(fstat(vm.scratch_fd, &st), 0);
    assert_int_equal(st.st_size, DRIVER_DISK_BYTES);
    assert_int_equal(status_of(ROOT, VIRTIO_BLK_T_IN, SECTORS, 0, true), VIRTIO_BLK_S_OK);
}

static void test_read_only(void **state)
{
    uint8_t before[512], after[512];

    (void)state;
    driver_write(&vm, ROOT, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
    assert_true(driver_read(&vm, ROOT, VIRTIO_MMIO_DEVICE_FEATURES) & 1u << VIRTIO_BLK_F_RO);
    assert_int_equal(pread(vm.root_fd, before, sizeof(before), 0), 512);
    memset(driver_at(&vm, DATA_GPA), 0xff, 512);
    assert_int_equal(status_of(ROOT, VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(status_of(ROOT, VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(status_of(ROOT, VIRTIO_BLK_T_DISCARD, 0, 16, false), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(status_of(ROOT, VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, false), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(pread(vm.root_fd, after, sizeof(after), 0), 512);
    assert_memory_equal(before, after, sizeof(after));
}

static void test_other_commands(void **state)
{
    static const uint32_t unknown[] = {2, 3, 5, 7, 9, 10, 12, 14, 0x80000000, UINT32_MAX};
    uint32_t used;

    (void)state;
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
        assert_int_equal(status_of(SCRATCH, unknown[i], 0, 512, true), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(request(ROOT, VIRTIO_BLK_T_GET_ID, 0, 20, true, &used), VIRTIO_BLK_S_OK);
    assert_int_equal(used, 21);
    assert_string_equal(driver_at(&vm, DATA_GPA), "cloche-root");
    memset(driver_at(&vm, DATA_GPA), 0x77, 64);
    assert_int_equal(request(SCRATCH, VIRTIO_BLK_T_GET_ID, 0, 4, true, &used), VIRTIO_BLK_S_OK);
    assert_int_equal(used, 5);
    assert_memory_equal(driver_at(&vm, DATA_GPA), "cloc\x77", 5);
}

static uint8_t punch(uint32_t type, uint64_t sector, uint32_t count, uint32_t flags, uint32_t bytes)
{
    struct virtio_blk_discard_write_zeroes *range = driver_at(&vm, DATA_GPA);

    *range = (struct virtio_blk_discard_write_zeroes){
        .sector = sector, .num_sectors = count, .flags = flags};
    return status_of(SCRATCH, type, 0, bytes, false);
}

static void test_discard_and_zeroes(void **state)
{
    const uint32_t unmap = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    static const uint8_t zeroes[4096];
    uint8_t page[4096];
    struct stat st;

    (void)state;
    memset(page, 0x11, sizeof(page));
    for (unsigned i = 0; i < DRIVER_DISK_BYTES / 4096; i++)
        assert_int_equal(pwrite(vm.scratch_fd, page, sizeof(page), i * 4096), 4096);
    assert_int_equal(punch(VIRTIO_BLK_T_DISCARD, 8, 8, 0, 16), VIRTIO_BLK_S_OK);
    assert_int_equal(punch(VIRTIO_BLK_T_WRITE_ZEROES, 16, 8, 0, 16), VIRTIO_BLK_S_OK);
    assert_int_equal(punch(VIRTIO_BLK_T_WRITE_ZEROES, 24, SECTORS - 24, unmap, 16),
                     VIRTIO_BLK_S_OK);
    for (unsigned i = 0; i < DRIVER_DISK_BYTES / 4096; i++) {
        uint8_t back[4096];

        assert_int_equal(pread(vm.scratch_fd, back, sizeof(back), i * 4096), 4096);
        assert_memory_equal(back, i == 0 ? page : zeroes, sizeof(back));
    }
    assert_int_equal(fstat(vm.scratch_fd, &st), 0);
    assert_int_equal(st.st_size, DRIVER_DISK_BYTES);
    assert_int_equal(st.st_blocks, 8); /* the space is the host's again */

    assert_int_equal(punch(VIRTIO_BLK_T_DISCARD, 0, 0, 0, 16), VIRTIO_BLK_S_OK);
    assert_int_equal(punch(VIRTIO_BLK_T_DISCARD, 0, 8, unmap, 16), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(punch(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 2, 16), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(punch(VIRTIO_BLK_T_DISCARD, SECTORS, 1, 0, 16), VIRTIO_BLK_S_IOERR);
    assert_int_equal(punch(VIRTIO_BLK_T_DISCARD, 0, SECTORS + 1, 0, 16), VIRTIO_BLK_S_IOERR);
    assert_int_equal(punch(VIRTIO_BLK_T_DISCARD, UINT64_MAX, 1, 0, 16), VIRTIO_BLK_S_IOERR);
    assert_int_equal(punch(VIRTIO_BLK_T_DISCARD, UINT64_MAX - 7, 8, 0, 16), VIRTIO_BLK_S_IOERR);
    assert_int_equal(punch(VIRTIO_BLK_T_DISCARD, 0, UINT32_MAX, 0, 16), VIRTIO_BLK_S_IOERR);
    assert_int_equal(punch(VIRTIO_BLK_T_DISCARD, 0, 8, 0, 15), VIRTIO_BLK_S_IOERR);
    assert_int_equal(punch(VIRTIO_BLK_T_DISCARD, 0, 8, 0, 17), VIRTIO_BLK_S_IOERR);
    assert_int_equal(punch(VIRTIO_BLK_T_DISCARD, 0, 8, 0, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(punch(VIRTIO_BLK_T_DISCARD, 0, 8, 0, 16 * 17), VIRTIO_BLK_S_IOERR);
}

/* 2.7.4: a device must not care where a request's parts are cut. */
static void test_any_layout(void **state)
{
    struct virtio_blk_outhdr *header = driver_at(&vm, HEADER_GPA);
    struct driver_buffer buffers[16 + 3];
    uint8_t expected[512];
    uint32_t used;
    uint16_t head;

    (void)state;
    *header = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN, .sector = 7};
    for (unsigned i = 0; i < 16; i++)
        buffers[i] = (struct driver_buffer){HEADER_GPA + i, 1, false};
    buffers[16] = (struct driver_buffer){DATA_GPA, 100, true};
    buffers[17] = (struct driver_buffer){DATA_GPA + 0x1000, 400, true};
    buffers[18] = (struct driver_buffer){DATA_GPA + 0x2000, 13, true}; /* 12 and the status */
    memset(driver_at(&vm, DATA_GPA + 0x2000), 0xee, 14);
    (void)driver_add(&queues[ROOT], buffers, 19);
    driver_kick(&queues[ROOT]);
    assert_true(driver_take(&queues[ROOT], &head, &used));
    assert_int_equal(used, 513);
    assert_int_equal(pread(vm.root_fd, expected, 512, 7 * 512), 512);
    assert_memory_equal(driver_at(&vm, DATA_GPA), expected, 100);
    assert_memory_equal(driver_at(&vm, DATA_GPA + 0x1000), expected + 100, 400);
    assert_memory_equal(driver_at(&vm, DATA_GPA + 0x2000), expected + 500, 12);
    assert_memory_equal(driver_at(&vm, DATA_GPA + 0x200c), "\0\xee", 2);

    /* Header and data in one. */
    *header = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_OUT, .sector = 1};
    memset(header + 1, 0x42, 512);
    buffers[0] = (struct driver_buffer){HEADER_GPA, 16 + 512, false};
    buffers[1] = (struct driver_buffer){STATUS_GPA + 0x400, 1, true};
    (void)driver_add(&queues[SCRATCH], buffers, 2);
    driver_kick(&queues[SCRATCH]);
    assert_true(driver_take(&queues[SCRATCH], &head, &used));
    assert_int_equal(pread(vm.scratch_fd, expected, 512, 512), 512);
    assert_memory_equal(expected, header + 1, 512);
}

static void test_malformed(void **state)
{
    const struct driver_buffer no_status[] = {{HEADER_GPA, 16, false}};
    const struct driver_buffer no_header[] = {{STATUS_GPA, 1, true}};
    const struct driver_buffer short_header[] = {{HEADER_GPA, 15, false}, {STATUS_GPA, 1, true}};
    uint8_t *status = driver_at(&vm, STATUS_GPA);
    uint32_t used;
    uint16_t head;

    (void)state;
    *status = 0xee;
    (void)driver_add(&queues[ROOT], no_header, 1);
    driver_kick(&queues[ROOT]);
    assert_true(driver_take(&queues[ROOT], &head, &used));
    assert_int_equal(*status, VIRTIO_BLK_S_IOERR);
    *status = 0xee;
    (void)driver_add(&queues[ROOT], short_header, 2);
    driver_kick(&queues[ROOT]);
    assert_true(driver_take(&queues[ROOT], &head, &used));
    assert_int_equal(*status, VIRTIO_BLK_S_IOERR);
    assert_false(driver_needs_reset(&vm, ROOT));
    (void)driver_add(&queues[ROOT], no_status, 1);
    driver_kick(&queues[ROOT]);
    assert_true(driver_needs_reset(&vm, ROOT)); /* nowhere to answer */
    assert_false(driver_take(&queues[ROOT], &head, &used));
}

/* As large as SEG_MAX and SIZE_MAX allow: 254 segments of 64 KiB, all over the same memory. */
static void test_largest_request(void **state)
{
    struct virtio_blk_outhdr *header = driver_at(&vm, HEADER_GPA);
    uint8_t *status = driver_at(&vm, STATUS_GPA);
    struct driver_buffer buffers[256];
    uint32_t used;
    uint16_t head;

    (void)state;
    *header = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN, .sector = 0};
    buffers[0] = (struct driver_buffer){HEADER_GPA, 16, false};
    buffers[255] = (struct driver_buffer){STATUS_GPA, 1, true};
    for (unsigned i = 1; i < 255; i++)
        buffers[i] = (struct driver_buffer){DATA_GPA, 65536, true};
    (void)driver_add(&queues[ROOT], buffers, 256);
    driver_kick(&queues[ROOT]);
    assert_true(driver_take(&queues[ROOT], &head, &used));
    assert_int_equal(*status, VIRTIO_BLK_S_IOERR); /* this disk is smaller */
    for (unsigned i = 1; i < 255; i++)             /* 254 x 4 KiB: nearly all of it */
        buffers[i] = (struct driver_buffer){DATA_GPA + 4096 * i, 4096, true};
    (void)driver_add(&queues[ROOT], buffers, 256);
    driver_kick(&queues[ROOT]);
    assert_true(driver_take(&queues[ROOT], &head, &used));
    assert_int_equal(*status, VIRTIO_BLK_S_OK);
    assert_int_equal(used, 254 * 4096 + 1);
    for (uint32_t i = 0; i < 254 * 4096; i += 4)
        assert_int_equal(*(uint32_t *)driver_at(&vm, DATA_GPA + 4096 + i), i);
    /* More than RAM and disk could ever hold. */
    for (unsigned i = 1; i < 255; i++)
        buffers[i] = (struct driver_buffer){0x100000, 0x300000, true};
    (void)driver_add(&queues[ROOT], buffers, 256);
    driver_kick(&queues[ROOT]);
    assert_true(driver_take(&queues[ROOT], &head, &used));
    assert_false(driver_needs_reset(&vm, ROOT));
}

static void test_host_failures(void **state)
{
    (void)state;
    assert_int_equal(ftruncate(vm.root_fd, 4096), 0); /* cut short under the guest */
    assert_int_equal(status_of(ROOT, VIRTIO_BLK_T_IN, 0, 4096, true), VIRTIO_BLK_S_OK);
    assert_int_equal(status_of(ROOT, VIRTIO_BLK_T_IN, 7, 1024, true), VIRTIO_BLK_S_IOERR);
    assert_int_equal(status_of(ROOT, VIRTIO_BLK_T_IN, 100, 512, true), VIRTIO_BLK_S_IOERR);
    /* A file that takes no more (EPERM here; ENOSPC and EIO go the same way). */
    assert_int_equal(fcntl(vm.scratch_fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    assert_int_equal(status_of(SCRATCH, VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_IOERR);
    assert_int_equal(punch(VIRTIO_BLK_T_DISCARD, 0, 8, 0, 16), VIRTIO_BLK_S_IOERR);
    assert_int_equal(status_of(SCRATCH, VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
}

/* Many at once: all completed in one pass with one interrupt. */
static void test_batch(void **state)
{
    const struct driver_buffer buffers[] = {
        {HEADER_GPA, 16, false}, {DATA_GPA, 512, true}, {STATUS_GPA, 1, true}};
    struct virtio_blk_outhdr *header = driver_at(&vm, HEADER_GPA);
    uint32_t used;
    uint16_t head;

    (void)state;
    *header = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN, .sector = 0};
    for (unsigned i = 0; i < 85; i++)
        (void)driver_add(&queues[ROOT], buffers, 3);
    (void)driver_interrupts(&vm, ROOT);
    driver_kick(&queues[ROOT]);
    for (unsigned i = 0; i < 85; i++)
        assert_true(driver_take(&queues[ROOT], &head, &used));
    assert_int_equal(driver_interrupts(&vm, ROOT), 1);
    driver_kick(&queues[ROOT]);
    assert_int_equal(driver_interrupts(&vm, ROOT), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_and_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_range, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_discard_and_zeroes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_any_layout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_largest_request, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_failures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_batch, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
