/*
 * The processes of one sandbox. The table has a reference to each; a process tells it of its end by
 * the hook on_ended and knows nothing else of it.
 */
#pragma once

#include <sys/queue.h>
#include <uv.h>

#include "base/error.h"
#include "daemon/process/process.h"

struct agent_link;
struct session;

struct process_table {
    struct process_memory *memory;
    TAILQ_HEAD(process_list, process) list; /* in order of their start */
    unsigned ended_count;
    LIST_HEAD(, session) sessions;
};

/* `memory` outlives the table and all its processes. */
void process_table_init(struct process_table *t, struct process_memory *memory);
/* Lets go of all; those that still run have to be ended before. */
void process_table_fini(struct process_table *t);

/*
 * Starts a command in the sandbox and lends its process, as session_run() does: it lives until its
 * end at least, which comes from the loop, so whoever wants to know of it follows it at once or
 * takes a reference. Errors as of process_new_exec().
 */
int process_table_start(struct process_table *t, uv_loop_t *loop, struct agent_link *link,
                        const struct process_spec *spec, struct process **ret_process,
                        struct error *e) __attribute__((warn_unused_result));

/* Takes one out, where it is still in. */
void process_table_remove(struct process *p);

/* The process that `pid` (a decimal number) names; ERR_PROCESS_NOT_FOUND. Where the guest has used
 * a number again, the newest. */
struct process *process_table_find(struct process_table *t, const char *pid, struct error *e)
    __attribute__((warn_unused_result));
