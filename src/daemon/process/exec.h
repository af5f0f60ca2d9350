/*
 * One command in a sandbox: a stream of the agent channel together with its limits. The daemon
 * keeps the time and counts the output itself; what only the guest can know (exit code, CPU time,
 * memory) is passed on as its claim. Whatever happens, an exec that was started ends exactly once,
 * and it ends with `exited` only where the guest said so.
 *
 * Time out and output limit both reset the stream: the agent kills the command with every
 * descendant and says END. A guest that does not within EXEC_GRACE_MS is not waited for.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "daemon/link/agent_link.h"
#include "daemon/process/env.h"

/* On a KVM that interprets the guest's kernel a kill takes seconds. */
#define EXEC_GRACE_MS 10000u

struct exec;

enum exec_end {
    EXEC_FAILED, /* `error` says why: ERR_COMMAND_NOT_STARTED, or the agent gave up (ERR_INTERNAL)
                  */
    EXEC_EXITED,
    EXEC_SIGNALED,
    EXEC_TIMEOUT,
    EXEC_OOM,
    EXEC_OUTPUT_LIMIT,
    EXEC_SANDBOX_GONE,
};

/* "exited", "timeout", ... as in the API; "failed" goes out as an error instead. */
const char *exec_end_name(enum exec_end end);

enum exec_output { EXEC_STDOUT, EXEC_STDERR, EXEC_OUTPUT_COUNT };

struct exec_spec {
    const char *const *argv; /* NULL-terminated, at least one */
    const char *cwd;         /* absolute */
    const char *user;        /* "" is root */
    const struct env *env;   /* merged already */
    bool has_stdin;          /* else stdin is /dev/null */
    bool has_pty;            /* a terminal: all output comes as stdout */
    uint16_t rows, columns;  /* with has_pty */
    uint32_t umask;          /* CHANNEL_UMASK_DEFAULT: the agent's */
    const struct channel_limit *limits;
    size_t limit_count;
    uint64_t timeout_ms;       /* 0: the sandbox's own time out is the only one */
    uint64_t output_bytes_max; /* of stdout and stderr together; UINT64_MAX: no limit */
    uint64_t arrived_ns;       /* when the request came (CLOCK_MONOTONIC), for first_output_ms */
};

struct exec_result {
    enum exec_end end;
    int32_t exit_code; /* EXITED */
    int32_t signal;    /* SIGNALED */
    bool truncated;    /* output may be missing: past output_bytes_max, or as it was killed */
    bool has_guest_usage;
    uint64_t stdin_bytes;                       /* given to the guest */
    uint64_t output_bytes[EXEC_OUTPUT_COUNT];   /* taken from it */
    uint64_t wall_ns;                           /* the daemon's clock, from the start of the exec */
    uint64_t user_us, system_us, max_rss_bytes; /* the guest's claims, 0 without has_guest_usage */
    uint64_t first_output_ns;                   /* since arrived_ns; 0: there was no output */
    const char *cwd;    /* a session's command: where it left the shell; lives as its process */
    bool ends_session;  /* the shell has ended with it */
    struct error error; /* FAILED */
};

/* on_end is called exactly once, and the exec is dead when it returns. No
 * callback is made from inside exec_start, _send, _finish_stdin, _consume, _signal, _resize or
 * _kill. */
struct exec_calls {
    void (*on_start)(void *arg, uint32_t pid);
    /* Never more than output_bytes_max in all; exec_consume() lets the guest send more. */
    void (*on_output)(void *arg, enum exec_output which, const uint8_t *data, size_t size);
    void (*on_stdin_writable)(void *arg);
    void (*on_end)(void *arg, const struct exec_result *result);
};

/* Starts a command. Returns 0, or -1 with an error of agent_request_exec() or agent_stream_open().
 * Nothing of `spec` is kept. */
int exec_start(uv_loop_t *loop, struct agent_link *link, const struct exec_spec *spec,
               const struct exec_calls *calls, void *arg, struct exec **ret_exec, struct error *e)
    __attribute__((warn_unused_result));

/* Stdin: as agent_stream_send() and agent_stream_eof(). Only with has_stdin. */
size_t exec_send(struct exec *exec, const void *data, size_t size)
    __attribute__((warn_unused_result));
void exec_finish_stdin(struct exec *exec);

void exec_consume(struct exec *exec, enum exec_output which, size_t size);
void exec_signal(struct exec *exec, enum channel_signal_scope scope, uint32_t signal_number);
/* Only with has_pty. */
void exec_resize(struct exec *exec, uint16_t rows, uint16_t columns);

/* Kills the command with every descendant; on_end follows: as the guest says, or EXEC_SIGNALED.
 * What it still writes is thrown away. */
void exec_kill(struct exec *exec);
