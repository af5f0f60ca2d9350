#include "daemon/process/session.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "daemon/process/process_table.h"
#include "daemon/process/session_scan.h"

#define NONCE_BYTES 33u /* NUL included */
/* What the shell gets for each byte of a command, at most: a quote is written as '\''. */
#define PUMP_BYTES      (32 * KIB)
#define INPUT_BYTES_MAX (4 * CHANNEL_OPEN_MAX + 4 * KIB)

struct session {
    LIST_ENTRY(session) entry;
    char name[SESSION_NAME_BYTES];
    struct process_follower shell;
    struct process_writer writer;
    struct buffer input; /* what the shell has not taken yet */
    uv_timer_t timer;    /* the command's time out, then its grace */
    uv_timer_t deferred; /* goes on with the output in the loop's next turn */
    unsigned open_handles;
    bool is_listed; /* in the table's list: its shell lives */
    bool is_over;

    struct process *command; /* we have its reference; NULL: no command runs */
    struct session_scan scans[EXEC_OUTPUT_COUNT];
    uint64_t unconsumed; /* of the command's output, by those who follow it */
    uint64_t output_bytes[EXEC_OUTPUT_COUNT];
    uint64_t output_bytes_max;
    uint64_t arrived_ns, started_ns, first_output_ns;
    bool is_cut;
    enum exec_end cut;
};

int session_check_name(const char *name, struct error *e)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789._-";
    size_t size = strlen(name);

    if (size > 0 && size < SESSION_NAME_BYTES && strspn(name, allowed) == size)
        return 0;
    (void)error_set(e, ERR_INVALID_FIELD, "session \"%.80s\" is no name", name);
    return error_remedy(e, "Use 1 to %u letters, digits, '.', '_' and '-'.",
                        SESSION_NAME_BYTES - 1);
}

struct session *session_find(struct process_table *t, const char *name)
{
    struct session *s;

    LIST_FOREACH (s, &t->sessions, entry) {
        if (strcmp(s->name, name) == 0)
            return s;
    }
    return NULL;
}

/* --- the end of a command, and of the session ---------------------------------------------------
 */

static void on_handle_closed(uv_handle_t *handle)
{
    struct session *s = handle->data;

    if (--s->open_handles > 0)
        return;
    buffer_fini(&s->input);
    free(s);
}

/* Gives the command's process its result; whoever follows it gets to know. */
static void end_command(struct session *s, struct exec_result *result)
{
    struct process *command = s->command;

    (void)uv_timer_stop(&s->timer);
    s->command = NULL;
    if (s->is_cut && result->end != EXEC_SANDBOX_GONE)
        result->end = s->cut;
    result->signal = result->end != EXEC_SIGNALED ? 0 : s->is_cut ? SIGKILL : result->signal;
    result->truncated = s->is_cut;
    result->wall_ns = clock_mono_ns() - s->started_ns;
    result->first_output_ns = s->first_output_ns;
    memcpy(result->output_bytes, s->output_bytes, sizeof(result->output_bytes));
    process_feed_end(command, result);
    process_put(command);
}

/* The shell has ended, and with it the session; a command that ran ends as the shell did. */
static void end_session(struct session *s)
{
    const struct exec_result *shell = &s->shell.process->result;
    /* Not its usage, which is that of all commands. */
    struct exec_result result = {.end = shell->end,
                                 .exit_code = shell->exit_code,
                                 .signal = shell->signal,
                                 .error = shell->error,
                                 .ends_session = true};

    s->is_over = true;
    process_write_end(&s->writer, false);
    process_unfollow(&s->shell);
    if (s->command != NULL)
        end_command(s, &result);
    uv_close((uv_handle_t *)&s->timer, on_handle_closed);
    uv_close((uv_handle_t *)&s->deferred, on_handle_closed);
}

static void on_timer(uv_timer_t *timer);

static void cut(struct session *s, enum exec_end why)
{
    if (s->is_cut)
        return;
    s->is_cut = true;
    s->cut = why;
    process_signal(s->shell.process, CHANNEL_SIGNAL_OTHERS, SIGKILL);
    uv_update_time(s->timer.loop);
    (void)uv_timer_start(&s->timer, on_timer, SESSION_GRACE_MS, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct session *s = timer->data;

    if (s->is_cut)
        process_kill_tree(s->shell.process);
    else
        cut(s, EXEC_TIMEOUT);
}

/* --- output -------------------------------------------------------------------------------------
 */

struct sink {
    struct session *session;
    enum exec_output which;
};

static void put_output(void *arg, const uint8_t *data, size_t size)
{
    const struct sink *sink = arg;
    struct session *s = sink->session;
    uint64_t room = s->output_bytes_max - s->output_bytes[0] - s->output_bytes[1];
    size_t taken = size < room ? size : (size_t)room;

    if (s->is_cut)
        return; /* as with any command that is being killed */
    if (s->first_output_ns == 0)
        s->first_output_ns = clock_mono_ns() - s->arrived_ns;
    s->output_bytes[sink->which] += taken;
    s->unconsumed += taken;
    if (taken > 0)
        process_feed_output(s->command, sink->which, data, taken);
    if (taken < size)
        cut(s, EXEC_OUTPUT_LIMIT);
}

/* The shell's report: "CODE DIRECTORY". Anything else comes of a shell that was tampered with. */
static void end_reported(struct session *s)
{
    struct exec_result result = {.end = EXEC_EXITED};
    const struct session_scan *scan = &s->scans[EXEC_STDOUT];
    char *end;
    unsigned long code = strtoul(scan->report, &end, 10);

    if (scan->is_too_long || *end != ' ' || code > 255) {
        result.end = EXEC_FAILED;
        (void)error_set(&result.error, ERR_INTERNAL, "the session's shell gave no exit code");
        (void)error_remedy(&result.error, "Remove the session's process and begin a new one.");
    } else {
        result.exit_code = (int32_t)code;
        result.cwd = s->command->cwd = strdup(end + 1); /* without memory it is not told */
    }
    end_command(s, &result);
}

/* Takes the shell's output while a command runs and those who follow it keep up. What comes between
 * two commands, of jobs in the background, is the next one's. */
static void pump(struct session *s)
{
    uint8_t data[PUMP_BYTES];
    enum exec_output which = EXEC_STDOUT;

    (void)process_missed(&s->shell); /* nothing was: the shell waits for us */
    while (!s->is_over && s->command != NULL && s->unconsumed < PROCESS_RING_BYTES_MIN / 2) {
        size_t size = process_peek(&s->shell, data, sizeof(data), &which);
        struct sink sink = {.session = s, .which = which};

        if (size == 0)
            break;
        if (session_scan_done(&s->scans[which]))
            put_output(&sink, data, size); /* of a job, while the other marker is on its way */
        else
            size = session_scan_feed(&s->scans[which], data, size, put_output, &sink);
        process_take(&s->shell, size);
        if (session_scan_done(&s->scans[EXEC_STDOUT]) && session_scan_done(&s->scans[EXEC_STDERR]))
            end_reported(s);
    }
}

static void advance(struct session *s)
{
    const struct process *shell = s->shell.process;

    if (s->command != NULL && s->command->state == PROCESS_STARTING && shell->pid != 0)
        process_feed_start(s->command, shell->pid);
    if (shell->state == PROCESS_ENDED && s->is_listed) {
        LIST_REMOVE(s, entry); /* the table may go before all output is taken */
        s->is_listed = false;
    }
    pump(s);
    if (!s->is_over && shell->state == PROCESS_ENDED &&
        (s->command == NULL || s->shell.offset == shell->ring.end))
        end_session(s);
}

static void on_shell_news(struct process_follower *f)
{
    advance(f->owner);
}

static void on_deferred(uv_timer_t *timer)
{
    advance(timer->data);
}

static void defer(struct session *s)
{
    if (!s->is_over)
        (void)uv_timer_start(&s->deferred, on_deferred, 0, 0);
}

/* --- the command's process, and its shell -------------------------------------------------------
 */

static void command_consume(void *context, enum exec_output which, size_t size)
{
    struct session *s = context;

    (void)which;
    s->unconsumed -= size;
    defer(s);
}

static void command_signal(void *context, enum channel_signal_scope scope, uint32_t signal_number)
{
    struct session *s = context;

    (void)scope; /* the shell shares the group, and is not meant */
    process_signal(s->shell.process, CHANNEL_SIGNAL_OTHERS, signal_number);
}

static void command_kill(void *context)
{
    cut(context, EXEC_SIGNALED);
}

static void send_input(struct session *s)
{
    if (s->writer.process == NULL || s->input.size == 0)
        return;
    buffer_consume(&s->input, process_write(&s->writer, buffer_bytes(&s->input), s->input.size));
    if (s->input.size == 0)
        buffer_fini(&s->input); /* most sessions are idle most of the time */
}

static void on_shell_writable(struct process_writer *w)
{
    send_input(w->owner);
}

static void on_shell_closed(struct process_writer *w)
{
    (void)w; /* the follower hears of it as well */
}

int session_new(uv_loop_t *loop, struct process_table *t, const char *name, struct process *shell,
                struct session **ret_session, struct error *e)
{
    static const char preamble[] = "exec 8>&1 9>&2\n";
    struct session *s = calloc(1, sizeof(*s));

    if (s == NULL) {
        process_kill_tree(shell);
        return error_set(e, ERR_INTERNAL, "out of memory for a session");
    }
    s->input = (struct buffer)BUFFER_INIT(INPUT_BYTES_MAX);
    if (buffer_append(&s->input, preamble, sizeof(preamble) - 1) != 0 ||
        process_write_begin(shell, &s->writer, e) != 0) {
        buffer_fini(&s->input);
        free(s);
        process_kill_tree(shell);
        return error_set(e, ERR_INTERNAL, "out of memory for a session");
    }
    (void)snprintf(s->name, sizeof(s->name), "%s", name);
    (void)snprintf(shell->session, sizeof(shell->session), "%s", name);
    s->shell.owner = s->writer.owner = s;
    s->shell.on_news = on_shell_news;
    s->writer.on_writable = on_shell_writable;
    s->writer.on_closed = on_shell_closed;
    process_follow(shell, &s->shell, shell->ring.end);
    (void)uv_timer_init(loop, &s->timer);
    (void)uv_timer_init(loop, &s->deferred);
    s->timer.data = s->deferred.data = s;
    s->open_handles = 2;
    LIST_INSERT_HEAD(&t->sessions, s, entry);
    s->is_listed = true;
    send_input(s);
    *ret_session = s;
    return 0;
}

/* In single quotes: a quote inside ends them, stands by itself, and begins them again. */
static int append_quoted(struct buffer *to, const char *text)
{
    for (const char *quote; (quote = strchr(text, '\'')) != NULL; text = quote + 1) {
        if (buffer_append(to, text, (size_t)(quote - text)) != 0 ||
            buffer_append_text(to, "'\\''") != 0)
            return -1;
    }
    return buffer_append_text(to, text);
}

/*
 * The shell's own redirections are undone behind the command, which gets neither the commands that
 * are yet to come nor our way back. `command` keeps a non-interactive shell alive when the text is
 * no valid shell (POSIX, 2.8.1 Consequences of Shell Errors).
 */
static int append_command(struct session *s, const char *text, const char *nonce)
{
    size_t before = s->input.size;

    if (buffer_append_text(&s->input, "command eval '") == 0 &&
        append_quoted(&s->input, text) == 0 &&
        buffer_printf(&s->input,
                      "' </dev/null 8>&- 9>&-\n"
                      "printf '\\036%s:%%s %%s\\036%s:' \"$?\" \"$PWD\" >&8; "
                      "printf '\\036%s:' >&9\n",
                      nonce, nonce, nonce) == 0)
        return 0;
    s->input.size = before; /* half a command would be worse than none */
    return -1;
}

static void make_nonce(char nonce[NONCE_BYTES])
{
    uint64_t random[2];

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        abort(); /* does not fail once the kernel's pool is up */
    (void)snprintf(nonce, NONCE_BYTES, "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
}

int session_run(struct session *s, const struct session_command *command,
                struct process **ret_process, struct error *e)
{
    static const struct process_source source = {
        .consume = command_consume, .signal = command_signal, .kill = command_kill};
    char nonce[NONCE_BYTES], marker[SESSION_MARKER_BYTES + 1];

    if (s->command != NULL) {
        (void)error_set(e, ERR_CONFLICT, "session %s is busy with another command", s->name);
        return error_remedy(e, "Wait for its end, or use another session.");
    }
    make_nonce(nonce);
    (void)snprintf(marker, sizeof(marker), "\036%s:", nonce);
    struct process *p = process_new(&source, s, PROCESS_RING_BYTES_MIN);
    if (p == NULL || append_command(s, command->text, nonce) != 0) {
        if (p != NULL)
            process_put(p);
        return error_set(e, ERR_INTERNAL, "out of memory for a command");
    }
    session_scan_begin(&s->scans[EXEC_STDOUT], marker, true);
    session_scan_begin(&s->scans[EXEC_STDERR], marker, false);
    s->command = p;
    s->unconsumed = 0;
    s->is_cut = false;
    memset(s->output_bytes, 0, sizeof(s->output_bytes));
    s->output_bytes_max = command->output_bytes_max;
    s->arrived_ns = command->arrived_ns;
    s->started_ns = clock_mono_ns();
    s->first_output_ns = 0;
    uv_update_time(s->timer.loop);
    if (command->timeout_ms > 0)
        (void)uv_timer_start(&s->timer, on_timer, command->timeout_ms, 0);
    send_input(s);
    defer(s);
    *ret_process = p;
    return 0;
}
