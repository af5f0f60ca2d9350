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
    struct session *session;

    LIST_FOREACH (session, &t->sessions, entry) {
        if (strcmp(session->name, name) == 0)
            return session;
    }
    return NULL;
}

/* --- the end of a command, and of the session ---------------------------------------------------
 */

static void on_handle_closed(uv_handle_t *handle)
{
    struct session *session = handle->data;

    if (--session->open_handles > 0)
        return;
    buffer_fini(&session->input);
    free(session);
}

/* Gives the command's process its result; whoever follows it gets to know. */
static void end_command(struct session *session, struct exec_result *result)
{
    struct process *command = session->command;

    (void)uv_timer_stop(&session->timer);
    session->command = NULL;
    if (session->is_cut && result->end != EXEC_SANDBOX_GONE)
        result->end = session->cut;
    result->signal = result->end != EXEC_SIGNALED ? 0 : session->is_cut ? SIGKILL : result->signal;
    result->truncated = session->is_cut;
    result->wall_ns = clock_mono_ns() - session->started_ns;
    result->first_output_ns = session->first_output_ns;
    memcpy(result->output_bytes, session->output_bytes, sizeof(result->output_bytes));
    process_feed_end(command, result);
    process_put(command);
}

/* The shell has ended, and with it the session; a command that ran ends as the shell did. */
static void end_session(struct session *session)
{
    const struct exec_result *shell = &session->shell.process->result;
    /* Not its usage, which is that of all commands. */
    struct exec_result result = {.end = shell->end,
                                 .exit_code = shell->exit_code,
                                 .signal = shell->signal,
                                 .error = shell->error,
                                 .ends_session = true};

    session->is_over = true;
    process_write_end(&session->writer, false);
    process_unfollow(&session->shell);
    if (session->command != NULL)
        end_command(session, &result);
    uv_close((uv_handle_t *)&session->timer, on_handle_closed);
    uv_close((uv_handle_t *)&session->deferred, on_handle_closed);
}

static void on_timer(uv_timer_t *timer);

static void cut(struct session *session, enum exec_end why)
{
    if (session->is_cut)
        return;
    session->is_cut = true;
    session->cut = why;
    process_signal(session->shell.process, CHANNEL_SIGNAL_OTHERS, SIGKILL);
    uv_update_time(session->timer.loop);
    (void)uv_timer_start(&session->timer, on_timer, SESSION_GRACE_MS, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct session *session = timer->data;

    if (session->is_cut)
        process_kill_tree(session->shell.process);
    else
        cut(session, EXEC_TIMEOUT);
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
    struct session *session = sink->session;
    uint64_t room = session->output_bytes_max - session->output_bytes[0] - session->output_bytes[1];
    size_t taken = size < room ? size : (size_t)room;

    if (session->is_cut)
        return; /* as with any command that is being killed */
    if (session->first_output_ns == 0)
        session->first_output_ns = clock_mono_ns() - session->arrived_ns;
    session->output_bytes[sink->which] += taken;
    session->unconsumed += taken;
    if (taken > 0)
        process_feed_output(session->command, sink->which, data, taken);
    if (taken < size)
        cut(session, EXEC_OUTPUT_LIMIT);
}

/* The shell's report: "CODE DIRECTORY". Anything else comes of a shell that was tampered with. */
static void end_reported(struct session *session)
{
    struct exec_result result = {.end = EXEC_EXITED};
    const struct session_scan *scan = &session->scans[EXEC_STDOUT];
    char *end;
    unsigned long code = strtoul(scan->report, &end, 10);

    if (scan->is_too_long || *end != ' ' || code > 255) {
        result.end = EXEC_FAILED;
        (void)error_set(&result.error, ERR_INTERNAL, "the session's shell gave no exit code");
        (void)error_remedy(&result.error, "Remove the session's process and begin a new one.");
    } else {
        result.exit_code = (int32_t)code;
        result.cwd = session->command->cwd = strdup(end + 1); /* without memory it is not told */
    }
    end_command(session, &result);
}

/* Takes the shell's output while a command runs and those who follow it keep up. What comes between
 * two commands, of jobs in the background, is the next one's. */
static void pump(struct session *session)
{
    uint8_t data[PUMP_BYTES];
    enum exec_output which = EXEC_STDOUT;

    (void)process_missed(&session->shell); /* nothing was: the shell waits for us */
    while (!session->is_over && session->command != NULL &&
           session->unconsumed < PROCESS_RING_BYTES_MIN / 2) {
        size_t size = process_peek(&session->shell, data, sizeof(data), &which);
        struct sink sink = {.session = session, .which = which};

        if (size == 0)
            break;
        if (session_scan_done(&session->scans[which]))
            put_output(&sink, data, size); /* of a job, while the other marker is on its way */
        else
            size = session_scan_feed(&session->scans[which], data, size, put_output, &sink);
        process_take(&session->shell, size);
        if (session_scan_done(&session->scans[EXEC_STDOUT]) &&
            session_scan_done(&session->scans[EXEC_STDERR]))
            end_reported(session);
    }
}

static void advance(struct session *session)
{
    const struct process *shell = session->shell.process;

    if (session->command != NULL && session->command->state == PROCESS_STARTING && shell->pid != 0)
        process_feed_start(session->command, shell->pid);
    if (shell->state == PROCESS_ENDED && session->is_listed) {
        LIST_REMOVE(session, entry); /* the table may go before all output is taken */
        session->is_listed = false;
    }
    pump(session);
    if (!session->is_over && shell->state == PROCESS_ENDED &&
        (session->command == NULL || session->shell.offset == shell->ring.end))
        end_session(session);
}

static void on_shell_news(struct process_follower *follower)
{
    advance(follower->owner);
}

static void on_deferred(uv_timer_t *timer)
{
    advance(timer->data);
}

static void defer(struct session *session)
{
    if (!session->is_over)
        (void)uv_timer_start(&session->deferred, on_deferred, 0, 0);
}

/* --- the command's process, and its shell -------------------------------------------------------
 */

static void command_consume(void *context, enum exec_output which, size_t size)
{
    struct session *session = context;

    (void)which;
    session->unconsumed -= size;
    defer(session);
}

static void command_signal(void *context, enum channel_signal_scope scope, uint32_t signal_number)
{
    struct session *session = context;

    (void)scope; /* the shell shares the group, and is not meant */
    process_signal(session->shell.process, CHANNEL_SIGNAL_OTHERS, signal_number);
}

static void command_kill(void *context)
{
    cut(context, EXEC_SIGNALED);
}

static void send_input(struct session *session)
{
    if (session->writer.process == NULL || session->input.size == 0)
        return;
    buffer_consume(&session->input, process_write(&session->writer, buffer_bytes(&session->input),
                                                  session->input.size));
    if (session->input.size == 0)
        buffer_fini(&session->input); /* most sessions are idle most of the time */
}

static void on_shell_writable(struct process_writer *writer)
{
    send_input(writer->owner);
}

static void on_shell_closed(struct process_writer *writer)
{
    (void)writer; /* the follower hears of it as well */
}

int session_new(uv_loop_t *loop, struct process_table *t, const char *name, struct process *shell,
                struct session **ret_session, struct error *e)
{
    static const char preamble[] = "exec 8>&1 9>&2\n";
    struct session *session = calloc(1, sizeof(*session));

    if (session == NULL) {
        process_kill_tree(shell);
        return error_set(e, ERR_INTERNAL, "out of memory for a session");
    }
    session->input = (struct buffer)BUFFER_INIT(INPUT_BYTES_MAX);
    if (buffer_append(&session->input, preamble, sizeof(preamble) - 1) != 0 ||
        process_write_begin(shell, &session->writer, e) != 0) {
        buffer_fini(&session->input);
        free(session);
        process_kill_tree(shell);
        return error_set(e, ERR_INTERNAL, "out of memory for a session");
    }
    (void)snprintf(session->name, sizeof(session->name), "%s", name);
    (void)snprintf(shell->session, sizeof(shell->session), "%s", name);
    session->shell.owner = session->writer.owner = session;
    session->shell.on_news = on_shell_news;
    session->writer.on_writable = on_shell_writable;
    session->writer.on_closed = on_shell_closed;
    process_follow(shell, &session->shell, shell->ring.end);
    (void)uv_timer_init(loop, &session->timer);
    (void)uv_timer_init(loop, &session->deferred);
    session->timer.data = session->deferred.data = session;
    session->open_handles = 2;
    LIST_INSERT_HEAD(&t->sessions, session, entry);
    session->is_listed = true;
    send_input(session);
    *ret_session = session;
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
static int append_command(struct session *session, const char *text, const char *nonce)
{
    size_t before = session->input.size;

    if (buffer_append_text(&session->input, "command eval '") == 0 &&
        append_quoted(&session->input, text) == 0 &&
        buffer_printf(&session->input,
                      "' </dev/null 8>&- 9>&-\n"
                      "printf '\\036%s:%%s %%s\\036%s:' \"$?\" \"$PWD\" >&8; "
                      "printf '\\036%s:' >&9\n",
                      nonce, nonce, nonce) == 0)
        return 0;
    session->input.size = before; /* half a command would be worse than none */
    return -1;
}

static void make_nonce(char nonce[NONCE_BYTES])
{
    uint64_t random[2];

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        abort(); /* does not fail once the kernel's pool is up */
    (void)snprintf(nonce, NONCE_BYTES, "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
}

int session_run(struct session *session, const struct session_command *command,
                struct process **ret_process, struct error *e)
{
    static const struct process_source source = {
        .consume = command_consume, .signal = command_signal, .kill = command_kill};
    char nonce[NONCE_BYTES], marker[SESSION_MARKER_BYTES + 1];

    if (session->command != NULL) {
        (void)error_set(e, ERR_CONFLICT, "session %s is busy with another command", session->name);
        return error_remedy(e, "Wait for its end, or use another session.");
    }
    make_nonce(nonce);
    (void)snprintf(marker, sizeof(marker), "\036%s:", nonce);
    struct process *p = process_new(&source, session, PROCESS_RING_BYTES_MIN);
    if (p == NULL || append_command(session, command->text, nonce) != 0) {
        if (p != NULL)
            process_put(p);
        return error_set(e, ERR_INTERNAL, "out of memory for a command");
    }
    session_scan_begin(&session->scans[EXEC_STDOUT], marker, true);
    session_scan_begin(&session->scans[EXEC_STDERR], marker, false);
    session->command = p;
    session->unconsumed = 0;
    session->is_cut = false;
    memset(session->output_bytes, 0, sizeof(session->output_bytes));
    session->output_bytes_max = command->output_bytes_max;
    session->arrived_ns = command->arrived_ns;
    session->started_ns = clock_mono_ns();
    session->first_output_ns = 0;
    uv_update_time(session->timer.loop);
    if (command->timeout_ms > 0)
        (void)uv_timer_start(&session->timer, on_timer, command->timeout_ms, 0);
    send_input(session);
    defer(session);
    *ret_process = p;
    return 0;
}
