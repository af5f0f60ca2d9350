/*
 * How much of the host's memory has been promised to guests, against what may be.
 *
 * What is counted is what a guest may come to use, not what it uses: guests that start small and
 * grow would else be let in until the host runs out, and the kernel picks whom to kill. A guest
 * counts from its admission until nothing is left of its monitor. Shells that wait in a pool count
 * as well, but they are spare: what they hold is given up for a guest that needs it, so they are
 * never a reason to refuse one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct ledger_sum {
    unsigned monitors;
    uint64_t mib; /* their guests' memory, and what each monitor needs besides */
};

struct ledger {
    struct ledger_sum limit;
    struct ledger_sum guests; /* admitted */
    uint32_t host_mem_mib;    /* for messages, as the next two */
    uint32_t reserve_mem_mib;
    uint32_t overcommit_percent;
};

/* Of `host_mem_mib` all but the reserve may be promised, `overcommit_percent` / 100 times over. */
void ledger_init(struct ledger *l, uint32_t host_mem_mib, uint32_t reserve_mem_mib,
                 uint32_t overcommit_percent);

/* Takes a guest of `mem_mib` in, or fails with ERR_NO_CAPACITY and the numbers. */
int ledger_admit(struct ledger *l, uint32_t mem_mib, struct error *e)
    __attribute__((warn_unused_result));
void ledger_release(struct ledger *l, uint32_t mem_mib);

void ledger_sum_add(struct ledger_sum *sum, unsigned monitors, uint32_t mem_mib);

/* Do all the guests and these spare monitors fit? */
bool ledger_fits(const struct ledger *l, const struct ledger_sum *spare);
/* And one more of `mem_mib` with them? */
bool ledger_fits_another(const struct ledger *l, const struct ledger_sum *spare, uint32_t mem_mib);
