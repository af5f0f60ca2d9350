/*
 * The virtio devices against a driver that does anything. The input is a program of register
 * accesses, pokes into guest memory, notifications, traffic on the channel, and saving and loading
 * (from true and from changed bytes).
 *
 * Held after each step: nothing but guest RAM is written (pages with a pattern lie on both sides,
 * and no access beyond those), the read-only disk keeps its bytes and both their size, a queue that
 * is ready keeps its registers until the reset, completions move forward by at most a queue's size,
 * a device that waits for its reset does nothing, and what was saved loads and is the same then.
 */
#include <assert.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/virtio/devices.h"

#define LOW_BYTES   (192u * 1024)
#define HIGH_BYTES  (64u * 1024)
#define RAM_BYTES   (LOW_BYTES + HIGH_BYTES)
#define EDGE_BYTES  4096u /* with the pattern */
#define GUARD_BYTES (4u << 20)
#define DISK_BYTES  (64u * 1024)
#define STATE_MAX   4096u
#define QUEUES_MAX  6u
#define STEPS_MAX   400u
#define PATTERN     0xc3

static const unsigned queue_counts[GUEST_VIRTIO_COUNT] = {1, 1, 6, 1};

/* What is lasting: made once, put back for every input. */
static struct guest_mem mem;
static struct devices_config config;
static uint8_t *edges[2];
static uint8_t edge_pattern[EDGE_BYTES];
static uint8_t disk_pattern[DISK_BYTES];

static struct devices *devices;
static int channel_fd;
static uint16_t queue_sizes[GUEST_VIRTIO_COUNT][QUEUES_MAX]; /* as step_start set them up */
static struct wire_reader input;

/* A saved state, taken apart as virtio_save and virtq_save put it together. */
struct queue_view {
    uint16_t size;
    uint8_t ready;
    uint64_t addresses[3];
    uint16_t done;
};
struct view {
    size_t size;
    uint8_t bytes[STATE_MAX];
    uint8_t status[GUEST_VIRTIO_COUNT];
    struct queue_view queues[GUEST_VIRTIO_COUNT][QUEUES_MAX];
};

static void view_take(struct view *v)
{
    static const size_t own_bytes[GUEST_VIRTIO_COUNT] = {8, 8, 10, 0};
    struct wire_writer w;
    struct wire_reader r;

    wire_writer_init(&w, v->bytes, sizeof(v->bytes));
    devices_save(devices, &w);
    assert(!w.bad);
    v->size = w.used;
    wire_reader_init(&r, v->bytes, v->size);
    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        (void)wire_get_u32(&r);
        v->status[slot] = wire_get_u8(&r);
        (void)wire_get_bytes(&r, 1 + 8 + 8 + 4 + 4 + 4 + 4);
        for (unsigned i = 0; i < queue_counts[slot]; i++) {
            struct queue_view *q = &v->queues[slot][i];

            q->size = wire_get_u16(&r);
            q->ready = wire_get_u8(&r);
            for (unsigned k = 0; k < 3; k++)
                q->addresses[k] = wire_get_u64(&r);
            q->done = wire_get_u16(&r);
        }
        (void)wire_get_bytes(&r, own_bytes[slot]);
    }
    assert(!r.bad && r.left == 0);
}

static void views_compare(const struct view *before, const struct view *after)
{
    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        if (after->status[slot] == 0)
            continue; /* it was reset */
        for (unsigned i = 0; i < queue_counts[slot]; i++) {
            const struct queue_view *old = &before->queues[slot][i];
            const struct queue_view *new = &after->queues[slot][i];
            uint16_t moved = (uint16_t)(new->done - old->done);

            assert(moved <= old->size);
            if ((before->status[slot] & VIRTIO_CONFIG_S_NEEDS_RESET) != 0)
                assert(moved == 0);
            if (old->ready && new->ready)
                assert(old->size ==
                       new->size &&memcmp(old->addresses, new->addresses, sizeof(old->addresses)) ==
                       0);
            if ((before->status[slot] & VIRTIO_CONFIG_S_DRIVER_OK) != 0)
                assert(old->ready == new->ready);
        }
    }
}

static void check_untouched(void)
{
    static uint8_t disk[DISK_BYTES];
    struct stat st;

    for (unsigned i = 0; i < 2; i++)
        assert(memcmp(edges[i], edge_pattern, EDGE_BYTES) == 0);
    assert(pread(config.fds[GUEST_VIRTIO_ROOT], disk, sizeof(disk), 0) == sizeof(disk));
    assert(memcmp(disk, disk_pattern, sizeof(disk)) == 0);
    assert(fstat(config.fds[GUEST_VIRTIO_ROOT], &st) == 0 && st.st_size == DISK_BYTES);
    assert(fstat(config.fds[GUEST_VIRTIO_SCRATCH], &st) == 0 && st.st_size == DISK_BYTES);
}

/* An address near something interesting. */
static uint64_t take_gpa(void)
{
    static const uint64_t bases[] = {
        0,
        0x1000,
        0x8000,
        LOW_BYTES - 64,
        GUEST_HIGH_RAM_GPA,
        0xfffffff0,
        GUEST_GAP_GPA,
        UINT64_MAX - 64,
        GUEST_HIGH_RAM_GPA + HIGH_BYTES - 64,
    };
    uint8_t base = wire_get_u8(&input);

    if (base >= 0xf0)
        return wire_get_u64(&input);
    return bases[base % (sizeof(bases) / sizeof(bases[0]))] + wire_get_u16(&input);
}

static uint32_t take_u32(void)
{
    uint8_t kind = wire_get_u8(&input);

    return kind < 0xc0 ? kind : wire_get_u32(&input);
}

static unsigned take_slot(void)
{
    return wire_get_u8(&input) % GUEST_VIRTIO_COUNT;
}

static void register_write(unsigned slot, uint32_t offset, uint32_t value)
{
    devices_mmio(devices, GUEST_VIRTIO_GPA(slot) + offset, &value, sizeof(value), true);
}

#define AVAIL_OFFSET 0x1000u
#define USED_OFFSET  0x1400u
#define HEADER_GPA   0x1f000u
#define DATA_GPA     0x20000u /* and up to 64 KiB from there */

static uint64_t ring_gpa(unsigned slot, unsigned queue)
{
    static const unsigned first[GUEST_VIRTIO_COUNT] = {0, 1, 2, 8};

    return 0x1000u + (first[slot] + queue) * 0x2000u;
}

/* A whole, correct set-up, which a random walk would hardly ever find. */
static void step_start(void)
{
    unsigned slot = take_slot();
    uint8_t log2 = wire_get_u8(&input) % 10;

    register_write(slot, VIRTIO_MMIO_STATUS, 0);
    register_write(slot, VIRTIO_MMIO_STATUS, 3);
    for (uint32_t half = 0; half < 2; half++) {
        uint32_t offered;

        register_write(slot, VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
        register_write(slot, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
        devices_mmio(devices, GUEST_VIRTIO_GPA(slot) + VIRTIO_MMIO_DEVICE_FEATURES, &offered,
                     sizeof(offered), false);
        register_write(slot, VIRTIO_MMIO_DRIVER_FEATURES, offered);
    }
    register_write(slot, VIRTIO_MMIO_STATUS, 0xb);
    for (unsigned i = 0; i < queue_counts[slot]; i++) {
        uint64_t gpa = ring_gpa(slot, i);

        register_write(slot, VIRTIO_MMIO_QUEUE_SEL, i);
        queue_sizes[slot][i] = (uint16_t)(log2 < 9 && slot < 2 ? 1u << log2 : 4);
        register_write(slot, VIRTIO_MMIO_QUEUE_NUM, queue_sizes[slot][i]);
        register_write(slot, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)gpa);
        register_write(slot, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)gpa + AVAIL_OFFSET);
        register_write(slot, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)gpa + USED_OFFSET);
        register_write(slot, VIRTIO_MMIO_QUEUE_READY, 1);
    }
    register_write(slot, VIRTIO_MMIO_STATUS, 0xf);
}

/* What the lanes do for a QueueNotify that a register access wrote. */
static void serve_notified(void)
{
    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        uint64_t count;

        if (read(config.notify_fds[slot], &count, sizeof(count)) == sizeof(count))
            devices_notify(devices, (enum guest_virtio_slot)slot);
    }
}

static void step_register(void)
{
    unsigned slot = take_slot();

    register_write(slot, (wire_get_u8(&input) % 0x48u) * 4, take_u32());
    serve_notified();
}

static void step_access(void)
{
    uint64_t gpa = GUEST_VIRTIO_GPA(0) + wire_get_u16(&input);
    uint8_t size = wire_get_u8(&input) % 9;
    bool is_write = wire_get_u8(&input) & 1;
    uint8_t data[9];

    memset(data, 0x5a, sizeof(data));
    for (unsigned i = 0; is_write && i < size; i++)
        data[i] = wire_get_u8(&input);
    devices_mmio(devices, gpa, data, size, is_write);
    assert(data[8] == 0x5a);
    serve_notified();
}

static void step_poke(void)
{
    uint64_t gpa = take_gpa();
    uint8_t size = wire_get_u8(&input);
    const uint8_t *bytes = wire_get_bytes(&input, size);
    void *at = guest_mem_at(&mem, gpa, size);

    if (at != NULL && bytes != NULL)
        memcpy(at, bytes, size);
}

static void set_descriptor(unsigned slot, unsigned queue, unsigned index, struct vring_desc d)
{
    uint64_t gpa = ring_gpa(slot, queue) + index * sizeof(d);

    memcpy(guest_mem_at(&mem, gpa, sizeof(d)), &d, sizeof(d));
}

static void step_descriptor(void)
{
    unsigned slot = take_slot();
    unsigned queue = wire_get_u8(&input) % queue_counts[slot];
    struct vring_desc d = {.addr = take_gpa(), .len = take_u32()};
    uint8_t index = wire_get_u8(&input);

    d.flags = wire_get_u8(&input) & 7;
    d.next = (uint16_t)take_u32();
    set_descriptor(slot, queue, index, d);
}

/* What a device looks at first: a disk's header, or a control message. */
static struct vring_desc take_header(unsigned slot)
{
    static const uint32_t types[] = {0, 1, 4, 8, 11, 13, 0, 99};
    struct virtio_blk_outhdr blk = {.type = types[wire_get_u8(&input) % 8]};
    struct virtio_console_control control = {.id = wire_get_u8(&input) % 3};

    blk.sector = take_u32();
    control.event = (uint16_t)(blk.sector % 8);
    control.value = (uint16_t)(blk.type & 1);
    if (slot == GUEST_VIRTIO_CONSOLE) {
        memcpy(guest_mem_at(&mem, HEADER_GPA, sizeof(control)), &control, sizeof(control));
        return (struct vring_desc){.addr = HEADER_GPA, .len = sizeof(control)};
    }
    memcpy(guest_mem_at(&mem, HEADER_GPA, sizeof(blk)), &blk, sizeof(blk));
    return (struct vring_desc){.addr = HEADER_GPA, .len = sizeof(blk)};
}

/* A chain that is more or less in order, made available and notified as a driver would. */
static void step_chain(void)
{
    unsigned slot = take_slot();
    unsigned queue = wire_get_u8(&input) % queue_counts[slot];
    uint16_t size = queue_sizes[slot][queue];
    uint8_t shape = wire_get_u8(&input);
    unsigned count = 1 + shape % 5;
    uint16_t *avail = guest_mem_at(&mem, ring_gpa(slot, queue) + AVAIL_OFFSET, 6 + 2 * 256);

    if (size == 0)
        return;
    unsigned index = wire_get_u8(&input) % size;
    avail[2 + avail[1] % size] = (uint16_t)index;
    for (unsigned i = 0; i < count; i++, index = (index + 1) % size) {
        struct vring_desc d = {.addr = DATA_GPA + wire_get_u16(&input)};
        uint8_t len = wire_get_u8(&input);

        d.len = len < 0xa0 ? (len % 0x20u) * 512 : len;
        d.flags = i >= shape / 5 % 5 ? VRING_DESC_F_WRITE : 0;
        if (i == 0 && (shape & 0x80) == 0)
            d = take_header(slot);
        if (i + 1 < count)
            d.flags |= VRING_DESC_F_NEXT;
        d.next = (uint16_t)((index + 1) % size);
        set_descriptor(slot, queue, index, d);
    }
    avail[1]++;
    devices_notify(devices, (enum guest_virtio_slot)slot);
}

/* Makes some heads available; the index moves by what the input says, right or wrong. */
static void step_available(void)
{
    unsigned slot = take_slot();
    unsigned queue = wire_get_u8(&input) % queue_counts[slot];
    uint8_t entry = wire_get_u8(&input);
    uint8_t head = wire_get_u8(&input);
    uint8_t by = wire_get_u8(&input);
    uint16_t *avail = guest_mem_at(&mem, ring_gpa(slot, queue) + AVAIL_OFFSET, 6 + 2 * 256);

    avail[2 + entry] = head;
    avail[1] = (uint16_t)(avail[1] + (by < 0xf0 ? by % 5 : by * 257));
}

static void step_notify(void)
{
    devices_notify(devices, (enum guest_virtio_slot)take_slot());
}

static void step_channel(void)
{
    uint8_t what = wire_get_u8(&input);
    uint8_t bytes[4096];

    memset(bytes, what, sizeof(bytes));
    if ((what & 0x30) == 0)
        (void)!write(channel_fd, bytes, what * 16u);
    else if ((what & 0x30) == 0x10)
        (void)!read(channel_fd, bytes, sizeof(bytes));
    struct error e = ERROR_INIT;
    uint32_t events =
        what & 0x80 ? devices_events(devices, GUEST_VIRTIO_CONSOLE) : EPOLLIN | EPOLLOUT;
    if (what == 0xff)
        events |= EPOLLHUP;
    (void)!devices_io(devices, GUEST_VIRTIO_CONSOLE, events, &e);
}

/* Loads `bytes` into new devices, as a restore does. */
static int restore(const uint8_t *bytes, size_t size)
{
    struct error e = ERROR_INIT;
    struct wire_reader r;

    devices_free(devices);
    devices = devices_new(&config, &e);
    assert(devices != NULL);
    wire_reader_init(&r, bytes, size);
    return devices_load(devices, &r, &e);
}

static void step_restore(void)
{
    static struct view before, after;

    view_take(&before);
    assert(restore(before.bytes, before.size) == 0);
    view_take(&after);
    assert(before.size == after.size && memcmp(before.bytes, after.bytes, before.size) == 0);
}

static void step_restore_changed(void)
{
    static struct view view;
    uint8_t count = wire_get_u8(&input) % 8;

    view_take(&view);
    for (unsigned i = 0; i < count; i++) {
        size_t at = wire_get_u16(&input) % view.size;

        view.bytes[at] = wire_get_u8(&input);
    }
    if (restore(view.bytes, view.size) < 0) {
        view_take(&view);
        for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++)
            assert(view.status[slot] == 0);
    }
}

static const struct {
    void (*run)(void);
    bool compared; /* whether what was so before says something about after */
} steps[] = {
    {step_register, true},   {step_access, true},    {step_poke, true},
    {step_descriptor, true}, {step_available, true}, {step_notify, true},
    {step_channel, true},    {step_restore, true},   {step_restore_changed, false},
    {step_start, false},     {step_notify, true},    {step_descriptor, true},
    {step_chain, true},      {step_chain, true},     {step_chain, true},
};

static int disk_new(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    assert(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    return fd;
}

static void set_up_once(void)
{
    const size_t map_bytes = 2 * (GUARD_BYTES + EDGE_BYTES) + RAM_BYTES;
    uint8_t *map = mmap(NULL, map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert(map != MAP_FAILED);
    config.fds[GUEST_VIRTIO_RNG] = -1;
    edges[0] = map + GUARD_BYTES;
    mem = (struct guest_mem){
        .host = edges[0] + EDGE_BYTES, .low_bytes = LOW_BYTES, .high_bytes = HIGH_BYTES};
    edges[1] = mem.host + RAM_BYTES;
    assert(mprotect(edges[0], RAM_BYTES + 2 * EDGE_BYTES, PROT_READ | PROT_WRITE) == 0);
    memset(edge_pattern, PATTERN, EDGE_BYTES);
    memcpy(edges[0], edge_pattern, EDGE_BYTES);
    memcpy(edges[1], edge_pattern, EDGE_BYTES);
    for (size_t i = 0; i < DISK_BYTES; i++)
        disk_pattern[i] = (uint8_t)(i ^ i >> 8);
    config.mem = &mem;
    config.fds[GUEST_VIRTIO_ROOT] = disk_new("root");
    config.fds[GUEST_VIRTIO_SCRATCH] = disk_new("scratch");
    assert(pwrite(config.fds[GUEST_VIRTIO_ROOT], disk_pattern, DISK_BYTES, 0) == DISK_BYTES);
    for (unsigned i = 0; i < GUEST_VIRTIO_COUNT; i++) {
        config.irq_fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        config.notify_fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        assert(config.irq_fds[i] >= 0 && config.notify_fds[i] >= 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct view before, after;
    struct error e = ERROR_INIT;
    int channel[2];

    if (config.mem == NULL)
        set_up_once();
    memset(mem.host, 0, RAM_BYTES);
    memset(queue_sizes, 0, sizeof(queue_sizes));
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, channel) == 0);
    channel_fd = channel[0];
    config.fds[GUEST_VIRTIO_CONSOLE] = channel[1];
    devices = devices_new(&config, &e);
    assert(devices != NULL);
    wire_reader_init(&input, data, size);
    view_take(&before);
    for (unsigned i = 0; i < STEPS_MAX && input.left > 0 && !input.bad; i++) {
        uint8_t step = wire_get_u8(&input) % (sizeof(steps) / sizeof(steps[0]));

        steps[step].run();
        view_take(&after);
        if (steps[step].compared)
            views_compare(&before, &after);
        before = after;
    }
    check_untouched();
    devices_free(devices);
    (void)close(channel[0]);
    (void)close(channel[1]);
    return 0;
}
