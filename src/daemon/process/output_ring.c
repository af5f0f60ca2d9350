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

void output_ring_init(struct output_ring *r, size_t capacity_max)
{
    size_t rounded = CAPACITY_MIN;

    while (rounded < capacity_max)
        rounded *= 2;
    *r = (struct output_ring){.capacity_max = rounded};
}

void output_ring_fini(struct output_ring *r)
{
    free(r->bytes);
    free(r->lanes);
    r->bytes = r->lanes = NULL;
    r->capacity = 0;
    r->start = r->end;
}

static bool lane_at(const struct output_ring *r, uint64_t offset)
{
    size_t at = (size_t)offset & (r->capacity - 1);

    return (r->lanes[at / 8] >> at % 8 & 1) != 0;
}

static void put_lane(struct output_ring *r, uint64_t offset, bool lane)
{
    size_t at = (size_t)offset & (r->capacity - 1);
    uint8_t bit = (uint8_t)(1u << at % 8);

    r->lanes[at / 8] = (uint8_t)(lane ? r->lanes[at / 8] | bit : r->lanes[at / 8] & ~bit);
}

/* Whole bytes of the bitmap at once where they are of one lane: output comes in long runs. */
static void put_lanes(struct output_ring *r, uint64_t offset, size_t size, bool lane)
{
    while (size > 0) {
        size_t at = (size_t)offset & (r->capacity - 1);

        if (at % 8 == 0 && size >= 8) {
            size_t whole = min_size(size, r->capacity - at) / 8;
            memset(r->lanes + at / 8, lane ? 0xff : 0, whole);
            offset += whole * 8;
            size -= whole * 8;
        } else {
            put_lane(r, offset++, lane);
            size--;
        }
    }
}

/* How many bytes from `from` on, at most `size`, are of its lane. */
static size_t lane_run(const struct output_ring *r, uint64_t from, size_t size)
{
    bool lane = lane_at(r, from);
    uint8_t same = lane ? 0xff : 0;
    size_t run = 1;

    while (run < size) {
        size_t at = (size_t)(from + run) & (r->capacity - 1);

        if (at % 8 == 0 && size - run >= 8 && r->lanes[at / 8] == same)
            run += 8;
        else if (lane_at(r, from + run) == lane)
            run++;
        else
            break;
    }
    return run;
}

static void copy_in(struct output_ring *r, uint64_t offset, const uint8_t *data, size_t size)
{
    size_t at = (size_t)offset & (r->capacity - 1);
    size_t first = min_size(size, r->capacity - at);

    memcpy(r->bytes + at, data, first);
    memcpy(r->bytes, data + first, size - first);
}

static void copy_out(const struct output_ring *r, uint64_t offset, uint8_t *to, size_t size)
{
    size_t at = (size_t)offset & (r->capacity - 1);
    size_t first = min_size(size, r->capacity - at);

    memcpy(to, r->bytes + at, first);
    memcpy(to + first, r->bytes, size - first);
}

/* Grows until `size` bytes fit or the maximum is reached; the content keeps its offsets. */
static int grow(struct output_ring *r, size_t size)
{
    struct output_ring larger = *r;

    larger.capacity = r->capacity > 0 ? r->capacity : CAPACITY_MIN;
    while (larger.capacity < size && larger.capacity < larger.capacity_max)
        larger.capacity *= 2;
    if (larger.capacity == r->capacity)
        return 0;
    larger.bytes = malloc(larger.capacity);
    larger.lanes = calloc(larger.capacity / 8, 1);
    if (larger.bytes == NULL || larger.lanes == NULL) {
        free(larger.bytes);
        free(larger.lanes);
        return -1;
    }
    for (uint64_t at = r->start; at < r->end;) {
        size_t left = (size_t)(r->end - at);
        size_t piece = min_size(left, r->capacity - ((size_t)at & (r->capacity - 1)));

        copy_in(&larger, at, r->bytes + ((size_t)at & (r->capacity - 1)), piece);
        at += piece;
    }
    /* Eight bytes' bits at once, however the guest mixes its outputs; bits of no byte do not count.
     */
    uint64_t first = r->start < r->end ? r->start - r->start % 8 : r->end;
    for (uint64_t at = first; at < r->end; at += 8)
        larger.lanes[((size_t)at & (larger.capacity - 1)) / 8] =
            r->lanes[((size_t)at & (r->capacity - 1)) / 8];
    free(r->bytes);
    free(r->lanes);
    *r = larger;
    return 0;
}

int output_ring_append(struct output_ring *r, enum exec_output which, const uint8_t *data,
                       size_t size)
{
    size_t held = (size_t)(r->end - r->start);

    /* Without memory to grow, what is there goes on with less history. */
    if (size > r->capacity - held && grow(r, held + size) != 0 && r->capacity == 0) {
        r->end += size;
        r->start = r->end;
        return -1;
    }
    if (size > r->capacity) {
        data += size - r->capacity;
        r->end += size - r->capacity;
        r->start = r->end;
        size = r->capacity;
    }
    copy_in(r, r->end, data, size);
    put_lanes(r, r->end, size, which == EXEC_STDERR);
    r->end += size;
    if (r->end - r->start > r->capacity)
        r->start = r->end - r->capacity;
    return 0;
}

size_t output_ring_read(const struct output_ring *r, uint64_t from, uint8_t *to, size_t size_max,
                        enum exec_output *ret_which)
{
    assert(from >= r->start && from <= r->end);
    if (from == r->end || size_max == 0)
        return 0;
    uint64_t left = r->end - from;
    size_t size = lane_run(r, from, left < size_max ? (size_t)left : size_max);

    copy_out(r, from, to, size);
    *ret_which = lane_at(r, from) ? EXEC_STDERR : EXEC_STDOUT;
    return size;
}

void output_ring_drop(struct output_ring *r, uint64_t offset)
{
    assert(offset <= r->end);
    if (offset > r->start)
        r->start = offset;
    if (r->start == r->end)
        output_ring_fini(r);
}
