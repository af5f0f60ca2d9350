#include "guest/exec/command.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/fd.h"
#include "guest/exec/execgroup.h"
#include "guest/exec/terminal.h"

/* For descendants that still hold stdout or stderr when the main process has ended, such as the
 * tee of a `command > >(tee log)`. Where the guest's kernel is interpreted, ending takes long. */
#define GRACE_NS         (300 * NS_PER_MS)
#define KILLED_EXIT_CODE (128 + SIGKILL)
#define END_FIELDS_BYTES 40u

enum command_tag { TAG_STDIN, TAG_STDOUT, TAG_STDERR, TAG_GROUP };

struct command {
    struct child child;
    bool readable[CHILD_OUTPUTS];     /* a read is worth trying */
    bool writers_gone[CHILD_OUTPUTS]; /* what is in the pipe now is all that will come */
    bool stdin_watched;
    bool group_watched;
    struct buffer stdin_waiting; /* what the pipe had no room for */

    bool exited; /* the main process was reaped: the fields below are set */
    bool killed; /* everything left was killed, or found to be gone */
    bool empty;  /* no process is left */
    bool reset;
    int error; /* errno of a failure of ours on the way */
    int status;
    uint64_t user_us;
    uint64_t system_us;
    uint64_t max_rss_bytes;
    uint64_t ended_ns;
};

_Static_assert(sizeof(struct command) <= STREAM_STATE_BYTES, "an exec allocates nothing");

int commands_init(struct commands *commands, const char *cgroup_path, struct error *e)
{
    commands->grace_ns = GRACE_NS;
    return launcher_init(&commands->launcher, cgroup_path, e);
}

void commands_fini(struct commands *commands)
{
    launcher_fini(&commands->launcher);
}

void commands_tidy(struct commands *commands)
{
    execgroups_tidy(&commands->launcher.groups);
}

static uint64_t timeval_us(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

static void kill_all(struct stream *s)
{
    struct command *c = s->state;

    s->wake_at_ns = 0;
    c->killed = true;
    if (c->child.has_group)
        execgroup_kill(&c->child.group);
    else
        (void)kill(-c->child.pid, SIGKILL);
}

static bool is_empty(const struct command *c)
{
    return !c->child.has_group || execgroup_is_empty(&c->child.group);
}

/*
 * A shell reports a child's death by SIGKILL as an exit code; for the user that is the same end.
 * A reset kills by SIGKILL too, and is not mistaken for memory.
 */
static bool was_oom(const struct command *c)
{
    bool killed = WIFSIGNALED(c->status) ? WTERMSIG(c->status) == SIGKILL
                                         : WEXITSTATUS(c->status) == KILLED_EXIT_CODE;

    return killed && !c->reset && c->child.has_group && execgroup_oom_kills(&c->child.group) > 0;
}

static void finish(struct stream *s)
{
    struct command *c = s->state;
    uint8_t fields[END_FIELDS_BYTES];
    struct wire_writer w;
    bool signaled = WIFSIGNALED(c->status);
    uint32_t kind = signaled ? CHANNEL_EXEC_SIGNALED : CHANNEL_EXEC_EXITED;
    int code = signaled ? WTERMSIG(c->status) : WEXITSTATUS(c->status);

    if (c->error != 0) {
        stream_fail(s, c->error, "the agent itself: %s", strerror(c->error));
        return;
    }
    if (was_oom(c)) {
        kind = CHANNEL_EXEC_OOM;
        code = SIGKILL;
    }
    wire_writer_init(&w, fields, sizeof(fields));
    wire_put_u32(&w, kind);
    wire_put_u32(&w, (uint32_t)code);
    wire_put_u64(&w, (c->ended_ns - c->child.started_ns) / NS_PER_US);
    wire_put_u64(&w, c->user_us);
    wire_put_u64(&w, c->system_us);
    wire_put_u64(&w, c->max_rss_bytes);
    stream_end(s, fields, w.used);
}

/* Moves on towards END as far as the facts allow; may end the stream. */
static void advance(struct stream *s)
{
    struct command *c = s->state;
    bool drained = c->child.output_fds[0] < 0 && c->child.output_fds[1] < 0;

    if (!c->exited)
        return;
    if (!c->killed && drained) {
        /* Usually nobody is left. If somebody is, it holds none of our pipes: no grace for it. */
        c->empty = is_empty(c);
        if (c->empty)
            c->killed = true;
        else
            kill_all(s);
        s->wake_at_ns = 0;
    }
    if (c->killed && !c->empty) {
        c->empty = is_empty(c);
        if (!c->empty && !c->group_watched) {
            c->group_watched = true;
            if (stream_watch(s, TAG_GROUP, c->child.group.events_fd, EPOLLPRI) < 0)
                c->error = errno;
            c->empty = c->error != 0 || is_empty(c);
        }
    }
    if (!c->empty)
        return;
    /* A process of another command may hold the pipes open: what is in them now is all. */
    for (unsigned i = 0; i < CHILD_OUTPUTS; i++)
        c->readable[i] = c->writers_gone[i] = true;
    if (drained)
        finish(s);
}

static bool handle_child(struct stream *s, pid_t pid, int status, const struct rusage *usage)
{
    const struct commands *commands = s->shared;
    struct command *c = s->state;

    if (c->child.pid != pid || c->exited)
        return false;
    c->exited = true;
    c->readable[0] |= c->child.is_terminal; /* it may be at its end now (is_pause) */
    c->status = status;
    c->ended_ns = clock_mono_ns();
    c->user_us = timeval_us(usage->ru_utime);
    c->system_us = timeval_us(usage->ru_stime);
    c->max_rss_bytes = (uint64_t)usage->ru_maxrss * KIB;
    if (!c->killed)
        s->wake_at_ns = c->ended_ns + commands->grace_ns;
    advance(s);
    return true;
}

/* The grace is over. */
static void handle_wake(struct stream *s)
{
    kill_all(s);
    advance(s);
}

static void close_stdin(struct stream *s)
{
    struct command *c = s->state;
    size_t dropped = c->stdin_waiting.size;

    fd_close(&c->child.stdin_fd);
    buffer_fini(&c->stdin_waiting);
    if (dropped > 0)
        stream_receive_done(s, dropped);
}

/* Writes to stdin what its pipe takes; returns how much, and closes it when the reader is gone. */
static size_t feed_stdin(struct stream *s, const uint8_t *bytes, size_t size)
{
    struct command *c = s->state;
    size_t done = 0;

    while (done < size) {
        ssize_t n = write(c->child.stdin_fd, bytes + done, size - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EIO && c->child.is_terminal)
            return size; /* typed while nobody has the terminal open */
        if (n < 0 && errno != EAGAIN)
            close_stdin(s);
        if (n < 0)
            break;
        done += (size_t)n;
    }
    return done;
}

static void take_input(struct stream *s, const uint8_t *bytes, size_t size)
{
    struct command *c = s->state;
    size_t done = 0;

    if (c->child.stdin_fd >= 0 && c->stdin_waiting.size == 0)
        done = feed_stdin(s, bytes, size);
    if (c->child.stdin_fd < 0) {
        /* Nobody reads it: it is taken and dropped, as it would be by a closed pipe. */
        stream_receive_done(s, size);
        return;
    }
    stream_receive_done(s, done);
    if (done == size)
        return;
    int result = buffer_append(&c->stdin_waiting, bytes + done, size - done);
    if (result == 0 && !c->stdin_watched) {
        c->stdin_watched = true;
        result = stream_watch(s, TAG_STDIN, c->child.stdin_fd, EPOLLOUT | EPOLLET);
    }
    if (result < 0) {
        c->error = ENOMEM;
        kill_all(s);
        close_stdin(s);
    }
}

static int handle_data(struct stream *s, const uint8_t *bytes, size_t size)
{
    const struct command *c = s->state;

    if (!c->child.takes_stdin)
        return -1;
    take_input(s, bytes, size);
    return 0;
}

/* Nobody can be told by a terminal that its other end was closed for writing: the key is typed that
 * means the end of input, as whoever sits at a terminal does. */
static void type_eof(struct stream *s)
{
    const struct command *c = s->state;
    int key = c->child.stdin_fd >= 0 ? terminal_eof_key(c->child.stdin_fd) : -1;
    const uint8_t byte = (uint8_t)key;

    if (key >= 0)
        take_input(s, &byte, 1);
}

static int handle_eof(struct stream *s)
{
    const struct command *c = s->state;

    if (c->child.is_terminal)
        type_eof(s);
    if (c->child.stdin_fd >= 0 && c->stdin_waiting.size == 0)
        close_stdin(s);
    return 0;
}

static void flush_stdin(struct stream *s)
{
    struct command *c = s->state;

    if (c->child.stdin_fd < 0 || c->stdin_waiting.size == 0)
        return;
    size_t done = feed_stdin(s, buffer_bytes(&c->stdin_waiting), c->stdin_waiting.size);
    if (c->child.stdin_fd < 0)
        return;
    buffer_consume(&c->stdin_waiting, done);
    stream_receive_done(s, done);
    if (c->stdin_waiting.size == 0 && s->receive_eof)
        close_stdin(s);
}

static void handle_event(struct stream *s, unsigned tag, uint32_t events)
{
    struct command *c = s->state;

    if (tag == TAG_STDIN) {
        flush_stdin(s);
    } else if (tag == TAG_GROUP) {
        advance(s);
    } else {
        unsigned i = tag == TAG_STDOUT ? 0 : 1;
        c->readable[i] = true;
        if ((events & (EPOLLHUP | EPOLLERR)) && !c->child.is_terminal)
            c->writers_gone[i] = true;
    }
}

/* A terminal that nobody has open (EIO) may be opened again as long as its command runs. */
static bool is_pause(const struct command *c, int error)
{
    return error == EAGAIN || (error == EIO && c->child.is_terminal && !c->exited);
}

/*
 * One DATA frame of an output, or its EOF. The descriptor is edge-triggered: after a read that got
 * less than it asked for, the next byte of a pipe makes an event; a terminal gives what its driver
 * has in one piece, and may have more. Returns true where more can follow at once.
 */
static bool pump_output(struct stream *s, unsigned i)
{
    struct command *c = s->state;
    enum channel_lane lane = i == 0 ? CHANNEL_LANE_OUT : CHANNEL_LANE_ERR;
    size_t size;

    if (c->child.output_fds[i] < 0 || !c->readable[i])
        return false;
    /* Without credit its end cannot be told from its pause: a CREDIT frame brings us here again. */
    uint8_t *to = stream_data_begin(s, lane, CHANNEL_PAYLOAD_MAX, &size);
    if (to == NULL)
        return false;
    ssize_t n = read(c->child.output_fds[i], to, size);
    if (n < 0 && errno == EINTR)
        return true;
    if (n > 0) {
        stream_data_end(s, lane, (size_t)n);
        if (c->child.is_terminal)
            return true;
        c->readable[i] = (size_t)n == size || c->writers_gone[i];
        if ((size_t)n == size || !c->writers_gone[i])
            return c->readable[i];
    }
    if (n < 0 && is_pause(c, errno) && !c->writers_gone[i]) {
        c->readable[i] = false;
        return false;
    }
    fd_close(&c->child.output_fds[i]);
    stream_eof(s, lane);
    return false;
}

static bool handle_pump(struct stream *s)
{
    struct command *c = s->state;
    bool open_before = c->child.output_fds[0] >= 0 || c->child.output_fds[1] >= 0;
    bool more = pump_output(s, 0);

    more = pump_output(s, 1) || more;
    if (open_before && c->child.output_fds[0] < 0 && c->child.output_fds[1] < 0)
        advance(s);
    return more;
}

static void handle_signal(struct stream *s, enum channel_signal_scope scope, uint32_t number)
{
    struct command *c = s->state;

    if (c->exited || number == 0 || number >= (uint32_t)_NSIG)
        return;
    if (scope == CHANNEL_SIGNAL_GROUP)
        (void)kill(-c->child.pid, (int)number);
    else if (scope == CHANNEL_SIGNAL_OTHERS && c->child.has_group)
        execgroup_signal_others(&c->child.group, c->child.pid, (int)number);
}

static int handle_resize(struct stream *s, uint16_t rows, uint16_t columns)
{
    struct command *c = s->state;

    if (!c->child.is_terminal)
        return -1;
    if (c->child.output_fds[0] >= 0)
        terminal_resize(c->child.output_fds[0], rows, columns);
    return 0;
}

static void handle_reset(struct stream *s)
{
    struct command *c = s->state;

    c->reset = true;
    s->receive_eof = true;
    kill_all(s); /* before the ends of pipes or of a terminal say something to it */
    close_stdin(s);
    child_close(&c->child);
    advance(s);
}

static int watch_outputs(struct stream *s)
{
    static const enum command_tag tags[CHILD_OUTPUTS] = {TAG_STDOUT, TAG_STDERR};
    const struct command *c = s->state;

    for (unsigned i = 0; i < CHILD_OUTPUTS; i++) {
        if (c->child.output_fds[i] >= 0 &&
            stream_watch(s, tags[i], c->child.output_fds[i], EPOLLIN | EPOLLET) < 0)
            return -1;
    }
    return 0;
}

static int handle_start(struct stream *s, struct wire_reader *reader)
{
    struct commands *commands = s->shared;
    struct command *c = s->state;
    struct launch_failure failure;
    uint8_t bytes[4];
    struct wire_writer w;

    /* A window and an end-of-file key. */
    c->stdin_waiting = (struct buffer)BUFFER_INIT(CHANNEL_WINDOW_BYTES + 1);
    int result = launch(&commands->launcher, reader, &c->child, &failure);
    if (result < 0)
        return -1;
    if (result > 0) {
        stream_fail(s, failure.status, "%s", failure.text);
        return 0;
    }
    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u32(&w, (uint32_t)c->child.pid);
    stream_info(s, bytes, sizeof(bytes));
    if (c->child.is_terminal)
        stream_eof(s, CHANNEL_LANE_ERR);
    if (watch_outputs(s) < 0) {
        c->error = errno;
        kill_all(s);
        child_close(&c->child);
    }
    return 0;
}

static void handle_fini(struct stream *s)
{
    struct commands *commands = s->shared;
    struct command *c = s->state;

    child_close(&c->child);
    buffer_fini(&c->stdin_waiting);
    if (c->group_watched)
        stream_unwatch(s, c->child.group.events_fd);
    if (c->child.pid > 0 && !c->exited) {
        /* The service ends before the command. */
        kill_all(s);
        (void)waitpid(c->child.pid, NULL, 0);
        if (c->child.has_group)
            execgroups_drop(&commands->launcher.groups, &c->child.group);
    } else if (c->child.has_group) {
        execgroups_put(&commands->launcher.groups, &c->child.group);
    }
    c->child.has_group = false;
}

const struct stream_op command_op = {
    .op = CHANNEL_OP_EXEC,
    .state_bytes = sizeof(struct command),
    .start = handle_start,
    .data = handle_data,
    .eof = handle_eof,
    .signal = handle_signal,
    .resize = handle_resize,
    .reset = handle_reset,
    .pump = handle_pump,
    .event = handle_event,
    .wake = handle_wake,
    .child = handle_child,
    .fini = handle_fini,
};
