/*
 * What all virtio devices have in common: the virtio-mmio transport, register layout version 2
 * (virtio 1.2, 4.2), the status state machine (2.1, 3.1.1), feature negotiation (2.2) and the
 * interrupt. Modern drivers only: VIRTIO_F_VERSION_1 must be accepted.
 *
 * What a driver may change depends on where it is, and everything else is ignored:
 *   features       after DRIVER, until FEATURES_OK
 *   a queue        after FEATURES_OK, until its QueueReady or DRIVER_OK; frozen then until the
 *                  device is reset, so that no check can be undone behind our back
 *   status         bits are only added, each after those that come before it; 0 resets
 *
 * A device embeds struct virtio_device first and gives its own part as struct virtio_ops. All
 * functions but virtio_mmio_interrupt_access are called with the devices' mutex held.
 */
#pragma once

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
     * virtio_is_running. */
    void (*process)(struct virtio_device *v);
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
    int irq_fd;
    uint64_t features;          /* offered */
    uint64_t features_required; /* of these, what a driver must accept */
    uint8_t config[VIRTIO_CONFIG_MAX];
    uint32_t config_bytes;

    uint8_t status;
    bool features_beyond; /* the driver accepted a bit past the 64 that there are */
    uint64_t driver_features;
    uint32_t device_features_select;
    uint32_t driver_features_select;
    uint32_t queue_select;
    _Atomic uint32_t interrupt_status; /* read and acknowledged without the mutex */
    struct virtq queues[VIRTIO_QUEUES_MAX];
};

/* Sets a device up in its reset state; name, config and the rest of `v` are the caller's to fill
 * in before. VIRTIO_F_VERSION_1 is added to features and to what is required. */
void virtio_init(struct virtio_device *v, const struct virtio_ops *ops);
void virtio_reset(struct virtio_device *v);

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

/* Sets DEVICE_NEEDS_RESET (2.1.2): nothing is served until the driver resets the device. */
void virtio_break(struct virtio_device *v);

/* A driver's access at `offset` of the device's page; see devices_mmio. */
void virtio_mmio_access(struct virtio_device *v, uint64_t offset, void *data, uint32_t size,
                        bool is_write);

/*
 * InterruptStatus and InterruptACK, the two registers that every interrupt handler touches, need no
 * mutex: a handler must not wait for the disk. Returns false for all others.
 */
bool virtio_mmio_interrupt_access(struct virtio_device *v, uint64_t offset, void *data,
                                  uint32_t size, bool is_write);

/* The transport's state and the device's own. Loading raises a pending interrupt again. */
void virtio_save(const struct virtio_device *v, struct wire_writer *w);
int virtio_load(struct virtio_device *v, struct wire_reader *r, struct error *e)
    __attribute__((warn_unused_result));
