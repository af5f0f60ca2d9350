/* Hostile rings, and the entropy device, which is the plainest one to break them on. */
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "virtio_driver.h"

#define SLOT GUEST_VIRTIO_RNG
#define NEXT VRING_DESC_F_NEXT
#define IN   VRING_DESC_F_WRITE

static struct driver_vm vm;
static struct driver_queue q;

static int setup(void **state)
{
    (void)state;
    driver_vm_init(&vm);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    driver_vm_fini(&vm);
    return 0;
}

static void start(void)
{
    driver_negotiate(&vm, SLOT);
    driver_queue_init(&q, &vm, SLOT, 0, 8);
    driver_start(&vm, SLOT);
}

/* Entries that would do, behind the table's end: a device that looks there would not notice. */
static void fill_behind_the_table(void)
{
    for (unsigned i = 8; i < 256; i++)
        driver_set_desc(&q, i, DRIVER_DATA_GPA, 16, IN, 0);
}

/* Offers the chain that starts at descriptor 0; it must break the device, and touch nothing. */
static void expect_broken(void)
{
    uint32_t bytes;
    uint16_t head;

    driver_set_avail(&q, 0, 0);
    driver_set_avail_index(&q, 1);
    driver_kick(&q);
    assert_true(driver_needs_reset(&vm, SLOT));
    assert_false(driver_take(&q, &head, &bytes));
    start(); /* and a reset mends it */
    assert_false(driver_needs_reset(&vm, SLOT));
}

static void test_addresses(void **state)
{
    static const struct {
        uint64_t gpa;
        uint32_t bytes;
    } bad[] = {
        {DRIVER_DATA_GPA, 0},      {DRIVER_RAM_BYTES, 1},
        {DRIVER_RAM_BYTES - 1, 2}, {DRIVER_RAM_BYTES - 4096, 4097},
        {0, DRIVER_RAM_BYTES + 1}, {0, UINT32_MAX},
        {UINT64_MAX, 1},           {UINT64_MAX - 15, 16},
        {UINT64_MAX - 15, 17},     {UINT64_MAX - 15, UINT32_MAX},
        {GUEST_GAP_GPA, 4},        {GUEST_DOORBELL_GPA, 4096},
        {GUEST_HIGH_RAM_GPA, 16},  {GUEST_HIGH_RAM_GPA - 16, 32},
    };

    (void)state;
    start();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        driver_set_desc(&q, 0, bad[i].gpa, bad[i].bytes, IN, 0);
        expect_broken();
        driver_set_desc(&q, 0, DRIVER_DATA_GPA, 8, IN | NEXT, 1); /* second in the chain */
        driver_set_desc(&q, 1, bad[i].gpa, bad[i].bytes, IN, 0);
        expect_broken();
    }
}

static void test_chains(void **state)
{
    (void)state;
    start();
    driver_set_desc(&q, 0, DRIVER_DATA_GPA, 8, IN | NEXT, 0); /* itself */
    expect_broken();
    driver_set_desc(&q, 0, DRIVER_DATA_GPA, 8, IN | NEXT, 1); /* a ring of two */
    driver_set_desc(&q, 1, DRIVER_DATA_GPA, 8, IN | NEXT, 0);
    expect_broken();
    for (uint16_t i = 0; i < 8; i++) /* through all, back to the first */
        driver_set_desc(&q, i, DRIVER_DATA_GPA, 8, IN | NEXT, (i + 1) % 8);
    expect_broken();
    fill_behind_the_table();
    driver_set_desc(&q, 0, DRIVER_DATA_GPA, 8, IN | NEXT, 8); /* past the table */
    expect_broken();
    driver_set_desc(&q, 0, DRIVER_DATA_GPA, 8, IN | NEXT, 0xffff);
    expect_broken();
    driver_set_desc(&q, 0, DRIVER_DATA_GPA, 8, IN | NEXT, 1); /* out behind in */
    driver_set_desc(&q, 1, DRIVER_DATA_GPA, 8, 0, 0);
    expect_broken();
    driver_set_desc(&q, 0, DRIVER_DATA_GPA, 16, VRING_DESC_F_INDIRECT, 0); /* not offered */
    expect_broken();
    driver_set_desc(&q, 0, DRIVER_DATA_GPA, 16, VRING_DESC_F_INDIRECT | NEXT, 1);
    expect_broken();
    driver_set_desc(&q, 0, DRIVER_DATA_GPA, 15, VRING_DESC_F_INDIRECT | IN, 0);
    expect_broken();
}

static void test_avail_ring(void **state)
{
    static const uint16_t bad_heads[] = {8, 9, 0x8000, 0xffff};
    static const uint16_t bad_indices[] = {9, 10, 0x7fff, 0x8000, 0xffff};
    uint32_t bytes;
    uint16_t head;

    (void)state;
    start();
    for (size_t i = 0; i < sizeof(bad_heads) / sizeof(bad_heads[0]); i++) {
        fill_behind_the_table();
        driver_set_avail(&q, 0, bad_heads[i]);
        driver_set_avail_index(&q, 1);
        driver_kick(&q);
        assert_true(driver_needs_reset(&vm, SLOT));
        start();
    }
    for (size_t i = 0; i < sizeof(bad_indices) / sizeof(bad_indices[0]); i++) {
        driver_set_avail_index(&q, bad_indices[i]);
        driver_kick(&q);
        assert_true(driver_needs_reset(&vm, SLOT));
        assert_false(driver_take(&q, &head, &bytes));
        start();
    }
    /* An index that moves back, behind what was completed. */
    (void)driver_add(&q, &(struct driver_buffer){DRIVER_DATA_GPA, 16, true}, 1);
    (void)driver_add(&q, &(struct driver_buffer){DRIVER_DATA_GPA, 16, true}, 1);
    driver_kick(&q);
    driver_set_avail_index(&q, 1);
    driver_kick(&q);
    assert_true(driver_needs_reset(&vm, SLOT));
    /* A full ring is not a fault, nor is the same chain in all of its entries. */
    start();
    driver_set_desc(&q, 0, DRIVER_DATA_GPA, 16, IN, 0);
    driver_set_avail_index(&q, 8);
    driver_kick(&q);
    for (unsigned i = 0; i < 8; i++)
        assert_true(driver_take(&q, &head, &bytes));
    assert_false(driver_needs_reset(&vm, SLOT));
}

/* What was good before the fault is completed and announced. */
static void test_fault_behind_good_ones(void **state)
{
    uint32_t bytes;
    uint16_t head;

    (void)state;
    start();
    (void)driver_interrupts(&vm, SLOT);
    uint16_t first = driver_add(&q, &(struct driver_buffer){DRIVER_DATA_GPA, 16, true}, 1);
    (void)driver_add(&q, &(struct driver_buffer){DRIVER_RAM_BYTES, 16, true}, 1);
    (void)driver_add(&q, &(struct driver_buffer){DRIVER_DATA_GPA, 16, true}, 1);
    driver_kick(&q);
    assert_true(driver_take(&q, &head, &bytes));
    assert_int_equal(head, first);
    assert_false(driver_take(&q, &head, &bytes));
    assert_true(driver_needs_reset(&vm, SLOT));
    assert_int_equal(driver_read(&vm, SLOT, VIRTIO_MMIO_INTERRUPT_STATUS),
                     VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
}

/* Rings that lie in each other, and in the buffers that the device fills. */
static void test_rings_overlap(void **state)
{
    (void)state;
    for (uint32_t at = 0; at <= 256; at += 4) {
        driver_negotiate(&vm, SLOT);
        driver_write(&vm, SLOT, VIRTIO_MMIO_QUEUE_SEL, 0);
        driver_write(&vm, SLOT, VIRTIO_MMIO_QUEUE_NUM, 8);
        driver_write(&vm, SLOT, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000);
        driver_write(&vm, SLOT, VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x1000 + at);
        driver_write(&vm, SLOT, VIRTIO_MMIO_QUEUE_USED_LOW, 0x1100 - at);
        driver_write(&vm, SLOT, VIRTIO_MMIO_QUEUE_READY, 1);
        driver_start(&vm, SLOT);
        struct vring_desc *desc = driver_at(&vm, 0x1000);
        memset(desc, 0, 4096);
        desc[0] = (struct vring_desc){.addr = 0x1000, .len = 4096, .flags = IN};
        for (unsigned i = 0; i < 1000; i++) {
            ((struct vring_avail *)driver_at(&vm, 0x1000 + at))->idx++;
            devices_notify(vm.devices, SLOT);
        }
    }
}

static void test_rng(void **state)
{
    const struct driver_buffer huge[] = {
        {DRIVER_DATA_GPA, 2u << 20, true},
        {DRIVER_DATA_GPA, 2u << 20, true},
        {0, DRIVER_RAM_BYTES, true},
    };
    const struct driver_buffer split[] = {
        {DRIVER_DATA_GPA, 64, false}, /* to be read: of no use */
        {DRIVER_DATA_GPA + 100, 1, true},
        {DRIVER_DATA_GPA + 200, 64, true},
    };
    static const uint8_t zeroes[64];
    uint32_t bytes;
    uint16_t head;

    (void)state;
    start();
    uint16_t first = driver_add(&q, split, 3);
    driver_kick(&q);
    assert_true(driver_take(&q, &head, &bytes));
    assert_int_equal(head, first);
    assert_int_equal(bytes, 65);
    assert_memory_equal(driver_at(&vm, DRIVER_DATA_GPA), zeroes, 64);
    assert_memory_not_equal(driver_at(&vm, DRIVER_DATA_GPA + 200), zeroes, 64);
    assert_memory_equal(driver_at(&vm, DRIVER_DATA_GPA + 264), zeroes, 64);
    /* Much more than it gives at once: filled from the front, not past the bound. */
    memset(driver_at(&vm, DRIVER_DATA_GPA), 0, 8192);
    (void)driver_add(&q, huge, 3);
    driver_kick(&q);
    assert_true(driver_take(&q, &head, &bytes));
    assert_int_equal(bytes, 4096);
    assert_memory_not_equal(driver_at(&vm, DRIVER_DATA_GPA + 4032), zeroes, 64);
    assert_memory_equal(driver_at(&vm, DRIVER_DATA_GPA + 4096), zeroes, 64);
    /* Nothing to fill is answered, too. */
    (void)driver_add(&q, split, 1);
    driver_kick(&q);
    assert_true(driver_take(&q, &head, &bytes));
    assert_int_equal(bytes, 0);
}

/* Both counters pass 2^16. */
static void test_indices_wrap(void **state)
{
    uint32_t bytes;
    uint16_t head;

    (void)state;
    start();
    for (unsigned i = 0; i < 70000; i++) {
        uint16_t mine = driver_add(&q, &(struct driver_buffer){DRIVER_DATA_GPA, 4, true}, 1);

        driver_kick(&q);
        assert_true(driver_take(&q, &head, &bytes));
        assert_int_equal(head, mine);
    }
    assert_false(driver_needs_reset(&vm, SLOT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chains, setup, teardown),
        cmocka_unit_test_setup_teardown(test_avail_ring, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fault_behind_good_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rings_overlap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rng, setup, teardown),
        cmocka_unit_test_setup_teardown(test_indices_wrap, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
