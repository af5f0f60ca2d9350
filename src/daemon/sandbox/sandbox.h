/*
 * What the API calls a sandbox, from creation to the moment when nothing of it is left on the host.
 *
 *   STARTING -> RUNNING -> ENDING -> (freed; its table remembers the id for a while with the
 * reason)
 *
 * A sandbox is found by id (sandbox_table.h) and used within one loop callback; nobody keeps the
 * pointer over a return to the loop, except the creator until its callback ran. Whoever has streams
 * open on its agent link learns of the end from those streams.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "cloche/limits.h"
#include "daemon/machine/shape.h"
#include "daemon/sandbox/sandbox_plan.h"

struct agent_link;
struct process_memory;
struct process_table;
struct sandbox;
struct shape_set;

enum sandbox_state { SANDBOX_STARTING, SANDBOX_RUNNING, SANDBOX_ENDING };

/* Why a sandbox ended; names in the API: "deleted", "timeout", ... */
enum sandbox_end {
    SANDBOX_END_DELETED,
    SANDBOX_END_TIMEOUT,        /* its wall-clock limit */
    SANDBOX_END_GUEST_SHUTDOWN, /* the guest powered off, rebooted or crashed */
    SANDBOX_END_GUEST_FAILED,   /* the guest broke a protocol or failed to reseed */
    SANDBOX_END_MONITOR,        /* the monitor died: killed, out of memory, a KVM error */
    SANDBOX_END_STOPPED,        /* the daemon stops */
};

struct sandbox_times {   /* CLOCK_MONOTONIC; 0 where it has not happened */
    uint64_t arrived_ns; /* the request */
    uint64_t loaded_ns;  /* a monitor with all state loaded was there for it */
    uint64_t first_ns;   /* first user instruction */
    uint64_t ready_ns;   /* reseeded, clock and identity set */
};

/* All that is to be told of a sandbox. */
struct sandbox_facts {
    char id[SANDBOX_ID_BYTES_MAX];
    struct sandbox_plan plan;
    enum sandbox_state state;
    enum shape_origin origin;
    enum sandbox_end why; /* ENDING */
    bool why_open;        /* ENDING, and only the monitor's end will tell why */
    struct error error;   /* why it ended, in the words of the one who saw it */
    struct sandbox_times times;
    uint64_t created_real_ns;
    uint64_t expires_real_ns; /* 0: not running yet */
};

/*
 * Called once: `s` runs, or `s` is NULL and `e` says why it could not be made. Not called when the
 * sandbox is destroyed by its creator before.
 */
typedef void (*sandbox_created_fn)(struct sandbox *s, const struct error *e, void *context);
/* Everything the sandbox had on the host is gone. */
typedef void (*sandbox_gone_fn)(void *context);

/* What the sandboxes of a table share; outlives them. */
struct sandbox_home {
    uv_loop_t *loop;
    struct shape_set *shapes;
    struct process_memory *process_memory;
    /* Nothing of `s` is left on the host; it is freed soon, so forget it. */
    void (*ended)(struct sandbox *s, void *context);
    void *context;
};

/*
 * Starts making a sandbox in a room that was admitted (shape_set_admit). `plan` is its own from
 * here on, whatever comes of it. `created` is called later, never from within. The pointer may be
 * given to sandbox_destroy until then (a client that vanished).
 */
struct sandbox *sandbox_new(const struct sandbox_home *home, const struct sandbox_plan *plan,
                            uint64_t arrived_ns, sandbox_created_fn created, void *context,
                            struct error *e) __attribute__((warn_unused_result));

/*
 * Ends a sandbox in any state; `gone` (may be NULL) is called when all its resources are released,
 * in a later loop iteration. Streams on its link get their end before this returns. Of a sandbox
 * that is ending already, only `gone` is added to those to be called.
 */
void sandbox_destroy(struct sandbox *s, enum sandbox_end why, sandbox_gone_fn gone, void *context);

/* Ends it because the daemon stops; a creator who still waits is told so. */
void sandbox_stop(struct sandbox *s);

/* New end of life: `timeout_s` from now, at most SANDBOX_TIMEOUT_S_MAX. */
void sandbox_set_timeout(struct sandbox *s, uint32_t timeout_s);
/* Replaces the labels (object of strings, copied); -1 when there are too many. */
int sandbox_set_labels(struct sandbox *s, const struct cJSON *labels, struct error *e)
    __attribute__((warn_unused_result));

const struct sandbox_facts *sandbox_facts(const struct sandbox *s);
const char *sandbox_id(const struct sandbox *s);
const struct template *sandbox_template(const struct sandbox *s);
const struct cJSON *sandbox_env(const struct sandbox *s); /* object of strings, or NULL */
struct agent_link *sandbox_agent(struct sandbox *s);      /* of a RUNNING sandbox */
struct process_table *sandbox_processes(struct sandbox *s);
