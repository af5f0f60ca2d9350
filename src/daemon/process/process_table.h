/* The processes of one sandbox. */
#pragma once

#include <stdint.h>
#include <sys/queue.h>

#include "base/error.h"

struct process;
struct session;

/* What the processes in the background of all sandboxes hold: each its output and its input. */
struct process_memory {
    uint64_t bytes; /* at most PROCESSES_BYTES_MAX */
};

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

/* For process.c: in, at the start; and what becomes of it at its end. */
void process_table_add(struct process_table *t, struct process *p);
void process_table_ended(struct process *p);

/* Takes one out, where it is still in. */
void process_table_remove(struct process *p);

/* The process that `pid` (a decimal number) names; ERR_PROCESS_NOT_FOUND. Where the guest has used
 * a number again, the newest. */
struct process *process_table_find(struct process_table *t, const char *pid, struct error *e)
    __attribute__((warn_unused_result));
