/*
 * The sandbox table: what the API calls a sandbox, from creation to the moment when nothing of it
 * is left on the host.
 *
 *   STARTING -> RUNNING -> ENDING -> (freed; its id is remembered for a while with the reason)
 *
 * A sandbox is found by id and used within one loop callback; nobody keeps the pointer over a
 * return to the loop, except the creator until its callback ran. Whoever has streams open on its
 * agent link learns of the end from those streams.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "cloche/limits.h"

struct agent_link;
struct cJSON;
struct daemon;
struct json_writer;
struct process_table;
struct sandbox;
struct template;

enum sandbox_state { SANDBOX_STARTING, SANDBOX_RUNNING, SANDBOX_ENDING };

/* How the guest came to be: from the pool, built on the spot, or after its snapshot had to be made.
 */
enum sandbox_pool { SANDBOX_POOL_HIT, SANDBOX_POOL_COLD, SANDBOX_POOL_BOOT };

/* Why a sandbox ended; names in the API: "deleted", "timeout", ... */
enum sandbox_end {
    SANDBOX_END_NONE,
    SANDBOX_END_DELETED,
    SANDBOX_END_TIMEOUT,        /* its wall-clock limit */
    SANDBOX_END_GUEST_SHUTDOWN, /* the guest powered off, rebooted or crashed */
    SANDBOX_END_GUEST_FAILED,   /* the guest broke a protocol or failed to reseed */
    SANDBOX_END_MONITOR,        /* the monitor died: killed, out of memory, a KVM error */
    SANDBOX_END_STOPPED,        /* the daemon stops */
};

struct sandbox_params {
    const char *template; /* name; NULL for the default */
    uint32_t vcpus;       /* 0: default, for this and the next three */
    uint32_t mem_mib;
    uint32_t disk_mib;
    uint32_t timeout_s;
    uint32_t cpu_quota_percent; /* 0: 100 per vCPU */
    const struct cJSON *env;    /* object of strings, or NULL; copied */
    const struct cJSON *labels; /* object of strings, or NULL; copied */
};

struct sandbox_times {   /* CLOCK_MONOTONIC; 0 where it has not happened */
    uint64_t arrived_ns; /* the request */
    uint64_t loaded_ns;  /* a monitor with all state loaded was there for it */
    uint64_t first_ns;   /* first user instruction */
    uint64_t ready_ns;   /* reseeded, clock and identity set */
};

/*
 * Called once: `s` runs, or `s` is NULL and `e` says why it could not be made. Not called when the
 * sandbox is destroyed by its creator before.
 */
typedef void (*sandbox_created_fn)(struct sandbox *s, const struct error *e, void *context);
/* Everything the sandbox had on the host is gone. */
typedef void (*sandbox_gone_fn)(void *context);

/*
 * Starts making a sandbox. Checks `params` against the host's limits and the templates at once:
 * returns NULL with an error then. Otherwise `created` is called later, never from within. The
 * pointer may be given to sandbox_destroy until then (a client that vanished).
 */
struct sandbox *sandbox_create(struct daemon *d, const struct sandbox_params *params,
                               uint64_t arrived_ns, sandbox_created_fn created, void *context,
                               struct error *e) __attribute__((warn_unused_result));

/*
 * Ends a sandbox in any state; `gone` (may be NULL) is called when all its resources are released,
 * in a later loop iteration. Streams on its link get their end before this returns. Of a sandbox
 * that is ending already, only `gone` is added to those to be called.
 */
void sandbox_destroy(struct sandbox *s, enum sandbox_end why, sandbox_gone_fn gone, void *context);

/*
 * The running sandbox with that id; else NULL with ERR_SANDBOX_NOT_FOUND, or ERR_SANDBOX_GONE which
 * says why and when it ended.
 */
struct sandbox *sandbox_find(struct daemon *d, const char *id, struct error *e)
    __attribute__((warn_unused_result));

/* New end of life: `timeout_s` from now, at most SANDBOX_TIMEOUT_S_MAX. */
void sandbox_set_timeout(struct sandbox *s, uint32_t timeout_s);
/* Replaces the labels (object of strings, copied); -1 when there are too many. */
int sandbox_set_labels(struct sandbox *s, const struct cJSON *labels, struct error *e)
    __attribute__((warn_unused_result));

/* Writes the fields of the API's sandbox object into the object that is open in `w`. */
void sandbox_describe(const struct sandbox *s, struct json_writer *w);
/* Writes the member "times": {"restore_ms","first_instruction_ms","ready_ms"}. */
void sandbox_describe_times(const struct sandbox *s, struct json_writer *w);

const char *sandbox_id(const struct sandbox *s);
const char *sandbox_pool_name(const struct sandbox *s);
struct agent_link *sandbox_agent(struct sandbox *s); /* of a RUNNING sandbox */
struct process_table *sandbox_processes(struct sandbox *s);
const struct template *sandbox_template(const struct sandbox *s);
const struct cJSON *sandbox_env(const struct sandbox *s); /* object of strings, or NULL */

/* The table as a whole: ends all (shutdown); count of live ones; list in order of creation. */
void sandbox_end_all(struct daemon *d);
unsigned sandbox_count(const struct daemon *d);
struct sandbox *sandbox_next(const struct daemon *d, const struct sandbox *after);
bool sandbox_has_label(const struct sandbox *s, const char *name, const char *value);
enum sandbox_state sandbox_state(const struct sandbox *s);
