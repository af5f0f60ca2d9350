/*
 * System calls: none but those of the devices' own files and of device.c.
 *
 * Every pass over a queue is bounded by what was available when it began. No queue is stuck by
 * that: we never ask a driver to keep its notifications to itself (VRING_USED_F_NO_NOTIFY), so one
 * that adds a buffer later also notifies later, and the lane comes back for it.
 */
#include "vmm/virtio/devices.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/blk.h"
#include "vmm/virtio/console.h"
#include "vmm/virtio/mmio.h"
#include "vmm/virtio/rng.h"

union device {
    struct virtio_device v; /* what all of them begin with */
    struct blk blk;
    struct console console;
    struct rng rng;
};

struct devices {
    union device slots[GUEST_VIRTIO_COUNT];
};

/* init fills in the device's own part and ends in virtio_init; name, mem and the eventfds are set
 * before, `fd` is what the configuration has for the slot. */
static const struct row {
    const char *name;
    enum devices_lane lane;
    int (*init)(struct virtio_device *v, int fd, struct error *e);
} rows[GUEST_VIRTIO_COUNT] = {
    [GUEST_VIRTIO_ROOT] = {"root", DEVICES_LANE_DISK, blk_init_root},
    [GUEST_VIRTIO_SCRATCH] = {"scratch", DEVICES_LANE_DISK, blk_init_scratch},
    [GUEST_VIRTIO_CONSOLE] = {"console", DEVICES_LANE_FAST, console_init},
    [GUEST_VIRTIO_RNG] = {"rng", DEVICES_LANE_FAST, rng_init},
};

struct devices *devices_new(const struct devices_config *config, struct error *e)
{
    struct devices *d = calloc(1, sizeof(*d));

    if (d == NULL) {
        (void)error_errno(e, errno, "cannot make the devices");
        return NULL;
    }
    for (unsigned i = 0; i < GUEST_VIRTIO_COUNT; i++) {
        struct virtio_device *v = &d->slots[i].v;

        v->name = rows[i].name;
        v->mem = config->mem;
        v->irq_fd = config->irq_fds[i];
        v->notify_fd = config->notify_fds[i];
        v->poll_fd = -1;
        if (rows[i].init(v, config->fds[i], e) < 0) {
            devices_free(d);
            return NULL;
        }
    }
    return d;
}

void devices_free(struct devices *d)
{
    if (d == NULL)
        return;
    for (unsigned i = 0; i < GUEST_VIRTIO_COUNT; i++) {
        if (d->slots[i].v.ops != NULL) /* else it was never made */
            virtio_fini(&d->slots[i].v);
    }
    free(d);
}

void devices_mmio(struct devices *d, uint64_t gpa, void *data, uint32_t size, bool is_write)
{
    uint64_t slot = (gpa - GUEST_VIRTIO_GPA(0)) / GUEST_PAGE_BYTES;

    if (gpa < GUEST_VIRTIO_GPA(0) || slot >= GUEST_VIRTIO_COUNT ||
        (size != 1 && size != 2 && size != 4 && size != 8)) {
        if (!is_write)
            memset(data, 0, size);
        return;
    }
    virtio_mmio_access(&d->slots[slot].v, gpa % GUEST_PAGE_BYTES, data, size, is_write);
}

static struct virtio_device *device_at(struct devices *d, enum guest_virtio_slot slot)
{
    assert((unsigned)slot < GUEST_VIRTIO_COUNT);
    return &d->slots[slot].v;
}

enum devices_lane devices_lane(enum guest_virtio_slot slot)
{
    assert((unsigned)slot < GUEST_VIRTIO_COUNT);
    return rows[slot].lane;
}

void devices_notify(struct devices *d, enum guest_virtio_slot slot)
{
    struct virtio_device *v = device_at(d, slot);

    virtio_begin(v);
    if (!v->frozen && virtio_is_running(v))
        v->ops->process(v);
    virtio_end(v);
}

int devices_fd(const struct devices *d, enum guest_virtio_slot slot)
{
    assert((unsigned)slot < GUEST_VIRTIO_COUNT);
    return d->slots[slot].v.poll_fd;
}

uint32_t devices_events(struct devices *d, enum guest_virtio_slot slot)
{
    struct virtio_device *v = device_at(d, slot);

    virtio_lock(v);
    uint32_t events = v->poll_fd < 0 || v->frozen ? 0 : v->ops->events(v);
    virtio_unlock(v);
    return events;
}

int devices_io(struct devices *d, enum guest_virtio_slot slot, uint32_t events, struct error *e)
{
    struct virtio_device *v = device_at(d, slot);

    virtio_begin(v);
    int result = v->poll_fd < 0 || v->frozen ? 0 : v->ops->io(v, events, e);
    virtio_end(v);
    return result;
}

void devices_freeze(struct devices *d)
{
    for (unsigned i = 0; i < GUEST_VIRTIO_COUNT; i++) {
        struct virtio_device *v = &d->slots[i].v;

        /* What was notified may have been taken off its eventfd already by a lane that then waits
         * for `serving` as we do: so the queues themselves are looked at. */
        virtio_begin(v);
        if (virtio_is_running(v))
            v->ops->process(v);
        v->frozen = true;
        virtio_end(v);
    }
}

void devices_save(struct devices *d, struct wire_writer *w)
{
    for (unsigned i = 0; i < GUEST_VIRTIO_COUNT; i++) {
        virtio_lock(&d->slots[i].v);
        virtio_save(&d->slots[i].v, w);
        virtio_unlock(&d->slots[i].v);
    }
}

int devices_load(struct devices *d, struct wire_reader *r, struct error *e)
{
    int result = 0;

    for (unsigned i = 0; i < GUEST_VIRTIO_COUNT && result == 0; i++)
        result = virtio_load(&d->slots[i].v, r, e);
    for (unsigned i = 0; i < GUEST_VIRTIO_COUNT && result < 0; i++)
        virtio_reset(&d->slots[i].v); /* half of a foreign state is worse than none */
    return result;
}
