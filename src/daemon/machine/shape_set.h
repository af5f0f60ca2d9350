/*
 * All shapes, and the memory that their guests and shells share.
 *
 * When no request waits, pools are refilled one shell at a time towards their targets, as far as
 * there is room. A guest that is admitted has its room for certain: where shells hold it, as many
 * are given up, and its own shell is started when they are gone.
 */
#pragma once

#include <stdint.h>

#include "base/error.h"
#include "daemon/machine/shape.h"

struct machine;
struct shape_set;

int shape_set_new(const struct machine *machine, struct shape_set **ret_set, struct error *e)
    __attribute__((warn_unused_result));
/* No more refills; waiting requests get ERR_SHUTTING_DOWN, every shell is killed. */
void shape_set_stop(struct shape_set *set);
/* After the loop has ended. Accepts NULL. */
void shape_set_free(struct shape_set *set);

/* Takes in a guest of that size, before a shell is asked for; ERR_NO_CAPACITY when too much would
 * be promised. Release it when nothing of its monitor is left. */
int shape_set_admit(struct shape_set *set, uint32_t mem_mib, struct error *e)
    __attribute__((warn_unused_result));
void shape_set_release(struct shape_set *set, uint32_t mem_mib);

/* A shell that is idle, the receiver's now (monitor_set_events at once); NULL where there is none.
 */
struct monitor *shape_set_take(struct shape_set *set, const struct shape_key *key);

/* Waits for a shell to be made: `given` is called once, later. Fails with ERR_NO_CAPACITY (too many
 * shapes are in use) or ERR_SHUTTING_DOWN. shape_request_cancel takes it back. */
int shape_set_wait(struct shape_set *set, const struct shape_key *key, shape_given_fn given,
                   void *context, struct shape_request **ret_request, struct error *e)
    __attribute__((warn_unused_result));

/* Keeps at least `pool_min` shells of that shape from now on; `warm` is called once when they are
 * there (or as many as there is room for), or with the error that prevented it. */
void shape_set_keep_warm(struct shape_set *set, const struct shape_key *key, shape_warm_fn warm,
                         void *context);

/* For /v1/info: what is promised, and may be. */
struct shape_set_memory {
    uint64_t limit_mib;
    uint64_t guests_mib;
    uint64_t shells_mib; /* given up for guests as needed */
    uint32_t overcommit_percent;
};
struct shape_set_memory shape_set_memory(const struct shape_set *set);

/* For /v1/info: calls `each` for every shape. */
void shape_set_describe(const struct shape_set *set,
                        void (*each)(const struct shape_facts *facts, void *context),
                        void *context);
