/* Saving and loading: in the middle of work, and from hostile bytes. */
#include <linux/virtio_console.h>
#include <linux/virtio_mmio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cmocka.h>

#include "virtio_driver.h"

#define RNG     GUEST_VIRTIO_RNG
#define CONSOLE GUEST_VIRTIO_CONSOLE

static struct driver_vm vm;

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

/* A driver that is interrupted by a restore behind every single step notices nothing. */
static void test_restore_at_every_step(void **state)
{
    struct driver_queue q;
    uint32_t bytes;
    uint16_t head;

    (void)state;
    driver_vm_restore(&vm);
    driver_write(&vm, RNG, VIRTIO_MMIO_STATUS, 3);
    driver_write(&vm, RNG, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
    driver_write(&vm, RNG, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    driver_vm_restore(&vm);
    assert_int_equal(driver_read(&vm, RNG, VIRTIO_MMIO_DEVICE_FEATURES), 1);
    driver_write(&vm, RNG, VIRTIO_MMIO_DRIVER_FEATURES, 1);
    driver_vm_restore(&vm);
    driver_write(&vm, RNG, VIRTIO_MMIO_STATUS, 0xb);
    driver_vm_restore(&vm);
    assert_int_equal(driver_read(&vm, RNG, VIRTIO_MMIO_STATUS), 0xb);
    driver_write(&vm, RNG, VIRTIO_MMIO_QUEUE_NUM, 8);
    driver_vm_restore(&vm);
    driver_write(&vm, RNG, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000);
    driver_vm_restore(&vm);
    driver_queue_init(&q, &vm, RNG, 0, 8);
    driver_vm_restore(&vm);
    assert_int_equal(driver_read(&vm, RNG, VIRTIO_MMIO_QUEUE_READY), 1);
    driver_start(&vm, RNG);
    for (unsigned i = 0; i < 20; i++) {
        driver_vm_restore(&vm);
        uint16_t mine = driver_add(&q, &(struct driver_buffer){DRIVER_DATA_GPA, 16, true}, 1);
        driver_vm_restore(&vm);
        driver_kick(&q);
        driver_vm_restore(&vm);
        assert_true(driver_take(&q, &head, &bytes));
        assert_int_equal(head, mine);
        assert_false(driver_needs_reset(&vm, RNG));
    }
}

static void test_pending_interrupt(void **state)
{
    struct driver_queue q;

    (void)state;
    driver_negotiate(&vm, RNG);
    driver_queue_init(&q, &vm, RNG, 0, 8);
    driver_start(&vm, RNG);
    (void)driver_add(&q, &(struct driver_buffer){DRIVER_DATA_GPA, 16, true}, 1);
    driver_kick(&q);
    assert_int_equal(driver_interrupts(&vm, RNG), 1); /* lost with the old machine */
    driver_vm_restore(&vm);
    assert_int_equal(driver_interrupts(&vm, RNG), 1);
    assert_int_equal(driver_read(&vm, RNG, VIRTIO_MMIO_INTERRUPT_STATUS), 1);
    driver_write(&vm, RNG, VIRTIO_MMIO_INTERRUPT_ACK, 1);
    driver_vm_restore(&vm);
    assert_int_equal(driver_interrupts(&vm, RNG), 0);
    assert_int_equal(driver_read(&vm, RNG, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    /* A device that waits for its reset still does. */
    driver_set_avail_index(&q, 77);
    driver_kick(&q);
    driver_vm_restore(&vm);
    assert_true(driver_needs_reset(&vm, RNG));
}

/* One state as the hostile bytes' starting point: everything is running. */
static size_t state_of_running(uint8_t *bytes, size_t size)
{
    static const uint16_t sizes[] = {4, 4, 8, 8, 64, 32};
    struct driver_queue q;
    struct wire_writer w;

    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        driver_negotiate(&vm, slot);
        for (unsigned i = 0; i < (slot == CONSOLE ? 6 : 1); i++)
            driver_queue_init(&q, &vm, slot, i, slot == CONSOLE ? sizes[i] : 8);
        driver_start(&vm, slot);
    }
    wire_writer_init(&w, bytes, size);
    devices_save(vm.devices, &w);
    assert_false(w.bad);
    return w.used;
}

static int load(const uint8_t *bytes, size_t size)
{
    struct error e = ERROR_INIT;
    struct wire_reader r;

    wire_reader_init(&r, bytes, size);
    int result = devices_load(vm.devices, &r, &e);
    assert_int_equal(e.code, result < 0 ? ERR_TEMPLATE_CORRUPT : ERR_NONE);
    return result;
}

/* Whatever was loaded, the devices stay in guest memory (there are guards) and do not hang. */
static void work_all(void)
{
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++)
            devices_notify(vm.devices, slot);
        uint32_t events = driver_channel_events(&vm);
        (void)!driver_channel_io(&vm, events);
    }
}

static void test_cut_short(void **state)
{
    uint8_t bytes[DRIVER_STATE_MAX];
    size_t size = state_of_running(bytes, sizeof(bytes));

    (void)state;
    assert_int_equal(load(bytes, size), 0);
    for (size_t i = 0; i < size; i++) {
        assert_int_equal(load(bytes, i), -1);
        for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) /* nothing half loaded */
            assert_int_equal(driver_read(&vm, slot, VIRTIO_MMIO_STATUS), 0);
    }
    /* Too little room to save in is told as well. */
    struct wire_writer w;
    wire_writer_init(&w, bytes, size - 1);
    devices_save(vm.devices, &w);
    assert_true(w.bad);
}

static void test_every_byte_changed(void **state)
{
    static const uint8_t changes[] = {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff, 0x55};
    uint8_t bytes[DRIVER_STATE_MAX];
    uint8_t *ring = driver_at(&vm, 0x10000);
    size_t size = state_of_running(bytes, sizeof(bytes));

    (void)state;
    for (size_t i = 0; i < DRIVER_RAM_BYTES - 0x10000; i++) /* rings full of rubbish */
        ring[i] = (uint8_t)(i * 131 >> 3);
    for (size_t i = 0; i < size; i++) {
        for (size_t change = 0; change < sizeof(changes); change++) {
            bytes[i] ^= changes[change];
            if (load(bytes, size) == 0)
                work_all();
            bytes[i] ^= changes[change];
        }
    }
}

static void test_foreign_states(void **state)
{
    /* Where things stand in the state of the first device: see virtio_save and virtq_save. */
    enum {
        STATUS = 4,
        FEATURES = 6,
        ACCEPTED = 14,
        INTERRUPT = 34,
        SIZE = 38,
        READY = 40,
        DESC = 41
    };
    static const struct {
        size_t at;
        uint8_t bytes[8];
        size_t count;
    } bad[] = {
        {0, {3}, 1},                 /* another kind of device */
        {STATUS, {4}, 1},            /* DRIVER_OK before the rest */
        {STATUS, {0x8f}, 0},         /* (FAILED is possible; see below) */
        {STATUS, {0x1f}, 1},         /* a bit that does not exist */
        {FEATURES, {0xff}, 1},       /* offered by someone else */
        {ACCEPTED, {0xff, 0xff}, 2}, /* accepted, but never offered */
        {ACCEPTED + 4, {0}, 1},      /* a legacy driver */
        {INTERRUPT, {4}, 1},         /* an unknown reason */
        {SIZE, {0, 0}, 2},           /* ready, and no size */
        {SIZE, {7, 0}, 2},           /* not a power of two */
        {SIZE, {0, 2}, 2},           /* above our maximum */
        {READY, {2}, 1},             /* neither yes nor no */
        {DESC, {8}, 1},              /* misaligned */
        {DESC, {0, 0, 0, 0, 1}, 5},  /* past RAM */
        {DESC, {0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 8}, /* wraps */
        {DESC + 8, {0, 0, 0, 0xd0}, 4},                              /* devices, not RAM */
        {DESC + 16, {0xfc, 0xff, 0x3f}, 3},                          /* across the end of RAM */
    };
    uint8_t good[DRIVER_STATE_MAX], bytes[DRIVER_STATE_MAX];
    size_t size = state_of_running(good, sizeof(good));

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memcpy(bytes, good, size);
        memcpy(bytes + bad[i].at, bad[i].bytes, bad[i].count);
        assert_int_equal(load(bytes, size), bad[i].count > 0 ? -1 : 0);
    }
    /* A disk of another size. */
    assert_int_equal(ftruncate(vm.scratch_fd, 2 * DRIVER_DISK_BYTES), 0);
    struct error e = ERROR_INIT;
    devices_free(vm.devices);
    vm.devices = devices_new(&vm.config, &e);
    assert_non_null(vm.devices);
    assert_int_equal(load(good, size), -1);
}

/* Ring counters may be anything; a restored device judges the rings as always. */
static void test_any_counter(void **state)
{
    uint8_t bytes[DRIVER_STATE_MAX];
    size_t size = state_of_running(bytes, sizeof(bytes));

    (void)state;
    for (unsigned counter = 0; counter < 0x10000; counter += 257) {
        bytes[65] = (uint8_t)counter;
        bytes[66] = (uint8_t)(counter >> 8);
        assert_int_equal(load(bytes, size), 0);
        devices_notify(vm.devices, GUEST_VIRTIO_ROOT);
        assert_int_equal(driver_needs_reset(&vm, GUEST_VIRTIO_ROOT), counter != 0);
    }
}

static void test_random_states(void **state)
{
    uint8_t bytes[DRIVER_STATE_MAX];

    (void)state;
    srandom(1);
    for (unsigned round = 0; round < 2000; round++) {
        size_t size = state_of_running(bytes, sizeof(bytes));

        for (unsigned i = 0; i < 1 + round % 8; i++)
            bytes[(size_t)random() % size] = (uint8_t)random();
        if (load(bytes, size) == 0)
            work_all();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_restore_at_every_step, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pending_interrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_short, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_byte_changed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_states, setup, teardown),
        cmocka_unit_test_setup_teardown(test_any_counter, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_states, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
