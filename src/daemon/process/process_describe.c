/* What the API tells of a process, and of how a command ended. */
#include <string.h>

#include "base/clock.h"
#include "daemon/process/process.h"

static const char *const state_names[] = {
    [PROCESS_STARTING] = "starting", [PROCESS_RUNNING] = "running", [PROCESS_ENDED] = "ended"};

static void put_usage(const struct exec_result *result, struct json_writer *w)
{
    json_begin_object(w, "usage");
    json_put_ms(w, "wall_ms", result->wall_ns);
    if (result->has_guest_usage) {
        json_put_ms(w, "user_ms", result->user_us * NS_PER_US);
        json_put_ms(w, "system_ms", result->system_us * NS_PER_US);
        json_put_int(w, "max_rss_bytes", (int64_t)result->max_rss_bytes);
    } else {
        json_put_null(w, "user_ms");
        json_put_null(w, "system_ms");
        json_put_null(w, "max_rss_bytes");
    }
    json_put_int(w, "stdin_bytes", (int64_t)result->stdin_bytes);
    json_put_int(w, "stdout_bytes", (int64_t)result->output_bytes[EXEC_STDOUT]);
    json_put_int(w, "stderr_bytes", (int64_t)result->output_bytes[EXEC_STDERR]);
    json_end_object(w);
}

void exec_result_describe(const struct exec_result *result, struct json_writer *w)
{
    json_put_text(w, "end", exec_end_name(result->end));
    if (result->end == EXEC_EXITED)
        json_put_int(w, "exit_code", result->exit_code);
    else
        json_put_null(w, "exit_code");
    if (result->end == EXEC_SIGNALED)
        json_put_int(w, "signal", result->signal);
    else
        json_put_null(w, "signal");
    json_put_bool(w, "truncated", result->truncated);
    put_usage(result, w);
    json_begin_object(w, "times");
    if (result->first_output_ns != 0)
        json_put_ms(w, "first_output_ms", result->first_output_ns);
    else
        json_put_null(w, "first_output_ms");
    json_end_object(w);
    if (result->cwd != NULL)
        json_put_bytes(w, "cwd", result->cwd, strlen(result->cwd));
    if (result->ends_session)
        json_put_bool(w, "session_ended", true);
}

void process_start_error(const struct process *p, struct error *e)
{
    if (p->result.end == EXEC_FAILED)
        *e = p->result.error;
    else if (p->result.end == EXEC_SANDBOX_GONE)
        (void)error_set(e, ERR_SANDBOX_GONE, "the sandbox ended before the command had started");
    else
        (void)error_set(e, ERR_COMMAND_NOT_STARTED, "the command ended before it had started: %s",
                        exec_end_name(p->result.end));
}

void process_describe(const struct process *p, struct json_writer *w)
{
    json_put_int(w, "pid", p->pid);
    json_put_text(w, "state", state_names[p->state]);
    json_put_bool(w, "background", p->is_background);
    json_put_bool(w, "terminal", p->is_terminal);
    json_put_text(w, "command", p->command);
    if (p->session[0] != '\0')
        json_put_text(w, "session", p->session);
    json_put_time(w, "started_at", p->started_real_ns);
    json_put_bool(w, "stdin_open", process_takes_stdin(p));
    json_begin_object(w, "output"); /* offsets: what is kept of it */
    json_put_int(w, "start", (int64_t)p->ring.start);
    json_put_int(w, "end", (int64_t)p->ring.end);
    json_end_object(w);
    if (p->state != PROCESS_ENDED)
        return;
    json_put_time(w, "ended_at", p->ended_real_ns);
    if (p->result.end == EXEC_FAILED)
        json_put_error_member(w, &p->result.error, NULL);
    else
        exec_result_describe(&p->result, w);
}
