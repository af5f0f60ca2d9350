/*
 * Split virtqueues as the device sees them (virtio 1.2, 2.7). Indirect descriptors (2.7.5.3) and
 * the event index (2.7.7.1, 2.7.8) are not offered by any of our devices.
 *
 * The guest owns the descriptor table and the available ring and may rewrite both while we read
 * them. So every value is loaded once into a local and the local is judged; a chain leaves here as
 * host addresses and lengths which the guest cannot change any more. Whatever is wrong with a ring
 * comes back as -1, on which a device asks for a reset (virtio_break): a driver's fault is never
 * ours to crash on.
 *
 * Our devices complete requests in the order in which they were made available, and take the next
 * only when the last is complete. One counter therefore serves both rings: `done` is how many
 * chains were taken and as many completed, modulo 2^16.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/wire.h"
#include "vmm/common/guest_mem.h"

#define VIRTQ_SIZE_MAX 256u /* no queue of ours is larger, so no chain is longer */

struct virtq {
    uint16_t size_max; /* QueueNumMax, ours */
    uint16_t size;     /* QueueNum; 0 while none or a wrong one was written */
    bool ready;
    uint64_t desc_gpa;
    uint64_t avail_gpa;
    uint64_t used_gpa;
    uint16_t done;
};

/* A descriptor chain, copied and judged: all of it is guest RAM. */
struct virtq_chain {
    uint16_t head;
    unsigned out_count; /* buffers that the device reads ... */
    unsigned in_count;  /* ... and that it writes */
    uint64_t out_bytes;
    uint64_t in_bytes;
    struct iovec *out; /* both point into iov; reading and writing moves them on */
    struct iovec *in;
    struct iovec iov[VIRTQ_SIZE_MAX];
};

/* Forgets everything the driver said; size_max stays. */
void virtq_reset(struct virtq *q);

/* Whether size and addresses can be used: size a power of two up to size_max, each ring aligned as
 * 2.7 demands and wholly in RAM. */
bool virtq_is_usable(const struct virtq *q, const struct guest_mem *m);

/* How many chains wait, at most the queue's size; 0 for a queue that is not ready; -1: broken. */
int virtq_pending(const struct virtq *q, const struct guest_mem *m);

/* The chain that comes next, which stays where it is until virtq_complete. Returns 1; 0 when none
 * waits; -1: the ring or the chain is broken. */
int virtq_next(const struct virtq *q, const struct guest_mem *m, struct virtq_chain *ret_chain);

/* Gives the chain `head`, from the last virtq_next, back with `written` bytes in its in buffers. */
int virtq_complete(struct virtq *q, const struct guest_mem *m, uint16_t head, uint32_t written)
    __attribute__((warn_unused_result));

/* Whether the driver wants to hear of what was completed. */
bool virtq_wants_interrupt(const struct virtq *q, const struct guest_mem *m);

/* Move bytes from the front of the out buffers, or to the front of the in buffers, which then start
 * behind them. Return how many there were. */
size_t virtq_chain_read(struct virtq_chain *c, void *ret_data, size_t size);
size_t virtq_chain_write(struct virtq_chain *c, const void *data, size_t size);

/* Drops `bytes`, at most all, from the front of `*iov`. */
void virtq_iov_skip(struct iovec **iov, unsigned *count, uint64_t bytes);

/* Loading checks all that a driver could not have set up; returns -1 for that. */
void virtq_save(const struct virtq *q, struct wire_writer *w);
int virtq_load(struct virtq *q, const struct guest_mem *m, struct wire_reader *r)
    __attribute__((warn_unused_result));
