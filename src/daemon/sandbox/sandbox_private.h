/* The sandbox itself, for the files that make it up: its life (sandbox.c), the table
 * (sandbox_table.c) and what the API shows of it (sandbox_describe.c). */
#pragma once

#include <sys/queue.h>
#include <uv.h>

#include "daemon/process/process_table.h"
#include "daemon/sandbox/sandbox.h"

struct monitor;
struct shape_request;

struct gone_call {
    SLIST_ENTRY(gone_call) link;
    sandbox_gone_fn gone;
    void *context;
};

struct sandbox {
    TAILQ_ENTRY(sandbox) link;
    struct daemon *daemon;
    char id[SANDBOX_ID_BYTES_MAX];
    enum sandbox_state state;
    enum sandbox_pool pool;
    enum sandbox_end why;
    bool why_open;     /* ENDING, and only the monitor's end will tell why */
    bool took_another; /* its first shell died before it ran */
    const struct template *template;
    uint32_t vcpus;
    uint32_t mem_mib;
    uint32_t disk_mib;
    uint32_t cpu_quota_percent;
    uint32_t timeout_s;
    struct cJSON *env;
    struct cJSON *labels;
    struct sandbox_times times;
    uint64_t created_real_ns;
    uint64_t expires_real_ns;
    struct shape_request *request; /* while it waits for a monitor */
    struct monitor *monitor;
    struct agent_link *agent;
    struct process_table processes;
    uv_timer_t timer; /* STARTING: until ready; RUNNING: the wall-clock limit */
    sandbox_created_fn created;
    void *context;
    struct error error; /* why it ended, in the words of the one who saw it */
    SLIST_HEAD(, gone_call) gone;
};

/* The table's part: room for one more (ERR_NO_CAPACITY, ERR_SHUTTING_DOWN), in, out. */
int sandbox_table_admit(struct daemon *d, struct error *e) __attribute__((warn_unused_result));
void sandbox_table_add(struct sandbox *s);
void sandbox_table_remove(struct sandbox *s);

/* Ends it because the daemon stops; a creator who still waits is told so. */
void sandbox_stop(struct sandbox *s);

const char *sandbox_end_name(enum sandbox_end why);
