/*
 * A session: a shell of a sandbox that stays, for commands one after the other. What a command
 * changes of the shell (directory, variables, functions, umask) is there for the next; each still
 * has its own output, exit code and time out.
 *
 * The shell is a process in the background which reads commands from its stdin. Each command is
 * followed by one that prints a marker to both outputs (session_scan.h), with the exit code and the
 * directory. To whoever waits for it, a command is a struct process like any other.
 *
 * A command that is to be stopped (time out, output limit, a client that left) has all processes
 * killed that it started, but the shell is spared. Where that does not end it within
 * SESSION_GRACE_MS, as it is the shell itself that runs on, the session ends.
 */
#pragma once

#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "base/error.h"
#include "daemon/process/process.h"

#define SESSION_GRACE_MS 5000u

struct session;

/* A name is 1 to SESSION_NAME_BYTES - 1 letters, digits, '-', '_' and '.'; else ERR_INVALID_FIELD.
 */
int session_check_name(const char *name, struct error *e) __attribute__((warn_unused_result));

/* The session with that name that still lives, or NULL. */
struct session *session_find(struct process_table *t, const char *name);

/* Makes a session of a shell that was just started in the background with its stdin kept open. -1
 * with ERR_INTERNAL, and the shell is killed. */
int session_new(uv_loop_t *loop, struct process_table *t, const char *name, struct process *shell,
                struct session **ret_session, struct error *e) __attribute__((warn_unused_result));

struct session_command {
    const char *text;          /* for the shell */
    uint64_t timeout_ms;       /* 0: none */
    uint64_t output_bytes_max; /* UINT64_MAX: no limit */
    uint64_t arrived_ns;
};

/*
 * Runs a command and lends its process, as process_table_start() does: it lives until its end at
 * least, which comes from the loop. Returns 0, or -1 with ERR_CONFLICT (another command runs in the
 * session) or ERR_INTERNAL.
 */
int session_run(struct session *session, const struct session_command *command,
                struct process **ret_process, struct error *e) __attribute__((warn_unused_result));
