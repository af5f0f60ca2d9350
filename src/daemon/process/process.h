/*
 * A process: a command of a sandbox, from its start until nobody wants to know of it any more. It
 * is in its sandbox's table while it runs, and one in the background also after its end, until it
 * is removed or there are more than PROCESS_ENDED_MAX of them.
 *
 * Its output goes into a ring, from which any number of followers read, each at its own pace. The
 * guest waits for the slowest: nothing is lost to somebody who follows. In the foreground a byte is
 * forgotten as soon as all followers have it. In the background nobody needs to follow, and the
 * ring keeps the newest bytes for those who come later.
 *
 * Counted: the table has a reference (of a session's command the session, while it runs), and so
 * has each follower and writer, so that output can be read to its end when the sandbox is long
 * gone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "base/error.h"
#include "cloche/limits.h"
#include "daemon/process/exec.h"
#include "daemon/process/output_ring.h"
#include "json/json_write.h"

struct agent_link;
struct process_table;

/* What the processes in the background of all sandboxes hold: each its output and its input. */
struct process_memory {
    uint64_t bytes; /* at most PROCESSES_BYTES_MAX */
};

enum process_state { PROCESS_STARTING, PROCESS_RUNNING, PROCESS_ENDED };

/* One reader; belongs to its owner, who must detach it before it goes away. */
struct process_follower {
    LIST_ENTRY(process_follower) entry;
    struct process *process; /* NULL: detached */
    uint64_t offset;         /* of the next byte that it wants */
    void *owner;
    /* There is output, or the state has changed. May detach. */
    void (*on_news)(struct process_follower *follower);
};

/* One source of stdin, as process_follower is of output; there is at most one at a time, but for a
 * terminal, at which any number may type. */
struct process_writer {
    LIST_ENTRY(process_writer) entry;
    struct process *process; /* NULL: detached */
    void *owner;
    void (*on_writable)(struct process_writer *writer);
    /* The process has ended, or another has closed its stdin; detached already. */
    void (*on_closed)(struct process_writer *writer);
};

LIST_HEAD(process_followers, process_follower);
LIST_HEAD(process_writers, process_writer);

/* What makes a process go: an exec, or a command of a session. No call of it calls back at once. */
struct process_source {
    void (*consume)(void *context, enum exec_output which, size_t size);
    void (*signal)(void *context, enum channel_signal_scope scope, uint32_t signal_number);
    void (*kill)(void *context);
};

struct process {
    /* The table's; `table` is NULL where it is in none any more. */
    struct process_table *table;
    TAILQ_ENTRY(process) entry;
    bool is_counted;                     /* among the ended ones */
    void (*on_ended)(struct process *p); /* before its followers hear of it; may be NULL */
    unsigned references;
    enum process_state state;
    bool is_background;
    bool is_terminal;
    bool is_stdin_open; /* it has no end of file yet */
    char command[PROCESS_COMMAND_BYTES];
    char session[SESSION_NAME_BYTES]; /* whose shell it is, or "" */
    char *cwd;                        /* what `result.cwd` points to */
    uint32_t pid;                     /* in the guest's numbering; 0 while STARTING */
    uint64_t started_real_ns;
    uint64_t ended_real_ns;
    const struct process_source *source; /* NULL: ENDED */
    void *source_context;
    struct exec *exec;         /* the source, where it takes stdin from us */
    struct exec_result result; /* ENDED */
    struct output_ring ring;
    struct process_memory *memory; /* where `memory_bytes` are counted; NULL: in the foreground */
    uint64_t memory_bytes;
    size_t held[EXEC_OUTPUT_COUNT]; /* bytes for which the guest gets no credit yet */
    struct process_followers followers;
    struct process_follower *next_told; /* while they are told news */
    struct process_writers writers;
    /* Stdin that came with the request. */
    const uint8_t *stdin_data; /* `stdin_copy`, or the owner's */
    uint8_t *stdin_copy;
    size_t stdin_size, stdin_used;
    bool keeps_stdin; /* it stays open behind that */
};

struct process_spec {
    struct exec_spec exec;
    const char *command; /* for people */
    bool is_background;
    bool keeps_stdin;
    size_t ring_bytes;         /* at least PROCESS_RING_BYTES_MIN */
    const uint8_t *stdin_data; /* copied in the background; else it outlives the process */
    size_t stdin_size;
};

/*
 * Starts a command as a process that is in no table and has one reference, the caller's. Returns 0,
 * or -1 with an error of exec_start(), or with ERR_NO_CAPACITY where those in the background would
 * hold more than PROCESSES_BYTES_MAX: each counts with all of its ring while it runs, and with what
 * the ring has grown to after its end. `memory`, where they are counted, outlives the process.
 */
int process_new_exec(uv_loop_t *loop, struct agent_link *link, struct process_memory *memory,
                     const struct process_spec *spec, struct process **ret_process, struct error *e)
    __attribute__((warn_unused_result));

/* A process with another source, in no table and with one reference, the caller's; NULL when memory
 * is short. Its source says what happens to it by the three calls below, from the loop only; after
 * process_feed_end() the source is not called any more. */
struct process *process_new(const struct process_source *source, void *context, size_t ring_bytes);
void process_feed_start(struct process *p, uint32_t pid);
void process_feed_output(struct process *p, enum exec_output which, const uint8_t *data,
                         size_t size);
void process_feed_end(struct process *p, const struct exec_result *result);

/* Begins to follow from `offset` on, which may be older than what is kept, but not beyond the end.
 * No call is made from inside. */
void process_follow(struct process *p, struct process_follower *follower, uint64_t offset);
/* Accepts one that is detached. */
void process_unfollow(struct process_follower *follower);

/* Bytes that the follower has missed for ever; it then goes on behind them. */
uint64_t process_missed(struct process_follower *follower);
/* Copies what comes next, of one output, and takes nothing; 0 where there is nothing. */
size_t process_peek(const struct process_follower *follower, uint8_t *to, size_t size_max,
                    enum exec_output *ret_which);
/* The follower is done with so many bytes. */
void process_take(struct process_follower *follower, size_t size);

/* Whether somebody may still become a source of stdin. */
bool process_takes_stdin(const struct process *p);
/* Becomes a source of stdin; -1 with ERR_CONFLICT where it is closed or has another source. */
int process_write_begin(struct process *p, struct process_writer *writer, struct error *e)
    __attribute__((warn_unused_result));
/* As exec_send(). */
size_t process_write(struct process_writer *writer, const void *data, size_t size)
    __attribute__((warn_unused_result));
/* `closes`: end of file for the process, and the end of all other writers. Accepts one that is
 * detached. */
void process_write_end(struct process_writer *writer, bool closes);

/* Tells a terminal its size. */
void process_resize(struct process *p, uint16_t rows, uint16_t columns);
void process_signal(struct process *p, enum channel_signal_scope scope, uint32_t signal_number);
/* Kills it with every descendant; followers hear of its end. */
void process_kill_tree(struct process *p);

/* A process object is never larger. */
#define PROCESS_DESCRIPTION_MAX (8 * KIB)

/* Writes the fields of the API's process object into the object that is open. */
void process_describe(const struct process *p, struct json_writer *w);
/* Why a process has ended that was never seen to start. */
void process_start_error(const struct process *p, struct error *e);
/* Writes "end", "exit_code", "signal", "truncated", "usage", "times". */
void exec_result_describe(const struct exec_result *result, struct json_writer *w);

/* References. */
void process_get(struct process *p);
void process_put(struct process *p);
