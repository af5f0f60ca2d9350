#include "virtio_driver.h"

#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define GUARD_BYTES (1u << 20)

static int disk_new(const char *name, bool counting)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, DRIVER_DISK_BYTES), 0);
    for (uint32_t i = 0; counting && i < DRIVER_DISK_BYTES; i += sizeof(i))
        assert_int_equal(pwrite(fd, &i, sizeof(i), i), sizeof(i));
    return fd;
}

void driver_vm_init(struct driver_vm *vm)
{
    struct error e = ERROR_INIT;
    int channel[2];

    *vm = (struct driver_vm){0};
    vm->map = mmap(NULL, DRIVER_RAM_BYTES + 2 * GUARD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);
    assert_true(vm->map != MAP_FAILED);
    vm->ram = vm->map + GUARD_BYTES;
    assert_int_equal(mprotect(vm->ram, DRIVER_RAM_BYTES, PROT_READ | PROT_WRITE), 0);
    guest_mem_init(&vm->mem, vm->ram, DRIVER_RAM_BYTES);

    vm->root_fd = disk_new("root", true);
    vm->scratch_fd = disk_new("scratch", false);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel), 0);
    vm->channel_fd = channel[0];
    assert_int_equal(fcntl(vm->channel_fd, F_SETFL, O_NONBLOCK), 0);
    vm->config = (struct devices_config){
        .mem = &vm->mem,
        .fds = {[GUEST_VIRTIO_ROOT] = vm->root_fd,
                [GUEST_VIRTIO_SCRATCH] = vm->scratch_fd,
                [GUEST_VIRTIO_CONSOLE] = channel[1],
                [GUEST_VIRTIO_RNG] = -1},
    };
    for (unsigned i = 0; i < GUEST_VIRTIO_COUNT; i++) {
        vm->config.irq_fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        assert_true(vm->config.irq_fds[i] >= 0);
        vm->config.notify_fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        assert_true(vm->config.notify_fds[i] >= 0);
    }
    vm->devices = devices_new(&vm->config, &e);
    assert_non_null(vm->devices);
}

void driver_vm_fini(struct driver_vm *vm)
{
    devices_free(vm->devices);
    for (unsigned i = 0; i < GUEST_VIRTIO_COUNT; i++) {
        (void)close(vm->config.irq_fds[i]);
        (void)close(vm->config.notify_fds[i]);
    }
    (void)close(vm->root_fd);
    (void)close(vm->scratch_fd);
    (void)close(vm->config.fds[GUEST_VIRTIO_CONSOLE]);
    if (vm->channel_fd >= 0)
        (void)close(vm->channel_fd);
    (void)munmap(vm->map, DRIVER_RAM_BYTES + 2 * GUARD_BYTES);
}

void driver_vm_restore(struct driver_vm *vm)
{
    struct error e = ERROR_INIT;
    uint8_t state[DRIVER_STATE_MAX];
    struct wire_writer w;
    struct wire_reader r;

    wire_writer_init(&w, state, sizeof(state));
    devices_save(vm->devices, &w);
    assert_false(w.bad);
    devices_free(vm->devices);
    vm->devices = devices_new(&vm->config, &e);
    assert_non_null(vm->devices);
    wire_reader_init(&r, state, w.used);
    assert_int_equal(devices_load(vm->devices, &r, &e), 0);
    assert_int_equal(r.left, 0);
}

void *driver_at(struct driver_vm *vm, uint64_t gpa)
{
    assert_true(gpa < DRIVER_RAM_BYTES);
    return vm->ram + gpa;
}

uint32_t driver_read(struct driver_vm *vm, unsigned slot, uint32_t offset)
{
    uint32_t value = 0x55555555;

    devices_mmio(vm->devices, GUEST_VIRTIO_GPA(slot) + offset, &value, sizeof(value), false);
    return value;
}

void driver_write(struct driver_vm *vm, unsigned slot, uint32_t offset, uint32_t value)
{
    devices_mmio(vm->devices, GUEST_VIRTIO_GPA(slot) + offset, &value, sizeof(value), true);
}

bool driver_notified(struct driver_vm *vm, unsigned slot)
{
    uint64_t count;

    return read(vm->config.notify_fds[slot], &count, sizeof(count)) == sizeof(count);
}

unsigned driver_interrupts(struct driver_vm *vm, unsigned slot)
{
    uint64_t count;

    if (read(vm->config.irq_fds[slot], &count, sizeof(count)) != sizeof(count))
        return 0;
    return (unsigned)count;
}

void driver_negotiate(struct driver_vm *vm, unsigned slot)
{
    driver_write(vm, slot, VIRTIO_MMIO_STATUS, 0);
    driver_write(vm, slot, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    driver_write(vm, slot, VIRTIO_MMIO_STATUS,
                 VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    for (uint32_t half = 0; half < 2; half++) {
        driver_write(vm, slot, VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
        driver_write(vm, slot, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
        driver_write(vm, slot, VIRTIO_MMIO_DRIVER_FEATURES,
                     driver_read(vm, slot, VIRTIO_MMIO_DEVICE_FEATURES));
    }
    uint32_t status = driver_read(vm, slot, VIRTIO_MMIO_STATUS) | VIRTIO_CONFIG_S_FEATURES_OK;
    driver_write(vm, slot, VIRTIO_MMIO_STATUS, status);
    assert_int_equal(driver_read(vm, slot, VIRTIO_MMIO_STATUS), status);
}

void driver_queue_init(struct driver_queue *q, struct driver_vm *vm, unsigned slot, unsigned index,
                       uint16_t size)
{
    uint64_t ring = DRIVER_RING_GPA(slot, index);

    *q = (struct driver_queue){
        .vm = vm,
        .slot = slot,
        .index = index,
        .size = size,
        .desc_gpa = ring,
        .avail_gpa = ring + 16 * 256,
        .used_gpa = ring + 16 * 256 + 1024,
    };
    memset(driver_at(vm, ring), 0, 0x4000);
    driver_write(vm, slot, VIRTIO_MMIO_QUEUE_SEL, index);
    assert_int_equal(driver_read(vm, slot, VIRTIO_MMIO_QUEUE_READY), 0);
    assert_true(driver_read(vm, slot, VIRTIO_MMIO_QUEUE_NUM_MAX) >= size);
    driver_write(vm, slot, VIRTIO_MMIO_QUEUE_NUM, size);
    driver_write(vm, slot, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)q->desc_gpa);
    driver_write(vm, slot, VIRTIO_MMIO_QUEUE_DESC_HIGH, 0);
    driver_write(vm, slot, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)q->avail_gpa);
    driver_write(vm, slot, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 0);
    driver_write(vm, slot, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)q->used_gpa);
    driver_write(vm, slot, VIRTIO_MMIO_QUEUE_USED_HIGH, 0);
    driver_write(vm, slot, VIRTIO_MMIO_QUEUE_READY, 1);
    assert_int_equal(driver_read(vm, slot, VIRTIO_MMIO_QUEUE_READY), 1);
}

void driver_start(struct driver_vm *vm, unsigned slot)
{
    uint32_t status = driver_read(vm, slot, VIRTIO_MMIO_STATUS) | VIRTIO_CONFIG_S_DRIVER_OK;

    driver_write(vm, slot, VIRTIO_MMIO_STATUS, status);
    assert_int_equal(driver_read(vm, slot, VIRTIO_MMIO_STATUS), status);
}

bool driver_needs_reset(struct driver_vm *vm, unsigned slot)
{
    return (driver_read(vm, slot, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET) != 0;
}

uint16_t driver_add(struct driver_queue *q, const struct driver_buffer *buffers, unsigned count)
{
    uint16_t head = q->next_desc;

    for (unsigned i = 0; i < count; i++) {
        uint16_t next = (uint16_t)((q->next_desc + 1) % q->size);
        uint16_t flags = (uint16_t)((buffers[i].in ? VRING_DESC_F_WRITE : 0) |
                                    (i + 1 < count ? VRING_DESC_F_NEXT : 0));

        driver_set_desc(q, q->next_desc, buffers[i].gpa, buffers[i].bytes, flags, next);
        q->next_desc = next;
    }
    driver_set_avail(q, q->avail % q->size, head);
    driver_set_avail_index(q, ++q->avail);
    return head;
}

void driver_kick(struct driver_queue *q)
{
    devices_notify(q->vm->devices, q->slot);
}

bool driver_take(struct driver_queue *q, uint16_t *ret_head, uint32_t *ret_bytes)
{
    const struct vring_used *used = driver_at(q->vm, q->used_gpa);

    /* Acquire: pairs with the release in virtq_complete (queue.c). */
    uint16_t index = __atomic_load_n(&used->idx, __ATOMIC_ACQUIRE);
    assert_true((uint16_t)(index - q->used) <= q->size);
    if (index == q->used)
        return false;
    *ret_head = (uint16_t)used->ring[q->used % q->size].id;
    *ret_bytes = used->ring[q->used % q->size].len;
    q->used++;
    return true;
}

uint32_t driver_channel_events(struct driver_vm *vm)
{
    return devices_events(vm->devices, GUEST_VIRTIO_CONSOLE);
}

int driver_channel_io(struct driver_vm *vm, uint32_t events)
{
    struct error e = ERROR_INIT;
    int result = devices_io(vm->devices, GUEST_VIRTIO_CONSOLE, events, &e);

    assert_int_equal(e.code, result < 0 ? ERR_INTERNAL : ERR_NONE);
    return result;
}

void driver_set_desc(struct driver_queue *q, unsigned i, uint64_t gpa, uint32_t bytes,
                     uint16_t flags, uint16_t next)
{
    struct vring_desc *desc = driver_at(q->vm, q->desc_gpa);

    desc[i] = (struct vring_desc){.addr = gpa, .len = bytes, .flags = flags, .next = next};
}

void driver_set_avail(struct driver_queue *q, unsigned i, uint16_t head)
{
    struct vring_avail *avail = driver_at(q->vm, q->avail_gpa);

    avail->ring[i] = head;
}

void driver_set_avail_index(struct driver_queue *q, uint16_t index)
{
    struct vring_avail *avail = driver_at(q->vm, q->avail_gpa);

    /* Release: pairs with the acquire in rings_pending (queue.c), where the two are threads. */
    __atomic_store_n(&avail->idx, index, __ATOMIC_RELEASE);
}
