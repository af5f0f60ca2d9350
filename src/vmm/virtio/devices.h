/*
 * All virtio devices of one guest behind one face: the rest of the monitor knows only this header.
 * A device is a row of the table in devices.c; its slot (cloche/guest_abi.h) is its name outside.
 *
 * Threads: any vCPU's may call devices_mmio. A device is served (devices_notify, devices_io) by the
 * thread of its lane; each lane is one thread, so that what waits in one stalls nothing in another.
 * Locks are per device and inside (device.h), so any thread may call anything but new, free and
 * load.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/wire.h"
#include "cloche/guest_abi.h"
#include "vmm/common/guest_mem.h"

struct devices;

enum devices_lane {
    DEVICES_LANE_FAST, /* never waits for the host */
    DEVICES_LANE_DISK, /* a request takes as long as the host's disk does */
    DEVICES_LANE_COUNT
};

struct devices_config {
    const struct guest_mem *mem; /* outlives the devices */
    /* What is behind each device: a file whose size in bytes is a disk's capacity, a SOCK_STREAM
     * for the console, which becomes non-blocking; -1 where there is nothing. */
    int fds[GUEST_VIRTIO_COUNT];
    int irq_fds[GUEST_VIRTIO_COUNT];    /* eventfds; a write of 1 raises the device's interrupt */
    int notify_fds[GUEST_VIRTIO_COUNT]; /* eventfds; readable: call devices_notify */
};

/* Makes all devices in their reset state. The descriptors stay the caller's and must outlive them.
 */
struct devices *devices_new(const struct devices_config *config, struct error *e)
    __attribute__((warn_unused_result));
void devices_free(struct devices *d);

/*
 * A vCPU's access to [GUEST_VIRTIO_GPA(0), GUEST_VIRTIO_GPA(GUEST_VIRTIO_COUNT)): `size` is 1, 2, 4
 * or 8; reads fill `data`. Wrong widths and offsets read as zeroes and are ignored on write. A
 * write to QueueNotify is usually taken by the ioeventfd and does not come here; where it does, the
 * device's notify_fd is written to. A reset waits for the request that is being carried out.
 */
void devices_mmio(struct devices *d, uint64_t gpa, void *data, uint32_t size, bool is_write);

/* Which thread is to serve the device. */
enum devices_lane devices_lane(enum guest_virtio_slot slot);

/* QueueNotify was written for the device: process all of its queues. */
void devices_notify(struct devices *d, enum guest_virtio_slot slot);

/* The descriptor that the device waits for, -1 where it waits for none; which poll events it waits
 * for now (EPOLLIN and/or EPOLLOUT; 0 while the guest has no room and the host has nothing to
 * take); and what to call when they, or a hang-up, come. devices_io returns -1 when the descriptor
 * is of no more use, which ends the guest. */
int devices_fd(const struct devices *d, enum guest_virtio_slot slot);
uint32_t devices_events(struct devices *d, enum guest_virtio_slot slot);
int devices_io(struct devices *d, enum guest_virtio_slot slot, uint32_t events, struct error *e)
    __attribute__((warn_unused_result));

/*
 * Everything that must survive a snapshot: transport and queue state, and buffers in flight. With
 * no vCPU running, devices_freeze waits for requests that are being carried out, serves what else
 * waits in the queues, and lets nothing be served from then on: what devices_save then writes stays
 * true, and guest memory is left alone.
 *
 * devices_load takes hostile bytes: each value is checked as if a guest had written it; -1 leaves
 * the devices as they were when new. It comes before anything is served.
 */
void devices_freeze(struct devices *d);
void devices_save(struct devices *d, struct wire_writer *w);
int devices_load(struct devices *d, struct wire_reader *r, struct error *e)
    __attribute__((warn_unused_result));
