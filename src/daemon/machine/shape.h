/*
 * A shape is what a snapshot is taken of: template, vCPUs, memory, disk. For each shape in use the
 * daemon holds the snapshot and a pool of shells: monitors that have loaded it and wait for one
 * message. A shape seen for the first time is booted; later ones load from disk.
 *
 *   ABSENT -> LOADING -> (BOOTING ->) READY          a failure goes back to ABSENT
 *
 * Requests wait in order. One that finds a shell takes it (a pool hit); else monitors are started
 * until there are as many under way as requests that wait. When no request waits, the pool is
 * refilled one shell at a time towards a target that follows demand.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct machine;
struct monitor;
struct shape_request;
struct shape_set;
struct template;

struct shape_key {
    const struct template *template;
    uint32_t vcpus;
    uint32_t mem_mib;
    uint32_t disk_mib;
};

/* How a guest came to be: from the pool, built on the spot, or after its snapshot had to be made.
 */
enum shape_origin { SHAPE_POOLED, SHAPE_COLD, SHAPE_BOOTED };

/* A BUILT monitor, the receiver's now (monitor_set_events at once); or NULL and why not. */
typedef void (*shape_given_fn)(struct monitor *m, enum shape_origin origin, const struct error *e,
                               void *context);

typedef void (*shape_warm_fn)(void *context, const struct error *e);

int shape_set_new(const struct machine *machine, struct shape_set **ret_set, struct error *e)
    __attribute__((warn_unused_result));
/* No more refills; every shell is killed. */
void shape_set_stop(struct shape_set *set);
void shape_set_free(struct shape_set *set);

/*
 * Asks for a monitor of that shape. `given` is called once, in this call where a shell is there,
 * else later. Returns NULL with an error (ERR_NO_CAPACITY) when not even waiting is possible.
 */
int shape_request(struct shape_set *set, const struct shape_key *key, shape_given_fn given,
                  void *context, struct shape_request **ret_request, struct error *e)
    __attribute__((warn_unused_result));

/* Takes back a request that has not been answered. */
void shape_request_cancel(struct shape_request *r);

/* Keeps at least `pool_min` shells of that shape from now on; `warm` is called once when they are
 * there, or with the error that prevented it. */
void shape_keep_warm(struct shape_set *set, const struct shape_key *key, shape_warm_fn warm,
                     void *context);

/* For /v1/info: calls `each` for every shape. */
struct shape_facts {
    const char *template_name;
    uint32_t vcpus;
    uint32_t mem_mib;
    uint32_t disk_mib;
    const char *state; /* "absent", "loading", "booting", "ready" */
    unsigned shells;
    unsigned building;
    unsigned target;
};
void shape_set_describe(const struct shape_set *set,
                        void (*each)(const struct shape_facts *facts, void *context),
                        void *context);
