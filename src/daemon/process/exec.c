#include "daemon/process/exec.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/link/agent_message.h"

struct exec {
    uv_timer_t timer; /* the time out, then the grace after a reset */
    struct agent_stream *stream;
    struct exec_calls calls;
    void *arg;
    char command[128]; /* argv[0], for error texts */
    uint64_t arrived_ns;
    uint64_t started_ns;
    uint64_t first_output_ns;
    uint64_t stdin_bytes;
    uint64_t output_bytes[EXEC_OUTPUT_COUNT];
    uint64_t output_bytes_max;
    bool has_started; /* the guest said INFO */
    bool is_cut;      /* reset by us: `cut` is how it will end */
    bool is_over;
    enum exec_end cut;
};

static const char *const end_names[] = {
    [EXEC_FAILED] = "failed",
    [EXEC_EXITED] = "exited",
    [EXEC_SIGNALED] = "signaled",
    [EXEC_TIMEOUT] = "timeout",
    [EXEC_OOM] = "oom",
    [EXEC_OUTPUT_LIMIT] = "output_limit",
    [EXEC_SANDBOX_GONE] = "sandbox_gone",
};

/* What to do about an errno with which a command did not start. */
static const struct {
    uint32_t status;
    const char *remedy;
} remedies[] = {
    {ENOENT, "Check the name, the PATH in \"env\" and that \"cwd\" exists in the sandbox."},
    {ENOTDIR, "\"cwd\" must be a directory that exists in the sandbox."},
    {EACCES, "Make the file executable (mode 0755) or start it through its interpreter."},
    {ENOEXEC, "The file is no program of this machine's kind and has no #! line."},
    {E2BIG, "Shorten \"argv\" and \"env\", or send the data as a file or as stdin."},
    {EINVAL, "Check \"user\", \"cwd\" and \"argv\"."},
    {ENOMEM, "Give the sandbox more memory (mem_mib)."},
    {EAGAIN, "Too many processes run in the sandbox; end some of them."},
};

const char *exec_end_name(enum exec_end end)
{
    return end_names[end];
}

static void on_timer_closed(uv_handle_t *timer)
{
    free(timer->data);
}

/* The exec is over for its owner; the memory goes when the loop has closed the timer. */
static void retire(struct exec *exec)
{
    exec->is_over = true;
    exec->stream = NULL;
    uv_close((uv_handle_t *)&exec->timer, on_timer_closed);
}

static void finish(struct exec *exec, struct exec_result *result)
{
    result->wall_ns = clock_mono_ns() - exec->started_ns;
    result->first_output_ns = exec->first_output_ns;
    result->truncated = exec->is_cut; /* a reset drops what is still in the pipes */
    result->stdin_bytes = exec->stdin_bytes;
    memcpy(result->output_bytes, exec->output_bytes, sizeof(result->output_bytes));
    retire(exec);
    exec->calls.on_end(exec->arg, result);
}

static void set_failure(const struct exec *exec, const struct agent_end *end, struct error *e)
{
    if (exec->has_started) {
        (void)error_set(e, ERR_INTERNAL, "the sandbox's agent lost \"%s\" while it ran",
                        exec->command);
        (void)error_remedy(e, "Use a new sandbox; what runs in this one may be damaged.");
    } else {
        (void)error_set(e, ERR_COMMAND_NOT_STARTED, "cannot start \"%s\"", exec->command);
        for (size_t i = 0; i < sizeof(remedies) / sizeof(remedies[0]); i++) {
            if (remedies[i].status == end->status)
                (void)error_remedy(e, "%s", remedies[i].remedy);
        }
    }
    if (end->text[0] != '\0')
        (void)error_cause(e, "%.200s", end->text);
    else
        (void)error_cause(e, "%s", strerror((int)end->status));
}

/* What the guest claims, where we did not end it ourselves. */
static void judge_end(const struct exec *exec, const struct agent_end *end,
                      struct exec_result *result)
{
    if (end->status != 0) {
        result->end = EXEC_FAILED;
        set_failure(exec, end, &result->error);
    } else if (end->kind == CHANNEL_EXEC_EXITED) {
        result->end = EXEC_EXITED;
        result->exit_code = end->code;
    } else if (end->kind == CHANNEL_EXEC_SIGNALED) {
        result->end = EXEC_SIGNALED;
        result->signal = end->code;
    } else {
        result->end = EXEC_OOM;
    }
}

static void set_cut(const struct exec *exec, struct exec_result *result)
{
    result->end = exec->cut;
    result->signal = exec->cut == EXEC_SIGNALED ? SIGKILL : 0;
}

/* What is before and after it is our own (bench/exec). */
static void log_guest_part(const struct exec *exec)
{
    uint64_t from_ns = agent_stream_opened_ns(exec->stream) - exec->arrived_ns;

    log_debug("exec of \"%s\": with the guest from %.3f to %.3f ms after the request",
              exec->command, (double)from_ns / 1e6,
              (double)(clock_mono_ns() - exec->arrived_ns) / 1e6);
}

static void on_stream_end(void *arg, enum agent_outcome outcome, const struct agent_end *end)
{
    struct exec *exec = arg;
    struct exec_result result = {0};

    if (outcome == AGENT_ENDED)
        log_guest_part(exec);
    if (outcome == AGENT_ENDED && end->status == 0) {
        result.has_guest_usage = true;
        result.user_us = end->user_us;
        result.system_us = end->system_us;
        result.max_rss_bytes = end->max_rss_bytes;
    }
    /* Of a command that was only killed, the guest knows best how it ended. */
    if (exec->is_cut && (exec->cut != EXEC_SIGNALED || outcome == AGENT_CANCELED))
        set_cut(exec, &result);
    else if (outcome == AGENT_ENDED)
        judge_end(exec, end, &result);
    else
        result.end = EXEC_SANDBOX_GONE;
    finish(exec, &result);
}

static void on_timer(uv_timer_t *timer);

/* Ends the command for a reason of ours. */
static void cut(struct exec *exec, enum exec_end why)
{
    exec->is_cut = true;
    exec->cut = why;
    agent_stream_reset(exec->stream);
    uv_update_time(exec->timer.loop);
    (void)uv_timer_start(&exec->timer, on_timer, EXEC_GRACE_MS, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct exec *exec = timer->data;

    if (!exec->is_cut) {
        cut(exec, EXEC_TIMEOUT);
        return;
    }
    /* The guest was told and does not answer. Its word would change nothing but the usage. */
    struct exec_result result = {0};

    set_cut(exec, &result);
    agent_stream_abandon(exec->stream);
    finish(exec, &result);
}

static void on_stream_info(void *arg, const struct agent_info *info)
{
    struct exec *exec = arg;

    exec->has_started = true;
    exec->calls.on_start(exec->arg, info->pid);
}

static void on_stream_data(void *arg, enum channel_lane lane, const uint8_t *data, size_t size)
{
    struct exec *exec = arg;
    enum exec_output which = lane == CHANNEL_LANE_OUT ? EXEC_STDOUT : EXEC_STDERR;
    uint64_t room =
        exec->output_bytes_max - exec->output_bytes[EXEC_STDOUT] - exec->output_bytes[EXEC_STDERR];
    size_t taken = size < room ? size : (size_t)room;

    if (exec->first_output_ns == 0)
        exec->first_output_ns = clock_mono_ns() - exec->arrived_ns;
    exec->output_bytes[which] += taken;
    if (taken > 0)
        exec->calls.on_output(exec->arg, which, data, taken);
    if (taken < size && !exec->is_over)
        cut(exec, EXEC_OUTPUT_LIMIT);
}

static void on_stream_writable(void *arg)
{
    struct exec *exec = arg;

    exec->calls.on_stdin_writable(exec->arg);
}

int exec_start(uv_loop_t *loop, struct agent_link *link, const struct exec_spec *spec,
               const struct exec_calls *calls, void *arg, struct exec **ret_exec, struct error *e)
{
    static const struct agent_stream_calls stream_calls = {
        .on_info = on_stream_info,
        .on_data = on_stream_data,
        .on_writable = on_stream_writable,
        .on_end = on_stream_end,
    };
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);

    assert(spec->argv[0] != NULL);
    const struct agent_command command = {.has_stdin = spec->has_stdin,
                                          .has_pty = spec->has_pty,
                                          .rows = spec->rows,
                                          .columns = spec->columns,
                                          .umask = spec->umask,
                                          .user = spec->user,
                                          .cwd = spec->cwd,
                                          .limits = spec->limits,
                                          .limit_count = spec->limit_count,
                                          .argv = spec->argv,
                                          .env = env_vector(spec->env)};

    if (agent_request_exec(&request, &command, e) != 0)
        return -1;
    struct exec *exec = calloc(1, sizeof(*exec));
    if (exec == NULL) {
        buffer_fini(&request);
        return error_set(e, ERR_INTERNAL, "out of memory for an exec");
    }
    exec->calls = *calls;
    exec->arg = arg;
    (void)snprintf(exec->command, sizeof(exec->command), "%s", spec->argv[0]);
    exec->arrived_ns = spec->arrived_ns;
    exec->output_bytes_max = spec->output_bytes_max;
    exec->started_ns = clock_mono_ns();
    if (agent_stream_open(link, CHANNEL_OP_EXEC, spec->has_stdin, &request, &stream_calls, exec,
                          &exec->stream, e) != 0) {
        buffer_fini(&request);
        free(exec);
        return -1;
    }
    (void)uv_timer_init(loop, &exec->timer);
    exec->timer.data = exec;
    uv_update_time(loop);
    if (spec->timeout_ms > 0)
        (void)uv_timer_start(&exec->timer, on_timer, spec->timeout_ms, 0);
    *ret_exec = exec;
    return 0;
}

size_t exec_send(struct exec *exec, const void *data, size_t size)
{
    if (exec->is_over)
        return size;
    size_t taken = agent_stream_send(exec->stream, data, size);

    exec->stdin_bytes += taken;
    return taken;
}

void exec_finish_stdin(struct exec *exec)
{
    if (!exec->is_over)
        agent_stream_eof(exec->stream);
}

void exec_consume(struct exec *exec, enum exec_output which, size_t size)
{
    if (!exec->is_over)
        agent_stream_consume(exec->stream,
                             which == EXEC_STDOUT ? CHANNEL_LANE_OUT : CHANNEL_LANE_ERR, size);
}

void exec_signal(struct exec *exec, enum channel_signal_scope scope, uint32_t signal_number)
{
    if (!exec->is_over)
        agent_stream_signal(exec->stream, scope, signal_number);
}

void exec_resize(struct exec *exec, uint16_t rows, uint16_t columns)
{
    if (!exec->is_over)
        agent_stream_resize(exec->stream, rows, columns);
}

void exec_kill(struct exec *exec)
{
    if (!exec->is_over && !exec->is_cut)
        cut(exec, EXEC_SIGNALED);
}
