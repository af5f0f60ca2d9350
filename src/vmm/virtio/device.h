/*
 * What all virtio devices have in common behind the transport (mmio.h): a device embeds struct
 * virtio_device first and gives its own part as struct virtio_ops: what it does with its queues,
 * with a descriptor of the host that it waits for, and with saved state.
 *
 * Two locks a device, taken in this order:
 *
 *   serving  Held by the one thread that serves the device, from its first look at the queues until
 *            all that it found there is complete, however long the host takes over it.
 *   lock     Guards every field below it and is never held while the host may block. process()
 *            gives it back (virtio_unlock) while it carries a request out: `serving` keeps everyone
 *            else off the queues meanwhile, and registers can be read and written.
 *
 * So a vCPU that touches a register waits for no disk, with one exception: a reset returns when the
 * request that is being carried out has ended, since the driver takes its buffers back then.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/wire.h"
#include "vmm/common/guest_mem.h"
#include "vmm/virtio/queue.h"

#define VIRTIO_QUEUES_MAX 6u
#define VIRTIO_CONFIG_MAX 64u

struct virtio_device;

struct virtio_ops {
    uint32_t id;                 /* device type, section 5 */
    const uint16_t *queue_sizes; /* QueueNumMax of each queue */
    unsigned queue_count;
    /* Serves what waits in the queues, one pass over what was there at entry. Only called while
     * virtio_is_running, with both locks held. */
    void (*process)(struct virtio_device *v);
    /* Optional, for a device with a poll_fd. events: which of EPOLLIN and EPOLLOUT it waits for
     * now; called with `lock` held. io: what to do when they come, or a hang-up, which is told
     * always; called with both held. io returns -1 with `e` set where the descriptor is of no more
     * use. */
    uint32_t (*events)(struct virtio_device *v);
    int (*io)(struct virtio_device *v, uint32_t events, struct error *e);
    /* Optional: back to what it was when new. */
    void (*reset)(struct virtio_device *v);
    /* Optional: state beyond the transport's. load returns -1 with `e` set for hostile bytes. */
    void (*save)(const struct virtio_device *v, struct wire_writer *w);
    int (*load)(struct virtio_device *v, struct wire_reader *r, struct error *e);
};

struct virtio_device {
    const struct virtio_ops *ops;
    const char *name; /* for error texts */
    const struct guest_mem *mem;
    int irq_fd;                 /* eventfd; a write of 1 raises the device's interrupt */
    int notify_fd;              /* eventfd; a write of 1 has the queues served */
    int poll_fd;                /* what events() and io() are about; -1: nothing */
    uint64_t features;          /* offered */
    uint64_t features_required; /* of these, what a driver must accept */
    uint8_t config[VIRTIO_CONFIG_MAX];
    uint32_t config_bytes;
    _Atomic uint32_t interrupt_status; /* read and acknowledged without a lock */

    pthread_mutex_t serving;
    pthread_mutex_t lock;
    bool frozen;     /* not served any more: its state is being saved */
    unsigned resets; /* vCPUs that wait to reset it */
    uint8_t status;
    bool features_beyond; /* the driver accepted a bit past the 64 that there are */
    uint64_t driver_features;
    uint32_t device_features_select;
    uint32_t driver_features_select;
    uint32_t queue_select;
    struct virtq queues[VIRTIO_QUEUES_MAX];
};

/* Sets a device up in its reset state; name, config and the rest of `v` are the caller's to fill
 * in before. VIRTIO_F_VERSION_1 is added to features and to what is required. */
void virtio_init(struct virtio_device *v, const struct virtio_ops *ops);
void virtio_fini(struct virtio_device *v);
void virtio_reset(struct virtio_device *v);

/* Become the one thread that serves the device, with both locks. */
void virtio_begin(struct virtio_device *v);
void virtio_end(struct virtio_device *v);
/* Only `lock`. */
void virtio_lock(struct virtio_device *v);
void virtio_unlock(struct virtio_device *v);

/* Whether a driver has set the device up and neither side has given up on it. */
bool virtio_is_running(const struct virtio_device *v);

/* Completes a chain; where the ring fails it, the device breaks and this returns -1. */
int virtio_complete(struct virtio_device *v, unsigned queue, uint16_t head, uint32_t written)
    __attribute__((warn_unused_result));
/* As virtq_next, but a broken ring breaks the device and yields 0. */
int virtio_next(struct virtio_device *v, unsigned queue, struct virtq_chain *ret_chain);
/* As virtq_pending, likewise. */
unsigned virtio_pending(struct virtio_device *v, unsigned queue);

/* Tells the driver that buffers of this queue were used, unless it asked not to be told. */
void virtio_notify_driver(struct virtio_device *v, unsigned queue);

/* Raises the device's interrupt for `why`, bits of InterruptStatus. Any thread may: KVM hears of
 * the eventfd, and the bits are atomic. */
void virtio_interrupt(struct virtio_device *v, uint32_t why);

/* Has whoever serves the device come to its queues. */
void virtio_wake(struct virtio_device *v);

/* Sets DEVICE_NEEDS_RESET (2.1.2): nothing is served until the driver resets the device. */
void virtio_break(struct virtio_device *v);
