/*
 * The virtio-mmio transport, register layout version 2 (virtio 1.2, 4.2): the status state machine
 * (2.1, 3.1.1), feature negotiation (2.2) and what a snapshot keeps. Modern drivers only:
 * VIRTIO_F_VERSION_1 must be accepted.
 *
 * What a driver may change depends on where it is, and everything else is ignored:
 *   features       after DRIVER, until FEATURES_OK
 *   a queue        after FEATURES_OK, until its QueueReady or DRIVER_OK; frozen then until the
 *                  device is reset, so that no check can be undone behind our back
 *   status         bits are only added, each after those that come before it; 0 resets
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/wire.h"
#include "vmm/virtio/device.h"

/* A driver's access at `offset` of the device's page; see devices_mmio. No lock is held. */
void virtio_mmio_access(struct virtio_device *v, uint64_t offset, void *data, uint32_t size,
                        bool is_write);

/* The transport's state and the device's own. Loading raises a pending interrupt again. */
void virtio_save(const struct virtio_device *v, struct wire_writer *w);
int virtio_load(struct virtio_device *v, struct wire_reader *r, struct error *e)
    __attribute__((warn_unused_result));
