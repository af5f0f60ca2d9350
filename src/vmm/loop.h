/*
 * The threads that serve devices, one for each lane of virtio/devices.h: an epoll loop over the
 * queue notifications of the lane's devices and the descriptors that these wait for. The fast
 * lane's, which never waits for the host, also watches the daemon's socket: so a daemon that goes
 * away is heard at once, whatever the disks are doing.
 *
 * The daemon's socket and the devices' descriptors join at START: until then the first thread
 * listens to the socket, and nothing may write to guest memory.
 */
#pragma once

#include <stdint.h>

#include "base/error.h"
#include "cloche/guest_abi.h"
#include "vmm/virtio/devices.h"

struct machine;

struct lane {
    struct machine *machine;
    enum devices_lane number;
    int epoll_fd;
    uint32_t events[GUEST_VIRTIO_COUNT]; /* what epoll waits for on the devices' descriptors now */
};

struct loop {
    struct lane lanes[DEVICES_LANE_COUNT];
};

/* Makes the lanes and their threads, which arrive at `m->started` and serve `m->devices` from then
 * on. */
int loop_init(struct loop *l, struct machine *m, struct error *e)
    __attribute__((warn_unused_result));

/* START has come: watch the daemon's socket and the devices' descriptors as well. */
int loop_start(struct loop *l, struct error *e) __attribute__((warn_unused_result));
