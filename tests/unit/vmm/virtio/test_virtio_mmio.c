/* The transport: registers, widths, status, features, what is frozen when, config space. */
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "virtio_driver.h"

#define ACK         VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER      VIRTIO_CONFIG_S_DRIVER
#define FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK   VIRTIO_CONFIG_S_DRIVER_OK

static int setup(void **state)
{
    static struct driver_vm vm;

    driver_vm_init(&vm);
    *state = &vm;
    return 0;
}

static int teardown(void **state)
{
    driver_vm_fini(*state);
    return 0;
}

static void test_identification(void **state)
{
    static const uint32_t ids[GUEST_VIRTIO_COUNT] = {2, 2, 3, 4};

    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        assert_int_equal(driver_read(*state, slot, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
        assert_int_equal(driver_read(*state, slot, VIRTIO_MMIO_VERSION), 2);
        assert_int_equal(driver_read(*state, slot, VIRTIO_MMIO_DEVICE_ID), ids[slot]);
        assert_int_equal(driver_read(*state, slot, VIRTIO_MMIO_STATUS), 0);
        assert_int_equal(driver_read(*state, slot, VIRTIO_MMIO_CONFIG_GENERATION), 0);
        driver_write(*state, slot, VIRTIO_MMIO_SHM_SEL, 0);
        for (uint32_t at = VIRTIO_MMIO_SHM_LEN_LOW; at <= VIRTIO_MMIO_SHM_BASE_HIGH; at += 4)
            assert_int_equal(driver_read(*state, slot, at), UINT32_MAX);
    }
}

static void test_odd_accesses(void **state)
{
    struct driver_vm *vm = *state;
    uint8_t data[16];

    for (uint64_t at = 0; at < GUEST_PAGE_BYTES; at++) {
        for (uint32_t size = 0; size <= sizeof(data); size++) {
            bool is_register = at < VIRTIO_MMIO_CONFIG && (at % 4 != 0 || size != 4);
            bool is_nothing = size != 1 && size != 2 && size != 4 && size != 8;

            memset(data, 0xa5, sizeof(data));
            devices_mmio(vm->devices, GUEST_VIRTIO_GPA(0) + at, data, size, false);
            for (uint32_t i = 0; i < sizeof(data); i++) {
                if (i >= size)
                    assert_int_equal(data[i], 0xa5);
                else if (is_register || is_nothing)
                    assert_int_equal(data[i], 0);
            }
            memset(data, 0xff, sizeof(data));
            if (is_register || is_nothing)
                devices_mmio(vm->devices, GUEST_VIRTIO_GPA(0) + at, data, size, true);
        }
    }
    assert_int_equal(driver_read(vm, 0, VIRTIO_MMIO_STATUS), 0);
    /* Beside the devices there is nothing. */
    memset(data, 0xa5, sizeof(data));
    devices_mmio(vm->devices, GUEST_VIRTIO_GPA(GUEST_VIRTIO_COUNT), data, 8, false);
    assert_int_equal(data[0] | data[7], 0);
    memset(data, 0xa5, sizeof(data));
    devices_mmio(vm->devices, GUEST_VIRTIO_GPA(0) - 1, data, 4, false);
    assert_int_equal(data[0] | data[3], 0);
    devices_mmio(vm->devices, UINT64_MAX, data, 4, true);
}

static void test_config_space(void **state)
{
    struct driver_vm *vm = *state;
    const uint64_t sectors = DRIVER_DISK_BYTES / 512;
    uint64_t at = GUEST_VIRTIO_GPA(GUEST_VIRTIO_SCRATCH) + VIRTIO_MMIO_CONFIG;
    uint8_t bytes[8];
    uint64_t value;

    devices_mmio(vm->devices, at, &value, 8, false);
    assert_int_equal(value, sectors);
    for (unsigned i = 0; i < 8; i++)
        devices_mmio(vm->devices, at + i, &bytes[i], 1, false);
    assert_memory_equal(bytes, &sectors, 8);
    devices_mmio(vm->devices, at + 1, bytes, 4, false); /* at an odd place */
    assert_memory_equal(bytes, (const uint8_t *)&sectors + 1, 4);
    /* Across the end, and past it. The last field of ours is write_zeroes_may_unmap, at 56. */
    memset(bytes, 0xff, sizeof(bytes));
    devices_mmio(vm->devices, at + 56, bytes, 8, false);
    assert_int_equal(bytes[0], 1);
    assert_int_equal(bytes[4] | bytes[7], 0);
    for (uint32_t i = 60; i < 4096 - VIRTIO_MMIO_CONFIG; i += 4)
        assert_int_equal(driver_read(vm, GUEST_VIRTIO_SCRATCH, VIRTIO_MMIO_CONFIG + i), 0);
    /* It cannot be written. */
    value = 7;
    devices_mmio(vm->devices, at, &value, 8, true);
    devices_mmio(vm->devices, at, &value, 8, false);
    assert_int_equal(value, sectors);
}

static void test_status_in_order(void **state)
{
    driver_write(*state, 0, VIRTIO_MMIO_STATUS, DRIVER_OK);
    assert_int_equal(driver_read(*state, 0, VIRTIO_MMIO_STATUS), 0);
    driver_write(*state, 0, VIRTIO_MMIO_STATUS, FEATURES_OK | DRIVER);
    assert_int_equal(driver_read(*state, 0, VIRTIO_MMIO_STATUS), 0);
    driver_write(*state, 0, VIRTIO_MMIO_STATUS, ACK);
    driver_write(*state, 0, VIRTIO_MMIO_STATUS, ACK | FEATURES_OK | DRIVER_OK);
    assert_int_equal(driver_read(*state, 0, VIRTIO_MMIO_STATUS), ACK);
    driver_write(*state, 0, VIRTIO_MMIO_STATUS, DRIVER); /* would clear a bit */
    assert_int_equal(driver_read(*state, 0, VIRTIO_MMIO_STATUS), ACK);
    /* Unknown bits, and NEEDS_RESET, which is ours. */
    driver_write(*state, 0, VIRTIO_MMIO_STATUS, ACK | 0xffffff70);
    assert_int_equal(driver_read(*state, 0, VIRTIO_MMIO_STATUS), ACK);
    driver_negotiate(*state, 0);
    driver_write(*state, 0, VIRTIO_MMIO_STATUS,
                 VIRTIO_CONFIG_S_FAILED | ACK | DRIVER | FEATURES_OK);
    assert_int_equal(driver_read(*state, 0, VIRTIO_MMIO_STATUS),
                     VIRTIO_CONFIG_S_FAILED | ACK | DRIVER | FEATURES_OK);
    driver_write(*state, 0, VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(driver_read(*state, 0, VIRTIO_MMIO_STATUS), 0);
}

/* Tries to negotiate with these two words; tells whether the device took them. */
static bool features_taken(struct driver_vm *vm, unsigned slot, uint32_t low, uint32_t high)
{
    driver_write(vm, slot, VIRTIO_MMIO_STATUS, 0);
    driver_write(vm, slot, VIRTIO_MMIO_STATUS, ACK | DRIVER);
    driver_write(vm, slot, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    driver_write(vm, slot, VIRTIO_MMIO_DRIVER_FEATURES, low);
    driver_write(vm, slot, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    driver_write(vm, slot, VIRTIO_MMIO_DRIVER_FEATURES, high);
    driver_write(vm, slot, VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK);
    return (driver_read(vm, slot, VIRTIO_MMIO_STATUS) & FEATURES_OK) != 0;
}

static void test_features(void **state)
{
    const uint32_t version_1 = 1u << (VIRTIO_F_VERSION_1 - 32);
    uint32_t offered;

    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        uint32_t needed = slot == GUEST_VIRTIO_CONSOLE ? 2 : 0; /* MULTIPORT */

        driver_write(*state, slot, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
        offered = driver_read(*state, slot, VIRTIO_MMIO_DEVICE_FEATURES);
        driver_write(*state, slot, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
        assert_int_equal(driver_read(*state, slot, VIRTIO_MMIO_DEVICE_FEATURES), version_1);
        for (uint32_t select = 2; select != 0; select <<= 1) {
            driver_write(*state, slot, VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
            assert_int_equal(driver_read(*state, slot, VIRTIO_MMIO_DEVICE_FEATURES), 0);
        }
        assert_true(features_taken(*state, slot, offered, version_1));
        assert_true(features_taken(*state, slot, needed, version_1));
        assert_false(features_taken(*state, slot, offered, 0)); /* legacy drivers */
        for (unsigned bit = 0; bit < 64; bit++) {               /* each one that is not offered */
            uint64_t more = UINT64_C(1) << bit;

            if ((offered & more) == 0 && bit != VIRTIO_F_VERSION_1)
                assert_false(features_taken(*state, slot, offered | (uint32_t)more,
                                            version_1 | (uint32_t)(more >> 32)));
        }
    }
    assert_false(features_taken(*state, GUEST_VIRTIO_CONSOLE, 0, version_1));
    /* Bits past the 64th. */
    driver_write(*state, 0, VIRTIO_MMIO_STATUS, 0);
    driver_write(*state, 0, VIRTIO_MMIO_STATUS, ACK | DRIVER);
    driver_write(*state, 0, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 2);
    driver_write(*state, 0, VIRTIO_MMIO_DRIVER_FEATURES, 1);
    driver_write(*state, 0, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    driver_write(*state, 0, VIRTIO_MMIO_DRIVER_FEATURES, version_1);
    driver_write(*state, 0, VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK);
    assert_int_equal(driver_read(*state, 0, VIRTIO_MMIO_STATUS), ACK | DRIVER);
    /* After FEATURES_OK they are fixed: this driver never accepted FLUSH, and cannot later. */
    assert_true(features_taken(*state, GUEST_VIRTIO_SCRATCH, 0, version_1));
    driver_write(*state, GUEST_VIRTIO_SCRATCH, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    driver_write(*state, GUEST_VIRTIO_SCRATCH, VIRTIO_MMIO_DRIVER_FEATURES, 0);
    driver_vm_restore(*state); /* which would refuse accepted features without VERSION_1 */
}

static void try_queue(struct driver_vm *vm, uint32_t num, uint64_t desc, uint64_t avail,
                      uint64_t used, bool taken)
{
    driver_negotiate(vm, 0);
    driver_write(vm, 0, VIRTIO_MMIO_QUEUE_SEL, 0);
    driver_write(vm, 0, VIRTIO_MMIO_QUEUE_NUM, num);
    driver_write(vm, 0, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)desc);
    driver_write(vm, 0, VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(desc >> 32));
    driver_write(vm, 0, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)avail);
    driver_write(vm, 0, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (uint32_t)(avail >> 32));
    driver_write(vm, 0, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)used);
    driver_write(vm, 0, VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(used >> 32));
    driver_write(vm, 0, VIRTIO_MMIO_QUEUE_READY, 1);
    assert_int_equal(driver_read(vm, 0, VIRTIO_MMIO_QUEUE_READY), taken);
    assert_int_equal(driver_needs_reset(vm, 0), !taken);
}

static void test_queue_setup(void **state)
{
    const uint64_t end = DRIVER_RAM_BYTES;
    static const uint32_t bad_sizes[] = {0, 3, 255, 257, 512, 0x8000, 0x10000, 0x10001, UINT32_MAX};

    for (size_t i = 0; i < sizeof(bad_sizes) / sizeof(bad_sizes[0]); i++)
        try_queue(*state, bad_sizes[i], 0x1000, 0x2000, 0x3000, false);
    for (uint32_t size = 1; size <= 256; size *= 2)
        try_queue(*state, size, 0x1000, 0x3000, 0x4000, true);
    try_queue(*state, 16, 0, 0x2000, 0x3000, true);
    try_queue(*state, 16, 0x1008, 0x2000, 0x3000, false); /* alignment */
    try_queue(*state, 16, 0x1000, 0x2001, 0x3000, false);
    try_queue(*state, 16, 0x1000, 0x2000, 0x3002, false);
    try_queue(*state, 16, end - 256, 0x2000, 0x3000, true); /* the end of RAM */
    try_queue(*state, 16, end - 240, 0x2000, 0x3000, false);
    try_queue(*state, 16, 0x1000, end - 38, 0x3000, true);
    try_queue(*state, 16, 0x1000, end - 36, 0x3000, false);
    try_queue(*state, 16, 0x1000, 0x2000, end - 136, true);
    try_queue(*state, 16, 0x1000, 0x2000, end - 132, false);
    try_queue(*state, 16, UINT64_MAX - 15, 0x2000, 0x3000, false); /* wraps */
    try_queue(*state, 16, 0x1000, UINT64_MAX - 1, 0x3000, false);
    try_queue(*state, 16, GUEST_GAP_GPA, 0x2000, 0x3000, false); /* devices, not RAM */
    try_queue(*state, 16, 0x1000, GUEST_VIRTIO_GPA(0), 0x3000, false);
    try_queue(*state, 16, 0x1000, 0x1000, 0x1000, true); /* one over the other: the guest's loss */
}

static void test_queue_frozen(void **state)
{
    struct driver_vm *vm = *state;
    struct driver_queue q;
    static const uint32_t fields[] = {
        VIRTIO_MMIO_QUEUE_NUM,       VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH,
        VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
        VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_MMIO_QUEUE_READY,
    };
    uint32_t bytes;
    uint16_t head;

    /* Nothing takes before FEATURES_OK. */
    driver_write(vm, 3, VIRTIO_MMIO_STATUS, ACK | DRIVER);
    driver_write(vm, 3, VIRTIO_MMIO_QUEUE_NUM, 8);
    driver_write(vm, 3, VIRTIO_MMIO_QUEUE_READY, 1);
    assert_int_equal(driver_read(vm, 3, VIRTIO_MMIO_QUEUE_READY), 0);
    assert_false(driver_needs_reset(vm, 3));

    driver_negotiate(vm, 3);
    driver_queue_init(&q, vm, 3, 0, 8);
    for (size_t i = 0; i + 1 < sizeof(fields) / sizeof(fields[0]); i++)
        driver_write(vm, 3, fields[i], 0xfffffff0); /* frozen by QueueReady */
    driver_start(vm, 3);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        driver_write(vm, 3, fields[i], 0); /* and by DRIVER_OK, READY as well */
        driver_write(vm, 3, fields[i], 0xfffffff0);
    }
    assert_int_equal(driver_read(vm, 3, VIRTIO_MMIO_QUEUE_READY), 1);
    (void)driver_add(&q, &(struct driver_buffer){DRIVER_DATA_GPA, 32, true}, 1);
    driver_kick(&q);
    assert_true(driver_take(&q, &head, &bytes));
    assert_int_equal(bytes, 32);
}

static void test_queues_that_are_not_there(void **state)
{
    static const uint32_t selectors[] = {1, 2, 6, 0x7fffffff, 0x80000000, UINT32_MAX};

    driver_negotiate(*state, 0);
    for (size_t i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++) {
        driver_write(*state, 0, VIRTIO_MMIO_QUEUE_SEL, selectors[i]);
        assert_int_equal(driver_read(*state, 0, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
        driver_write(*state, 0, VIRTIO_MMIO_QUEUE_NUM, 8);
        driver_write(*state, 0, VIRTIO_MMIO_QUEUE_READY, 1);
        assert_int_equal(driver_read(*state, 0, VIRTIO_MMIO_QUEUE_READY), 0);
        driver_write(*state, 0, VIRTIO_MMIO_QUEUE_NOTIFY, selectors[i]);
    }
    driver_start(*state, 0);
    for (size_t i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++)
        driver_write(*state, 0, VIRTIO_MMIO_QUEUE_NOTIFY, selectors[i]);
    assert_false(driver_notified(*state, 0));
    for (unsigned i = 0; i < 10000; i++) /* a storm; the queue was never set up */
        driver_write(*state, 0, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_true(driver_notified(*state, 0));
    devices_notify(((struct driver_vm *)*state)->devices, 0);
    assert_false(driver_needs_reset(*state, 0));
}

static void test_interrupt_registers(void **state)
{
    struct driver_vm *vm = *state;
    struct driver_queue q;
    uint32_t bytes;
    uint16_t head;

    driver_negotiate(vm, 3);
    driver_queue_init(&q, vm, 3, 0, 8);
    driver_start(vm, 3);
    (void)driver_add(&q, &(struct driver_buffer){DRIVER_DATA_GPA, 32, true}, 1);
    driver_write(vm, 3, VIRTIO_MMIO_QUEUE_NOTIFY,
                 0); /* tells who serves, and serves nothing itself */
    assert_false(driver_take(&q, &head, &bytes));
    assert_true(driver_notified(vm, 3));
    driver_kick(&q);
    assert_true(driver_take(&q, &head, &bytes));
    assert_int_equal(driver_interrupts(vm, 3), 1);
    assert_int_equal(driver_read(vm, 3, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
    driver_write(vm, 3, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
    assert_int_equal(driver_read(vm, 3, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
    driver_write(vm, 3, VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
    assert_int_equal(driver_read(vm, 3, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    driver_write(vm, 3, VIRTIO_MMIO_INTERRUPT_STATUS, UINT32_MAX); /* read-only */
    assert_int_equal(driver_read(vm, 3, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    assert_int_equal(driver_read(vm, 3, VIRTIO_MMIO_INTERRUPT_ACK), 0); /* write-only */
    /* The driver does not want to hear of it. */
    *(uint16_t *)driver_at(vm, q.avail_gpa) = 1;
    (void)driver_add(&q, &(struct driver_buffer){DRIVER_DATA_GPA, 32, true}, 1);
    driver_kick(&q);
    assert_true(driver_take(&q, &head, &bytes));
    assert_int_equal(driver_interrupts(vm, 3), 0);
    assert_int_equal(driver_read(vm, 3, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    /* A broken ring is announced as a change of the configuration. */
    driver_set_avail_index(&q, 100);
    driver_kick(&q);
    assert_true(driver_needs_reset(vm, 3));
    assert_int_equal(driver_interrupts(vm, 3), 1);
    assert_int_equal(driver_read(vm, 3, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
    /* Once, and nothing is served until the reset. */
    driver_set_avail_index(&q, q.avail);
    driver_kick(&q);
    assert_int_equal(driver_interrupts(vm, 3), 0);
    driver_negotiate(vm, 3);
    assert_int_equal(driver_read(vm, 3, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    driver_queue_init(&q, vm, 3, 0, 8);
    driver_start(vm, 3);
    (void)driver_add(&q, &(struct driver_buffer){DRIVER_DATA_GPA, 32, true}, 1);
    driver_kick(&q);
    assert_true(driver_take(&q, &head, &bytes));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_identification, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_accesses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_config_space, setup, teardown),
        cmocka_unit_test_setup_teardown(test_status_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_features, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queue_setup, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queue_frozen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queues_that_are_not_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupt_registers, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
