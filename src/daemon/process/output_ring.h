/*
 * The newest bytes of a command's output: stdout and stderr in the order in which they came, each
 * byte known by its offset in all that was ever written. When the ring is full the oldest bytes go;
 * who asks for them learns from output_ring.start that he missed them.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/process/exec.h"

struct output_ring {
    uint8_t *bytes;
    uint8_t *lanes;  /* a bit for each byte: set where it is of stderr */
    size_t capacity; /* a power of two, or 0 */
    size_t capacity_max;
    uint64_t start; /* offset of the oldest byte that is kept */
    uint64_t end;   /* offset of the next byte to come */
};

/* What a ring of so much capacity takes. */
static inline uint64_t output_ring_bytes(size_t capacity)
{
    return capacity + capacity / 8;
}

/* No memory is taken before the first byte. `capacity_max` is rounded up to a power of two. */
void output_ring_init(struct output_ring *ring, size_t capacity_max);
void output_ring_fini(struct output_ring *ring);

/* Appends, and drops the oldest bytes where they have no room. 0, or -1 where there is no memory
 * for any (the bytes are counted, and missing). */
int output_ring_append(struct output_ring *ring, enum exec_output which, const uint8_t *data,
                       size_t size) __attribute__((warn_unused_result));

/*
 * Copies bytes that stand together from offset `from` on, all of one output, at most `size_max`.
 * Returns how many; 0 where `from` is the end. `from` lies within start and end.
 */
size_t output_ring_read(const struct output_ring *ring, uint64_t from, uint8_t *to, size_t size_max,
                        enum exec_output *ret_which);

/* Forgets what is older than `offset`; an empty ring gives its memory back. */
void output_ring_drop(struct output_ring *ring, uint64_t offset);
