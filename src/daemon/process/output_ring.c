#include "daemon/process/output_ring.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN 4096u

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

void output_ring_init(struct output_ring *ring, size_t capacity_max)
{
    size_t rounded = CAPACITY_MIN;

    while (rounded < capacity_max)
        rounded *= 2;
    *ring = (struct output_ring){.capacity_max = rounded};
}

void output_ring_fini(struct output_ring *ring)
{
    free(ring->bytes);
    free(ring->lanes);
    ring->bytes = ring->lanes = NULL;
    ring->capacity = 0;
    ring->start = ring->end;
}

static bool lane_at(const struct output_ring *ring, uint64_t offset)
{
    size_t at = (size_t)offset & (ring->capacity - 1);

    return (ring->lanes[at / 8] >> at % 8 & 1) != 0;
}

static void put_lane(struct output_ring *ring, uint64_t offset, bool lane)
{
    size_t at = (size_t)offset & (ring->capacity - 1);
    uint8_t bit = (uint8_t)(1u << at % 8);

    ring->lanes[at / 8] = (uint8_t)(lane ? ring->lanes[at / 8] | bit : ring->lanes[at / 8] & ~bit);
}

/* Whole bytes of the bitmap at once where they are of one lane: output comes in long runs. */
static void put_lanes(struct output_ring *ring, uint64_t offset, size_t size, bool lane)
{
    while (size > 0) {
        size_t at = (size_t)offset & (ring->capacity - 1);

        if (at % 8 == 0 && size >= 8) {
            size_t whole = min_size(size, ring->capacity - at) / 8;
            memset(ring->lanes + at / 8, lane ? 0xff : 0, whole);
            offset += whole * 8;
            size -= whole * 8;
        } else {
            put_lane(ring, offset++, lane);
            size--;
        }
    }
}

/* How many bytes from `from` on, at most `size`, are of its lane. */
static size_t lane_run(const struct output_ring *ring, uint64_t from, size_t size)
{
    bool lane = lane_at(ring, from);
    uint8_t same = lane ? 0xff : 0;
    size_t run = 1;

    while (run < size) {
        size_t at = (size_t)(from + run) & (ring->capacity - 1);

        if (at % 8 == 0 && size - run >= 8 && ring->lanes[at / 8] == same)
            run += 8;
        else if (lane_at(ring, from + run) == lane)
            run++;
        else
            break;
    }
    return run;
}

static void copy_in(struct output_ring *ring, uint64_t offset, const uint8_t *data, size_t size)
{
    size_t at = (size_t)offset & (ring->capacity - 1);
    size_t first = min_size(size, ring->capacity - at);

    memcpy(ring->bytes + at, data, first);
    memcpy(ring->bytes, data + first, size - first);
}

static void copy_out(const struct output_ring *ring, uint64_t offset, uint8_t *to, size_t size)
{
    size_t at = (size_t)offset & (ring->capacity - 1);
    size_t first = min_size(size, ring->capacity - at);

    memcpy(to, ring->bytes + at, first);
    memcpy(to + first, ring->bytes, size - first);
}

/* Grows until `size` bytes fit or the maximum is reached; the content keeps its offsets. */
static int grow(struct output_ring *ring, size_t size)
{
    struct output_ring larger = *ring;

    larger.capacity = ring->capacity > 0 ? ring->capacity : CAPACITY_MIN;
    while (larger.capacity < size && larger.capacity < larger.capacity_max)
        larger.capacity *= 2;
    if (larger.capacity == ring->capacity)
        return 0;
    larger.bytes = malloc(larger.capacity);
    larger.lanes = calloc(larger.capacity / 8, 1);
    if (larger.bytes == NULL || larger.lanes == NULL) {
        free(larger.bytes);
        free(larger.lanes);
        return -1;
    }
    for (uint64_t at = ring->start; at < ring->end;) {
        size_t left = (size_t)(ring->end - at);
        size_t piece = min_size(left, ring->capacity - ((size_t)at & (ring->capacity - 1)));

        copy_in(&larger, at, ring->bytes + ((size_t)at & (ring->capacity - 1)), piece);
        at += piece;
    }
    /* Eight bytes' bits at once, however the guest mixes its outputs; bits of no byte do not count.
     */
    uint64_t first = ring->start < ring->end ? ring->start - ring->start % 8 : ring->end;
    for (uint64_t at = first; at < ring->end; at += 8)
        larger.lanes[((size_t)at & (larger.capacity - 1)) / 8] =
            ring->lanes[((size_t)at & (ring->capacity - 1)) / 8];
    free(ring->bytes);
    free(ring->lanes);
    *ring = larger;
    return 0;
}

int output_ring_append(struct output_ring *ring, enum exec_output which, const uint8_t *data,
                       size_t size)
{
    size_t held = (size_t)(ring->end - ring->start);

    /* Without memory to grow, what is there goes on with less history. */
    if (size > ring->capacity - held && grow(ring, held + size) != 0 && ring->capacity == 0) {
        ring->end += size;
        ring->start = ring->end;
        return -1;
    }
    if (size > ring->capacity) {
        data += size - ring->capacity;
        ring->end += size - ring->capacity;
        ring->start = ring->end;
        size = ring->capacity;
    }
    copy_in(ring, ring->end, data, size);
    put_lanes(ring, ring->end, size, which == EXEC_STDERR);
    ring->end += size;
    if (ring->end - ring->start > ring->capacity)
        ring->start = ring->end - ring->capacity;
    return 0;
}

size_t output_ring_read(const struct output_ring *ring, uint64_t from, uint8_t *to, size_t size_max,
                        enum exec_output *ret_which)
{
    assert(from >= ring->start && from <= ring->end);
    if (from == ring->end || size_max == 0)
        return 0;
    uint64_t left = ring->end - from;
    size_t size = lane_run(ring, from, left < size_max ? (size_t)left : size_max);

    copy_out(ring, from, to, size);
    *ret_which = lane_at(ring, from) ? EXEC_STDERR : EXEC_STDOUT;
    return size;
}

void output_ring_drop(struct output_ring *ring, uint64_t offset)
{
    assert(offset <= ring->end);
    if (offset > ring->start)
        ring->start = offset;
    if (ring->start == ring->end)
        output_ring_fini(ring);
}
