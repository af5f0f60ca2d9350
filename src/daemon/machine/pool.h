/*
 * The shells of one shape: monitors that have loaded its snapshot and wait for one message.
 *
 *   COPYING (a worker makes the scratch disk) -> BUILDING (a monitor) -> IDLE -> taken
 *                                   any of them -> DYING (until nothing of it is left)
 *
 * How many there should be follows demand, the number of those taken lately. Whether there is room
 * for them is for others to say: a pool starts and gives up shells when it is told to.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/error.h"

struct machine;
struct monitor;
struct shell;
struct snapshot;
struct template;

enum shell_state { SHELL_COPYING, SHELL_BUILDING, SHELL_IDLE, SHELL_DYING, SHELL_STATES };

/* Never called from within a call of the pool. */
struct pool_events {
    /* A shell has become idle, or is gone. */
    void (*changed)(void *context);
    /* One that was on its way will not come, and is gone. */
    void (*failed)(const struct error *e, void *context);
};

struct pool {
    const struct machine *machine;
    const struct template *template;
    const struct snapshot *snapshot; /* open as long as there is a shell */
    uint32_t vcpus;
    uint32_t mem_mib;
    const struct pool_events *events;
    void *context;
    TAILQ_HEAD(, shell) shells; /* idle ones in the order of their completion */
    unsigned counts[SHELL_STATES];
    unsigned minimum; /* shells kept whatever the demand */
    double demand;    /* takes, decaying */
    uint64_t demand_ns;
    unsigned failures; /* shells that ended unasked since the last good one */
};

/* The caller fills in what says what shells are made of, and the events. */
void pool_init(struct pool *p);

/* Starts one. It fails later, if at all; when there is not even memory to note it down, it is as if
 * this had not been called, but for `failures`. */
void pool_start(struct pool *p);

/* Takes an idle one, the receiver's now (monitor_set_events at once); NULL where there is none.
 * Counts as demand. */
struct monitor *pool_take(struct pool *p);

unsigned pool_idle(const struct pool *p);
unsigned pool_coming(const struct pool *p); /* on their way to be idle */
unsigned pool_dying(const struct pool *p);
unsigned pool_target(const struct pool *p);

/* Gives up one that nobody has been promised: an idle one, else one on its way. There must be one.
 */
void pool_give_up(struct pool *p);
/* Gives up all. */
void pool_stop(struct pool *p);
