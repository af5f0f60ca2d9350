/*
 * System calls: futex (the mutex); fcntl in devices_new only. See the devices' own files for
 * theirs.
 *
 * Every pass over a queue is bounded by what was available when it began. No queue is stuck by
 * that: we never ask a driver to keep its notifications to itself (VRING_USED_F_NO_NOTIFY), so one
 * that adds a buffer later also notifies later, and the loop comes back for it.
 */
#include "vmm/virtio/devices.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/console.h"
#include "vmm/virtio/rng.h"

struct devices {
    pthread_mutex_t mutex;
    struct blk root;
    struct blk scratch;
    struct console console;
    struct rng rng;
    struct virtio_device *slots[GUEST_VIRTIO_COUNT];
};

static const char *const names[GUEST_VIRTIO_COUNT] = {
    [GUEST_VIRTIO_ROOT] = "root",
    [GUEST_VIRTIO_SCRATCH] = "scratch",
    [GUEST_VIRTIO_CONSOLE] = "console",
    [GUEST_VIRTIO_RNG] = "rng",
};

struct devices *devices_new(const struct devices_config *config, struct error *e)
{
    struct devices *d = calloc(1, sizeof(*d));

    if (d == NULL) {
        (void)error_errno(e, errno, "cannot make the devices");
        return NULL;
    }
    d->slots[GUEST_VIRTIO_ROOT] = &d->root.v;
    d->slots[GUEST_VIRTIO_SCRATCH] = &d->scratch.v;
    d->slots[GUEST_VIRTIO_CONSOLE] = &d->console.v;
    d->slots[GUEST_VIRTIO_RNG] = &d->rng.v;
    for (unsigned i = 0; i < GUEST_VIRTIO_COUNT; i++) {
        d->slots[i]->name = names[i];
        d->slots[i]->mem = config->mem;
        d->slots[i]->irq_fd = config->irq_fds[i];
    }
    if (fd_set_nonblocking(config->channel_fd, 1) < 0) {
        (void)error_errno(e, errno, "cannot make the channel non-blocking");
        free(d);
        return NULL;
    }
    if (blk_init(&d->root, config->root_fd, false, e) < 0 ||
        blk_init(&d->scratch, config->scratch_fd, true, e) < 0) {
        free(d);
        return NULL;
    }
    console_init(&d->console, config->channel_fd);
    rng_init(&d->rng);
    (void)pthread_mutex_init(&d->mutex, NULL);
    return d;
}

void devices_free(struct devices *d)
{
    if (d == NULL)
        return;
    (void)pthread_mutex_destroy(&d->mutex);
    free(d);
}

static void devices_lock(struct devices *d)
{
    int failed = pthread_mutex_lock(&d->mutex);

    assert(failed == 0);
}

static void devices_unlock(struct devices *d)
{
    int failed = pthread_mutex_unlock(&d->mutex);

    assert(failed == 0);
}

void devices_mmio(struct devices *d, uint64_t gpa, void *data, uint32_t size, bool is_write)
{
    uint64_t slot = (gpa - GUEST_VIRTIO_GPA(0)) / GUEST_PAGE_BYTES;
    uint64_t offset = gpa % GUEST_PAGE_BYTES;

    if (gpa < GUEST_VIRTIO_GPA(0) || slot >= GUEST_VIRTIO_COUNT ||
        (size != 1 && size != 2 && size != 4 && size != 8)) {
        if (!is_write)
            memset(data, 0, size);
        return;
    }
    struct virtio_device *v = d->slots[slot];
    if (virtio_mmio_interrupt_access(v, offset, data, size, is_write))
        return;
    devices_lock(d);
    virtio_mmio_access(v, offset, data, size, is_write);
    devices_unlock(d);
}

void devices_notify(struct devices *d, enum guest_virtio_slot slot)
{
    assert((unsigned)slot < GUEST_VIRTIO_COUNT);
    struct virtio_device *v = d->slots[slot];

    devices_lock(d);
    if (virtio_is_running(v))
        v->ops->process(v);
    devices_unlock(d);
}

uint32_t devices_channel_events(struct devices *d)
{
    devices_lock(d);
    uint32_t events = console_events(&d->console);
    devices_unlock(d);
    return events;
}

int devices_channel_io(struct devices *d, uint32_t events)
{
    devices_lock(d);
    int result = console_io(&d->console, events);
    devices_unlock(d);
    return result;
}

void devices_save(struct devices *d, struct wire_writer *w)
{
    devices_lock(d);
    for (unsigned i = 0; i < GUEST_VIRTIO_COUNT; i++)
        virtio_save(d->slots[i], w);
    devices_unlock(d);
}

int devices_load(struct devices *d, struct wire_reader *r, struct error *e)
{
    int result = 0;

    devices_lock(d);
    for (unsigned i = 0; i < GUEST_VIRTIO_COUNT && result == 0; i++)
        result = virtio_load(d->slots[i], r, e);
    for (unsigned i = 0; i < GUEST_VIRTIO_COUNT && result < 0; i++)
        virtio_reset(d->slots[i]); /* half of a foreign state is worse than none */
    devices_unlock(d);
    return result;
}
