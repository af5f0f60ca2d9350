/*
 * All virtio devices of one guest behind one face: the rest of the monitor knows only this header.
 *
 * Threads: vCPU threads call devices_mmio; the main thread calls everything else. One mutex inside
 * covers all device state. Queues are processed on the main thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/wire.h"
#include "cloche/guest_abi.h"
#include "vmm/common/guest_mem.h"

struct devices;

struct devices_config {
    const struct guest_mem *mem;     /* outlives the devices */
    int root_fd;                     /* read-only disk; its size in bytes is the capacity */
    int scratch_fd;                  /* writable disk */
    int channel_fd;                  /* SOCK_STREAM, set non-blocking by devices_new */
    int irq_fds[GUEST_VIRTIO_COUNT]; /* eventfds; a write of 1 raises the device's interrupt */
};

/* Makes all devices in their reset state. The descriptors stay the caller's and must outlive them.
 */
struct devices *devices_new(const struct devices_config *config, struct error *e)
    __attribute__((warn_unused_result));
void devices_free(struct devices *d);

/*
 * A vCPU's access to [GUEST_VIRTIO_GPA(0), GUEST_VIRTIO_GPA(GUEST_VIRTIO_COUNT)): `size` is 1, 2, 4
 * or 8; reads fill `data`. Wrong widths and offsets read as zeroes and are ignored on write. A
 * write to QueueNotify is usually taken by the ioeventfd and does not come here; where it does it
 * counts the same.
 */
void devices_mmio(struct devices *d, uint64_t gpa, void *data, uint32_t size, bool is_write);

/* QueueNotify was written for the device in this slot: process all of its queues. */
void devices_notify(struct devices *d, enum guest_virtio_slot slot);

/* Which poll events the channel waits for now (EPOLLIN and/or EPOLLOUT; 0 while the guest has no
 * room and the host has nothing to take), and what to call when they come. devices_channel_io
 * returns -1 when the daemon has closed the channel. */
uint32_t devices_channel_events(struct devices *d);
int devices_channel_io(struct devices *d, uint32_t events) __attribute__((warn_unused_result));

/*
 * Everything that must survive a snapshot: transport and queue state, and buffers in flight.
 * devices_save is called with no vCPU running, after every notified queue was processed.
 * devices_load takes hostile bytes: each value is checked as if a guest had written it; -1 leaves
 * the devices in no usable state.
 */
void devices_save(struct devices *d, struct wire_writer *w);
int devices_load(struct devices *d, struct wire_reader *r, struct error *e)
    __attribute__((warn_unused_result));
