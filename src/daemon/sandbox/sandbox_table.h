/* The table of a daemon's sandboxes: makes them, finds them by id, and remembers for a while why
 * those that are gone have ended. */
#pragma once

#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "daemon/sandbox/sandbox.h"

struct sandbox_table;

/* All of it outlives the table. */
struct sandbox_table_options {
    uv_loop_t *loop;
    struct shape_set *shapes;
    const struct template_set *templates;
    const struct sandbox_limits *limits;
    struct process_memory *process_memory;
};

int sandbox_table_new(const struct sandbox_table_options *options, struct sandbox_table **ret_table,
                      struct error *e) __attribute__((warn_unused_result));
/* The table must be empty. Accepts NULL. */
void sandbox_table_free(struct sandbox_table *t);

/*
 * Starts making a sandbox. Checks `params` against the host's limits and the templates at once:
 * returns NULL with an error then, also when there is no room (ERR_NO_CAPACITY). Otherwise
 * `created` is called later, never from within. The pointer may be given to sandbox_destroy until
 * then (a client that vanished).
 */
struct sandbox *sandbox_create(struct sandbox_table *t, const struct sandbox_params *params,
                               uint64_t arrived_ns, sandbox_created_fn created, void *context,
                               struct error *e) __attribute__((warn_unused_result));

/*
 * The running sandbox with that id; else NULL with ERR_SANDBOX_NOT_FOUND, or ERR_SANDBOX_GONE which
 * says why it ended, or ERR_CONFLICT while it starts.
 */
struct sandbox *sandbox_find(struct sandbox_table *t, const char *id, struct error *e)
    __attribute__((warn_unused_result));

/* Those that live or are ending, in order of creation: how many, and the one at an index, NULL
 * behind the last. */
unsigned sandbox_count(const struct sandbox_table *t);
struct sandbox *sandbox_at(const struct sandbox_table *t, unsigned index);

/* The daemon stops: ends all, makes no more. */
void sandbox_table_stop(struct sandbox_table *t);
