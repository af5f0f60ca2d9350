/*
 * What exchanges may hold in memory, all of them together. Whoever makes the server owns the
 * budget; exchanges charge it and give back, the server itself knows nothing of it.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "cloche/limits.h"

struct budget {
    uint64_t bytes; /* held now */
    uint64_t bytes_max;
};

struct exchange_budget {
    struct budget bodies;  /* requests' bodies that are read whole */
    struct budget replies; /* what handlers gather (exchange_hold) */
};

#define EXCHANGE_BUDGET_INIT                                                                       \
    {                                                                                              \
        .bodies = {.bytes_max = HTTP_BODIES_BYTES_MAX},                                            \
        .replies = {.bytes_max = HTTP_REPLIES_BYTES_MAX},                                          \
    }

/* Charges `bytes`; false, and nothing is charged, where they would be too many. */
static inline bool budget_take(struct budget *b, uint64_t bytes)
{
    if (bytes > b->bytes_max - b->bytes)
        return false;
    b->bytes += bytes;
    return true;
}

static inline void budget_give(struct budget *b, uint64_t bytes)
{
    assert(b->bytes >= bytes);
    b->bytes -= bytes;
}
