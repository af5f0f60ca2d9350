/*
 * The loop thread: an epoll loop over the queue notifications of the virtio slots, the agent
 * channel, the daemon's socket and the call to park. It alone processes queues.
 *
 * The daemon's socket and the channel join at START: until then the first thread listens to the
 * socket, and nothing may write to guest memory.
 */
#pragma once

#include <stdint.h>

#include "base/error.h"

struct vmm;

struct loop {
    int epoll_fd;
    int park_fd;             /* eventfd: a guest has rung DOORBELL_PARK */
    uint32_t channel_events; /* what epoll waits for on the channel now */
};

/* Makes the loop and its thread, which serves `vmm` from now on. */
int loop_init(struct vmm *vmm, struct error *e) __attribute__((warn_unused_result));

/* START has come: watch the daemon's socket and the channel as well. */
int loop_start(struct vmm *vmm, struct error *e) __attribute__((warn_unused_result));

/* A vCPU has asked all to stop: park. */
void loop_wake_to_park(struct loop *l);
