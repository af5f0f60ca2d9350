/*
 * A shape is what a snapshot is taken of: template, vCPUs, memory, disk. For each shape in use the
 * daemon holds the snapshot and a pool of shells. A shape seen for the first time is booted; later
 * ones load from disk.
 *
 *   ABSENT -> LOADING -> (BOOTING ->) READY          a failure goes back to ABSENT
 *
 * Requests wait in order, each for a shell of its own: as many are started as requests wait. A
 * shape does so only when its owner says so (shape_serve), since room is shared with others.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct machine;
struct monitor;
struct shape;
struct shape_request;
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

/* Something has changed that may let shapes go on: shape_serve for those that have work. */
typedef void (*shape_changed_fn)(void *context);

/* `changed` is never called from within a call of the shape. NULL when memory is short. */
struct shape *shape_new(const struct machine *machine, const struct shape_key *key,
                        shape_changed_fn changed, void *context)
    __attribute__((warn_unused_result));
/* It must not be in use. */
void shape_free(struct shape *s);

const struct shape_key *shape_key(const struct shape *s);
bool shape_is(const struct shape *s, const struct shape_key *key);

/* Moves it forward: loads or boots what is asked for, gives shells to requests, and starts one for
 * each that has none on its way, while `has_room` says that there is room for it. */
void shape_serve(struct shape *s, bool (*has_room)(void *context), void *context);

/* An idle shell, the receiver's now (monitor_set_events at once); NULL when requests wait for such,
 * or there is none. */
struct monitor *shape_take(struct shape *s);

/* Waits for a shell; `given` is called once, never from within. NULL when memory is short. */
struct shape_request *shape_wait(struct shape *s, shape_given_fn given, void *context)
    __attribute__((warn_unused_result));
/* Takes back a request that has not been answered. */
void shape_request_cancel(struct shape_request *r);

/* Keeps at least `minimum` shells from now on; `warm` is called once when they are there, or with
 * the error that prevented it. */
void shape_keep_warm(struct shape *s, unsigned minimum, shape_warm_fn warm, void *context);

/* There is no room for more: what there is counts as warm. */
void shape_warm_enough(struct shape *s);

/* Starts a shell for nobody, towards the target. */
void shape_refill(struct shape *s);
/* Gives up one of the spare shells, of which there must be one. */
void shape_give_up(struct shape *s);
/* For good: answers all requests with `e` and gives up everything. */
void shape_stop(struct shape *s, const struct error *e);
/* Gives back the snapshot's memory, which must not be in use; loaded again when it is asked for. */
void shape_unload(struct shape *s);

/* For those who decide about several shapes. */
struct shape_load {
    unsigned spare;    /* monitors that can be given up, or were started for nobody */
    unsigned dying;    /* given up already, and still there */
    unsigned idle;     /* of `spare`: the idle ones */
    unsigned missing;  /* shells below the target */
    unsigned surplus;  /* and above */
    unsigned failures; /* shells that ended unasked since the last good one */
    bool in_use;       /* more is left of it than its snapshot */
    bool kept;         /* requests wait, or it is to be kept warm, or it loads or boots */
    bool coming;       /* shells are on their way */
    bool waiting;      /* requests for which there is none */
    uint64_t asked_ns; /* when it was asked for last (CLOCK_MONOTONIC) */
};
struct shape_load shape_load(const struct shape *s);

/* For /v1/info. */
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
struct shape_facts shape_facts(const struct shape *s);
