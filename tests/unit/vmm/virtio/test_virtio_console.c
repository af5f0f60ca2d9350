/* The channel's port: what a multiport driver does, and data both ways with back-pressure. */
#include <linux/virtio_console.h>
#include <linux/virtio_mmio.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "virtio_driver.h"

#define SLOT GUEST_VIRTIO_CONSOLE

enum { PORT0_RX, PORT0_TX, CONTROL_RX, CONTROL_TX, RX, TX, QUEUES };

#define CONTROL_IN_GPA(i) (DRIVER_DATA_GPA + (i)*64)
#define CONTROL_OUT_GPA   (DRIVER_DATA_GPA + 0x1000)
#define RX_GPA(i)         (DRIVER_DATA_GPA + 0x10000 + (i)*4096)
#define TX_GPA            (DRIVER_DATA_GPA + 0x100000)

static struct driver_vm vm;
static struct driver_queue queues[QUEUES];

/* Up to where a Linux driver is when its probe function returns. */
static void start(void)
{
    static const uint16_t sizes[QUEUES] = {4, 4, 8, 8, 64, 32};

    driver_negotiate(&vm, SLOT);
    assert_int_equal(driver_read(&vm, SLOT, VIRTIO_MMIO_CONFIG + 4), 2); /* max_nr_ports */
    for (unsigned i = 0; i < QUEUES; i++)
        driver_queue_init(&queues[i], &vm, SLOT, i, sizes[i]);
    driver_start(&vm, SLOT);
    for (unsigned i = 0; i < 8; i++)
        (void)driver_add(&queues[CONTROL_RX], &(struct driver_buffer){CONTROL_IN_GPA(i), 64, true},
                         1);
    driver_kick(&queues[CONTROL_RX]);
}

static int setup(void **state)
{
    (void)state;
    driver_vm_init(&vm);
    start();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    driver_vm_fini(&vm);
    return 0;
}

static void control(uint32_t id, uint16_t event, uint16_t value)
{
    struct virtio_console_control *message = driver_at(&vm, CONTROL_OUT_GPA);
    uint32_t used;
    uint16_t head;

    *message = (struct virtio_console_control){.id = id, .event = event, .value = value};
    (void)driver_add(&queues[CONTROL_TX], &(struct driver_buffer){CONTROL_OUT_GPA, 8, false}, 1);
    driver_kick(&queues[CONTROL_TX]);
    assert_true(driver_take(&queues[CONTROL_TX], &head, &used)); /* the driver spins for it */
}

/* The next message from the device, whose buffer goes back to it. */
static void expect_control(uint16_t event)
{
    struct driver_queue *q = &queues[CONTROL_RX];
    const struct virtio_console_control *message;
    uint32_t used;
    uint16_t head;

    assert_true(driver_take(q, &head, &used));
    assert_int_equal(used, sizeof(*message));
    message = driver_at(&vm, CONTROL_IN_GPA(head));
    assert_int_equal(message->id, 1);
    assert_int_equal(message->event, event);
    assert_int_equal(message->value, 1);
    (void)driver_add(q, &(struct driver_buffer){CONTROL_IN_GPA(head), 64, true}, 1);
    driver_kick(q);
}

static void add_rx(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        (void)driver_add(&queues[RX], &(struct driver_buffer){RX_GPA(i), 4096, true}, 1);
    driver_kick(&queues[RX]);
}

static void open_port(void)
{
    control(VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    expect_control(VIRTIO_CONSOLE_PORT_ADD);
    control(1, VIRTIO_CONSOLE_PORT_READY, 1);
    expect_control(VIRTIO_CONSOLE_PORT_OPEN);
    control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
}

static void send_chain(uint32_t bytes)
{
    (void)driver_add(&queues[TX], &(struct driver_buffer){TX_GPA, bytes, false}, 1);
    driver_kick(&queues[TX]);
}

static void test_port_comes_up(void **state)
{
    uint32_t used;
    uint16_t head;

    (void)state;
    assert_int_equal(driver_channel_events(&vm), 0);
    assert_false(driver_take(&queues[CONTROL_RX], &head, &used)); /* nothing unasked */
    (void)driver_interrupts(&vm, SLOT);
    open_port();
    assert_true(driver_interrupts(&vm, SLOT) > 0);
    assert_false(driver_take(&queues[CONTROL_RX], &head, &used));
    assert_int_equal(driver_channel_events(&vm), 0); /* no receive buffers yet */
    add_rx(2);
    assert_int_equal(driver_channel_events(&vm), EPOLLIN);
    control(1, VIRTIO_CONSOLE_PORT_OPEN, 0); /* Linux would discard what we sent now */
    assert_int_equal(driver_channel_events(&vm), 0);
    control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    assert_int_equal(driver_channel_events(&vm), EPOLLIN);
}

static void test_odd_control_messages(void **state)
{
    static const uint32_t ids[] = {0, 2, 3, 0x80000001, UINT32_MAX};
    const struct driver_buffer in_only[] = {{CONTROL_OUT_GPA, 8, true}};
    const struct driver_buffer too_short[] = {{CONTROL_OUT_GPA, 7, false}};
    uint32_t used;
    uint16_t head;

    (void)state;
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        for (uint16_t event = 1; event < 12; event++)
            control(ids[i], event, 1);
        control(ids[i], 0xffff, 0xffff);
        control(ids[i], VIRTIO_CONSOLE_DEVICE_READY, 0);
    }
    control(1, VIRTIO_CONSOLE_PORT_READY, 0);
    assert_false(driver_take(&queues[CONTROL_RX], &head, &used));
    (void)driver_add(&queues[CONTROL_TX], too_short, 1);
    (void)driver_add(&queues[CONTROL_TX], in_only, 1);
    driver_kick(&queues[CONTROL_TX]);
    assert_true(driver_take(&queues[CONTROL_TX], &head, &used));
    assert_true(driver_take(&queues[CONTROL_TX], &head, &used));
    assert_int_equal(used, 0);
    assert_false(driver_needs_reset(&vm, SLOT));
    assert_int_equal(driver_channel_events(&vm), 0);
}

/* With no buffer for it a message waits; a buffer too small for it comes back empty. */
static void test_control_waits_for_buffers(void **state)
{
    const struct driver_buffer small = {CONTROL_IN_GPA(0), 7, true};
    struct driver_queue *q = &queues[CONTROL_RX];
    uint32_t used;
    uint16_t head;

    (void)state;
    driver_negotiate(&vm, SLOT);
    driver_queue_init(q, &vm, SLOT, CONTROL_RX, 8);
    driver_queue_init(&queues[CONTROL_TX], &vm, SLOT, CONTROL_TX, 8);
    driver_start(&vm, SLOT);
    control(VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    control(1, VIRTIO_CONSOLE_PORT_READY, 1);
    (void)driver_add(q, &small, 1);
    driver_kick(q);
    assert_true(driver_take(q, &head, &used));
    assert_int_equal(used, 0);
    for (unsigned i = 1; i < 4; i++)
        (void)driver_add(q, &(struct driver_buffer){CONTROL_IN_GPA(i), 64, true}, 1);
    driver_kick(q);
    expect_control(VIRTIO_CONSOLE_PORT_ADD);
    expect_control(VIRTIO_CONSOLE_PORT_OPEN);
    assert_false(driver_take(q, &head, &used));
}

static void test_to_the_guest(void **state)
{
    uint8_t data[10000];
    uint32_t used;
    uint16_t head;

    (void)state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
    open_port();
    add_rx(2);
    assert_int_equal(write(vm.channel_fd, data, sizeof(data)), sizeof(data));
    (void)driver_interrupts(&vm, SLOT);
    assert_int_equal(driver_channel_io(&vm, EPOLLIN), 0);
    assert_int_equal(driver_interrupts(&vm, SLOT), 1);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(driver_take(&queues[RX], &head, &used));
        assert_int_equal(used, 4096);
        assert_memory_equal(driver_at(&vm, RX_GPA(i)), data + 4096 * i, 4096);
    }
    /* Both buffers are used up: the socket keeps the rest, and is not polled. */
    assert_int_equal(driver_channel_events(&vm), 0);
    assert_int_equal(driver_channel_io(&vm, EPOLLIN), 0);
    add_rx(2);
    assert_int_equal(driver_channel_events(&vm), EPOLLIN);
    assert_int_equal(driver_channel_io(&vm, EPOLLIN), 0);
    assert_true(driver_take(&queues[RX], &head, &used));
    assert_int_equal(used, 10000 - 8192);
    assert_memory_equal(driver_at(&vm, RX_GPA(0)), data + 8192, used);
    assert_false(driver_take(&queues[RX], &head, &used));
    assert_int_equal(driver_channel_events(&vm), EPOLLIN);
    assert_int_equal(driver_channel_io(&vm, EPOLLIN), 0); /* for nothing */
    /* A buffer in two parts; one that cannot be written comes back empty. */
    driver_negotiate(&vm, SLOT);
    start();
    open_port();
    const struct driver_buffer parts[] = {{RX_GPA(0), 3, true}, {RX_GPA(1), 5, true}};
    (void)driver_add(&queues[RX], &(struct driver_buffer){RX_GPA(2), 8, false}, 1);
    (void)driver_add(&queues[RX], parts, 2);
    driver_kick(&queues[RX]);
    assert_int_equal(write(vm.channel_fd, "abcdefgh", 8), 8);
    assert_int_equal(driver_channel_io(&vm, EPOLLIN), 0);
    assert_true(driver_take(&queues[RX], &head, &used));
    assert_int_equal(used, 0);
    assert_true(driver_take(&queues[RX], &head, &used));
    assert_int_equal(used, 8);
    assert_memory_equal(driver_at(&vm, RX_GPA(0)), "abc", 3);
    assert_memory_equal(driver_at(&vm, RX_GPA(1)), "defgh", 5);
}

static void test_to_the_host(void **state)
{
    const struct driver_buffer parts[] = {
        {TX_GPA, 5, false}, {TX_GPA + 4096, 6, false}, {TX_GPA + 8192, 9, true}};
    uint8_t data[64];
    uint32_t used;
    uint16_t head;

    (void)state;
    open_port();
    memcpy(driver_at(&vm, TX_GPA), "hello", 5);
    memcpy(driver_at(&vm, TX_GPA + 4096), " world", 6);
    (void)driver_interrupts(&vm, SLOT);
    uint16_t mine = driver_add(&queues[TX], parts, 3);
    driver_kick(&queues[TX]);
    assert_true(driver_take(&queues[TX], &head, &used));
    assert_int_equal(head, mine);
    assert_int_equal(used, 0);
    assert_int_equal(driver_interrupts(&vm, SLOT), 1);
    assert_int_equal(read(vm.channel_fd, data, sizeof(data)), 11);
    assert_memory_equal(data, "hello world", 11);
    assert_int_equal(driver_channel_events(&vm), 0);
    /* To the port that does not exist: answered, and nowhere else to be seen. */
    (void)driver_add(&queues[PORT0_TX], &(struct driver_buffer){TX_GPA, 5, false}, 1);
    driver_kick(&queues[PORT0_TX]);
    assert_true(driver_take(&queues[PORT0_TX], &head, &used));
    assert_int_equal(read(vm.channel_fd, data, sizeof(data)), -1);
}

/* The host reads `step` bytes at a time of 32 chains of 64 KiB; every chain is completed only when
 * its last byte is out. With `restore` the machine is saved and loaded all the time. */
static void stream_out(size_t step, bool restore)
{
    const uint32_t chain_bytes = 65536, chains = 32;
    size_t sent_bytes = 0, seen_bytes = 0;
    uint32_t *words = driver_at(&vm, TX_GPA);
    uint8_t data[65536];
    unsigned completed = 0;
    uint32_t used;
    uint16_t head;

    for (uint32_t i = 0; i < chain_bytes * chains / 4; i++)
        words[i] = i;
    for (uint32_t i = 0; i < chains; i++)
        (void)driver_add(&queues[TX],
                         &(struct driver_buffer){TX_GPA + i * chain_bytes, chain_bytes, false}, 1);
    driver_kick(&queues[TX]);
    assert_int_equal(driver_channel_events(&vm) & EPOLLOUT, EPOLLOUT);
    while (seen_bytes < chain_bytes * chains) {
        ssize_t n = read(vm.channel_fd, data, step);

        assert_true(n > 0);
        assert_memory_equal(data, (uint8_t *)words + seen_bytes, (size_t)n);
        seen_bytes += (size_t)n;
        if (restore)
            driver_vm_restore(&vm);
        if (driver_channel_events(&vm) & EPOLLOUT)
            assert_int_equal(driver_channel_io(&vm, EPOLLOUT), 0);
        while (driver_take(&queues[TX], &head, &used))
            completed++;
        sent_bytes = (size_t)completed * chain_bytes;
        assert_true(sent_bytes <= seen_bytes + (1u << 20)); /* no more than the socket holds */
    }
    assert_int_equal(completed, chains);
    assert_int_equal(read(vm.channel_fd, data, 1), -1);
    assert_int_equal(driver_channel_events(&vm) & EPOLLOUT, 0);
}

static void test_back_pressure_out(void **state)
{
    (void)state;
    open_port();
    stream_out(65536, false);
    stream_out(10000, false);
    stream_out(9999, true);
}

/* A driver that rewrites a chain while half of it is out gets its own garbage, nothing worse. */
static void test_chain_rewritten_meanwhile(void **state)
{
    static uint8_t data[2 << 20];
    uint32_t used;
    uint16_t head;

    (void)state;
    open_port();
    send_chain(2u << 20);
    assert_false(driver_take(&queues[TX], &head, &used));
    driver_set_desc(&queues[TX], 0, TX_GPA, 1, 0, 0); /* shorter than what is out already */
    assert_true(read(vm.channel_fd, data, sizeof(data)) > 0);
    assert_int_equal(driver_channel_io(&vm, EPOLLOUT), 0);
    assert_true(driver_take(&queues[TX], &head, &used));
    assert_int_equal(read(vm.channel_fd, data, sizeof(data)), -1);
    send_chain(2u << 20);
    driver_set_desc(&queues[TX], 1, DRIVER_RAM_BYTES, 1, 0, 0); /* and not RAM at all */
    assert_true(read(vm.channel_fd, data, sizeof(data)) > 0);
    assert_int_equal(driver_channel_io(&vm, EPOLLOUT), 0);
    assert_true(driver_needs_reset(&vm, SLOT));
    assert_int_equal(driver_channel_events(&vm), 0);
    assert_int_equal(driver_channel_io(&vm, EPOLLIN | EPOLLOUT), 0);
}

static void test_reset_in_flight(void **state)
{
    static uint8_t data[2 << 20];
    uint32_t used;
    uint16_t head;

    (void)state;
    open_port();
    add_rx(4);
    send_chain(2u << 20);
    assert_int_equal(driver_channel_events(&vm), EPOLLIN | EPOLLOUT);
    driver_write(&vm, SLOT, VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(driver_channel_events(&vm), 0);
    assert_int_equal(driver_channel_io(&vm, EPOLLIN | EPOLLOUT), 0);
    devices_notify(vm.devices, SLOT);
    (void)!read(vm.channel_fd, data, sizeof(data));
    start();
    open_port();
    memcpy(driver_at(&vm, TX_GPA), "fresh", 5);
    send_chain(5);
    assert_true(driver_take(&queues[TX], &head, &used));
    assert_int_equal(read(vm.channel_fd, data, sizeof(data)), 5);
    assert_memory_equal(data, "fresh", 5);
}

static void test_host_closes(void **state)
{
    uint32_t used;
    uint16_t head;

    (void)state;
    (void)signal(SIGPIPE, SIG_DFL); /* it would end the test */
    open_port();
    add_rx(1);
    assert_int_equal(close(vm.channel_fd), 0);
    vm.channel_fd = -1;
    send_chain(5);
    assert_false(driver_take(&queues[TX], &head, &used));
    assert_true(driver_channel_events(&vm) != 0); /* so that it is called ... */
    assert_int_equal(driver_channel_io(&vm, EPOLLOUT), -1);
    assert_int_equal(driver_channel_io(&vm, 0), -1);
}

static void test_host_half_closes(void **state)
{
    (void)state;
    open_port();
    add_rx(1);
    assert_int_equal(shutdown(vm.channel_fd, SHUT_WR), 0);
    assert_int_equal(driver_channel_io(&vm, EPOLLIN), -1);
}

static void test_host_closes_unread(void **state)
{
    (void)state; /* no queue of the guest's is set up: the poll's own news must do */
    assert_int_equal(driver_channel_io(&vm, EPOLLHUP), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_port_comes_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_control_messages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_control_waits_for_buffers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_to_the_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_to_the_host, setup, teardown),
        cmocka_unit_test_setup_teardown(test_back_pressure_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chain_rewritten_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_in_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_closes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_half_closes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_closes_unread, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
