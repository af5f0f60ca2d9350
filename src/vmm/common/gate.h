/* Where threads wait for others: a number of arrivals that only grows. A zeroed gate is a new one.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct gate {
    _Atomic uint32_t arrived; /* a futex */
};

/* What a thread did before it arrived is seen by whoever has waited for it. */
void gate_arrive(struct gate *g);

/* Returns when at least `count` have arrived. */
void gate_wait(struct gate *g, uint32_t count);
