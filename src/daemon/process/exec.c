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
static void retire(struct exec *x)
{
    x->is_over = true;
    x->stream = NULL;
    uv_close((uv_handle_t *)&x->timer, on_timer_closed);
}

static void finish(struct exec *x, struct exec_result *result)
{
    result->wall_ns = clock_mono_ns() - x->started_ns;
    result->first_output_ns = x->first_output_ns;
    result->truncated = x->is_cut; /* a reset drops what is still in the pipes */
    result->stdin_bytes = x->stdin_bytes;
    memcpy(result->output_bytes, x->output_bytes, sizeof(result->output_bytes));
    retire(x);
    x->calls.on_end(x->arg, result);
}

static void set_failure(const struct exec *x, const struct agent_end *end, struct error *e)
{
    if (x->has_started) {
        (void)error_set(e, ERR_INTERNAL, "the sandbox's agent lost \"%s\" while it ran",
                        x->command);
        (void)error_remedy(e, "Use a new sandbox; what runs in this one may be damaged.");
    } else {
        (void)error_set(e, ERR_COMMAND_NOT_STARTED, "cannot start \"%s\"", x->command);
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
static void judge_end(const struct exec *x, const struct agent_end *end, struct exec_result *result)
{
    if (end->status != 0) {
        result->end = EXEC_FAILED;
        set_failure(x, end, &result->error);
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

static void set_cut(const struct exec *x, struct exec_result *result)
{
    result->end = x->cut;
    result->signal = x->cut == EXEC_SIGNALED ? SIGKILL : 0;
}

/* What is before and after it is our own (bench/exec). */
static void log_guest_part(const struct exec *x)
{
    uint64_t from_ns = agent_stream_opened_ns(x->stream) - x->arrived_ns;

    log_debug("exec of \"%s\": with the guest from %.3f to %.3f ms after the request", x->command,
              (double)from_ns / 1e6, (double)(clock_mono_ns() - x->arrived_ns) / 1e6);
}

static void on_stream_end(void *arg, enum agent_outcome outcome, const struct agent_end *end)
{
    struct exec *x = arg;
    struct exec_result result = {0};

    if (outcome == AGENT_ENDED)
        log_guest_part(x);
    if (outcome == AGENT_ENDED && end->status == 0) {
        result.has_guest_usage = true;
        result.user_us = end->user_us;
        result.system_us = end->system_us;
        result.max_rss_bytes = end->max_rss_bytes;
    }
    /* Of a command that was only killed, the guest knows best how it ended. */
    if (x->is_cut && (x->cut != EXEC_SIGNALED || outcome == AGENT_CANCELED))
        set_cut(x, &result);
    else if (outcome == AGENT_ENDED)
        judge_end(x, end, &result);
    else
        result.end = EXEC_SANDBOX_GONE;
    finish(x, &result);
}

static void on_timer(uv_timer_t *timer);

/* Ends the command for a reason of ours. */
static void cut(struct exec *x, enum exec_end why)
{
    x->is_cut = true;
    x->cut = why;
    agent_stream_reset(x->stream);
    uv_update_time(x->timer.loop);
    (void)uv_timer_start(&x->timer, on_timer, EXEC_GRACE_MS, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct exec *x = timer->data;

    if (!x->is_cut) {
        cut(x, EXEC_TIMEOUT);
        return;
    }
    /* The guest was told and does not answer. Its word would change nothing but the usage. */
    struct exec_result result = {0};

    set_cut(x, &result);
    agent_stream_abandon(x->stream);
    finish(x, &result);
}

static void on_stream_info(void *arg, const struct agent_info *info)
{
    struct exec *x = arg;

    x->has_started = true;
    x->calls.on_start(x->arg, info->pid);
}

static void on_stream_data(void *arg, enum channel_lane lane, const uint8_t *data, size_t size)
{
    struct exec *x = arg;
    enum exec_output which = lane == CHANNEL_LANE_OUT ? EXEC_STDOUT : EXEC_STDERR;
    uint64_t room =
        x->output_bytes_max - x->output_bytes[EXEC_STDOUT] - x->output_bytes[EXEC_STDERR];
    size_t taken = size < room ? size : (size_t)room;

    if (x->first_output_ns == 0)
        x->first_output_ns = clock_mono_ns() - x->arrived_ns;
    x->output_bytes[which] += taken;
    if (taken > 0)
        x->calls.on_output(x->arg, which, data, taken);
    if (taken < size && !x->is_over)
        cut(x, EXEC_OUTPUT_LIMIT);
}

static void on_stream_writable(void *arg)
{
    struct exec *x = arg;

    x->calls.on_stdin_writable(x->arg);
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
    struct exec *x = calloc(1, sizeof(*x));
    if (x == NULL) {
        buffer_fini(&request);
        return error_set(e, ERR_INTERNAL, "out of memory for an exec");
    }
    x->calls = *calls;
    x->arg = arg;
    (void)snprintf(x->command, sizeof(x->command), "%s", spec->argv[0]);
    x->arrived_ns = spec->arrived_ns;
    x->output_bytes_max = spec->output_bytes_max;
    x->started_ns = clock_mono_ns();
    if (agent_stream_open(link, CHANNEL_OP_EXEC, spec->has_stdin, &request, &stream_calls, x,
                          &x->stream, e) != 0) {
        buffer_fini(&request);
        free(x);
        return -1;
    }
    (void)uv_timer_init(loop, &x->timer);
    x->timer.data = x;
    uv_update_time(loop);
    if (spec->timeout_ms > 0)
        (void)uv_timer_start(&x->timer, on_timer, spec->timeout_ms, 0);
    *ret_exec = x;
    return 0;
}

size_t exec_send(struct exec *x, const void *data, size_t size)
{
    if (x->is_over)
        return size;
    size_t taken = agent_stream_send(x->stream, data, size);

    x->stdin_bytes += taken;
    return taken;
}

void exec_finish_stdin(struct exec *x)
{
    if (!x->is_over)
        agent_stream_eof(x->stream);
}

void exec_consume(struct exec *x, enum exec_output which, size_t size)
{
    if (!x->is_over)
        agent_stream_consume(x->stream, which == EXEC_STDOUT ? CHANNEL_LANE_OUT : CHANNEL_LANE_ERR,
                             size);
}

void exec_signal(struct exec *x, enum channel_signal_scope scope, uint32_t signal_number)
{
    if (!x->is_over)
        agent_stream_signal(x->stream, scope, signal_number);
}

void exec_resize(struct exec *x, uint16_t rows, uint16_t columns)
{
    if (!x->is_over)
        agent_stream_resize(x->stream, rows, columns);
}

void exec_kill(struct exec *x)
{
    if (!x->is_over && !x->is_cut)
        cut(x, EXEC_SIGNALED);
}
