#include "guest/exec/command.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "guest/channel/service.h"
#include "guest/exec/command_start.h"
#include "guest/exec/terminal.h"

/* For descendants that still hold stdout or stderr when the main process has ended, such as the
 * tee of a `command > >(tee log)`. Where the guest's kernel is interpreted, ending takes long. */
#define GRACE_NS         (300 * NS_PER_MS)
#define KILLED_EXIT_CODE (128 + SIGKILL)
#define END_FIELDS_BYTES 40u

static uint64_t timeval_us(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

static void kill_all(struct command *c)
{
    c->kill_at_ns = 0;
    c->killed = true;
    if (c->has_group)
        execgroup_kill(&c->group);
    else
        (void)kill(-c->pid, SIGKILL);
}

static bool is_empty(const struct command *c)
{
    return !c->has_group || execgroup_is_empty(&c->group);
}

/*
 * A shell reports a child's death by SIGKILL as an exit code; for the user that is the same end.
 * A reset kills by SIGKILL too, and is not mistaken for memory.
 */
static bool was_oom(const struct command *c)
{
    bool killed = WIFSIGNALED(c->status) ? WTERMSIG(c->status) == SIGKILL
                                         : WEXITSTATUS(c->status) == KILLED_EXIT_CODE;

    return killed && !c->reset && c->has_group && execgroup_oom_kills(&c->group) > 0;
}

static void finish(struct service *v, struct stream *s)
{
    struct command *c = &s->command;
    uint8_t fields[END_FIELDS_BYTES];
    struct wire_writer w;
    bool signaled = WIFSIGNALED(c->status);
    uint32_t kind = signaled ? CHANNEL_EXEC_SIGNALED : CHANNEL_EXEC_EXITED;
    int code = signaled ? WTERMSIG(c->status) : WEXITSTATUS(c->status);

    if (c->error != 0) {
        stream_fail(v, s, c->error, "the agent itself: %s", strerror(c->error));
        return;
    }
    if (was_oom(c)) {
        kind = CHANNEL_EXEC_OOM;
        code = SIGKILL;
    }
    wire_writer_init(&w, fields, sizeof(fields));
    wire_put_u32(&w, kind);
    wire_put_u32(&w, (uint32_t)code);
    wire_put_u64(&w, (c->ended_ns - c->started_ns) / NS_PER_US);
    wire_put_u64(&w, c->user_us);
    wire_put_u64(&w, c->system_us);
    wire_put_u64(&w, c->max_rss_bytes);
    stream_end(v, s, fields, w.used);
}

/* Moves on towards END as far as the facts allow; may end the stream. */
static void advance(struct service *v, struct stream *s)
{
    struct command *c = &s->command;
    bool drained = c->output_fds[0] < 0 && c->output_fds[1] < 0;

    if (!c->exited)
        return;
    if (!c->killed && drained) {
        /* Usually nobody is left. If somebody is, it holds none of our pipes: no grace for it. */
        c->empty = is_empty(c);
        if (c->empty)
            c->killed = true;
        else
            kill_all(c);
        c->kill_at_ns = 0;
    }
    if (c->killed && !c->empty) {
        c->empty = is_empty(c);
        if (!c->empty && !c->group_watched) {
            c->group_watched = true;
            if (service_watch(v, s->id, SERVICE_TAG_GROUP, c->group.events_fd, EPOLLPRI) < 0)
                c->error = errno;
            c->empty = c->error != 0 || is_empty(c);
        }
    }
    if (!c->empty)
        return;
    /* A process of another command may hold the pipes open: what is in them now is all. */
    for (unsigned i = 0; i < COMMAND_OUTPUTS; i++)
        c->readable[i] = c->writers_gone[i] = true;
    if (drained)
        finish(v, s);
}

void command_exited(struct service *v, struct stream *s, int status, const struct rusage *usage)
{
    struct command *c = &s->command;

    c->exited = true;
    c->readable[0] |= c->is_terminal; /* it may be at its end now (is_pause) */
    c->status = status;
    c->ended_ns = clock_mono_ns();
    c->user_us = timeval_us(usage->ru_utime);
    c->system_us = timeval_us(usage->ru_stime);
    c->max_rss_bytes = (uint64_t)usage->ru_maxrss * KIB;
    if (!c->killed)
        c->kill_at_ns = c->ended_ns + GRACE_NS;
    advance(v, s);
}

void command_grace_over(struct service *v, struct stream *s)
{
    kill_all(&s->command);
    advance(v, s);
}

static void close_stdin(struct service *v, struct stream *s)
{
    struct command *c = &s->command;
    size_t dropped = c->stdin_waiting.size;

    fd_close(&c->stdin_fd);
    buffer_fini(&c->stdin_waiting);
    if (dropped > 0)
        stream_receive_done(v, s, dropped);
}

/* Writes to stdin what its pipe takes; returns how much, and closes it when the reader is gone. */
static size_t feed_stdin(struct service *v, struct stream *s, const uint8_t *bytes, size_t size)
{
    struct command *c = &s->command;
    size_t done = 0;

    while (done < size) {
        ssize_t n = write(c->stdin_fd, bytes + done, size - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EIO && c->is_terminal)
            return size; /* typed while nobody has the terminal open */
        if (n < 0 && errno != EAGAIN)
            close_stdin(v, s);
        if (n < 0)
            break;
        done += (size_t)n;
    }
    return done;
}

static void take_input(struct service *v, struct stream *s, const uint8_t *bytes, size_t size)
{
    struct command *c = &s->command;
    size_t done = 0;

    if (c->stdin_fd >= 0 && c->stdin_waiting.size == 0)
        done = feed_stdin(v, s, bytes, size);
    if (c->stdin_fd < 0) {
        /* Nobody reads it: it is taken and dropped, as it would be by a closed pipe. */
        stream_receive_done(v, s, size);
        return;
    }
    stream_receive_done(v, s, done);
    if (done == size)
        return;
    int result = buffer_append(&c->stdin_waiting, bytes + done, size - done);
    if (result == 0 && !c->stdin_watched) {
        c->stdin_watched = true;
        result = service_watch(v, s->id, SERVICE_TAG_STDIN, c->stdin_fd, EPOLLOUT | EPOLLET);
    }
    if (result < 0) {
        c->error = ENOMEM;
        kill_all(c);
        close_stdin(v, s);
    }
}

static int handle_data(struct service *v, struct stream *s, const uint8_t *bytes, size_t size)
{
    if (!s->command.takes_stdin)
        return -1;
    take_input(v, s, bytes, size);
    return 0;
}

/* Nobody can be told by a terminal that its other end was closed for writing: the key is typed that
 * means the end of input, as whoever sits at a terminal does. */
static void type_eof(struct service *v, struct stream *s)
{
    int key = s->command.stdin_fd >= 0 ? terminal_eof_key(s->command.stdin_fd) : -1;
    const uint8_t byte = (uint8_t)key;

    if (key >= 0)
        take_input(v, s, &byte, 1);
}

static int handle_eof(struct service *v, struct stream *s)
{
    if (s->command.is_terminal)
        type_eof(v, s);
    if (s->command.stdin_fd >= 0 && s->command.stdin_waiting.size == 0)
        close_stdin(v, s);
    return 0;
}

static void flush_stdin(struct service *v, struct stream *s)
{
    struct command *c = &s->command;

    if (c->stdin_fd < 0 || c->stdin_waiting.size == 0)
        return;
    size_t done = feed_stdin(v, s, buffer_bytes(&c->stdin_waiting), c->stdin_waiting.size);
    if (c->stdin_fd < 0)
        return;
    buffer_consume(&c->stdin_waiting, done);
    stream_receive_done(v, s, done);
    if (c->stdin_waiting.size == 0 && s->receive_eof)
        close_stdin(v, s);
}

void command_event(struct service *v, struct stream *s, enum service_tag tag, uint32_t events)
{
    struct command *c = &s->command;

    if (tag == SERVICE_TAG_STDIN) {
        flush_stdin(v, s);
    } else if (tag == SERVICE_TAG_GROUP) {
        advance(v, s);
    } else {
        unsigned i = tag == SERVICE_TAG_STDOUT ? 0 : 1;
        c->readable[i] = true;
        if ((events & (EPOLLHUP | EPOLLERR)) && !c->is_terminal)
            c->writers_gone[i] = true;
    }
}

/* A terminal that nobody has open (EIO) may be opened again as long as its command runs. */
static bool is_pause(const struct command *c, int error)
{
    return error == EAGAIN || (error == EIO && c->is_terminal && !c->exited);
}

/*
 * One DATA frame of an output, or its EOF. The descriptor is edge-triggered: after a read that got
 * less than it asked for, the next byte of a pipe makes an event; a terminal gives what its driver
 * has in one piece, and may have more. Returns true where more can follow at once.
 */
static bool pump_output(struct service *v, struct stream *s, unsigned i)
{
    struct command *c = &s->command;
    enum channel_lane lane = i == 0 ? CHANNEL_LANE_OUT : CHANNEL_LANE_ERR;
    size_t size = stream_send_room(s, lane, CHANNEL_PAYLOAD_MAX);

    /* Without credit its end cannot be told from its pause: a CREDIT frame brings us here again. */
    if (c->output_fds[i] < 0 || !c->readable[i] || size == 0 || !port_has_room(&v->port))
        return false;
    uint8_t *to = port_data_begin(&v->port, size);
    ssize_t n = read(c->output_fds[i], to, size);
    if (n < 0 && errno == EINTR)
        return true;
    if (n > 0) {
        port_data_end(&v->port, s->id, lane, (size_t)n);
        s->send_credit[lane] -= (uint64_t)n;
        if (c->is_terminal)
            return true;
        c->readable[i] = (size_t)n == size || c->writers_gone[i];
        if ((size_t)n == size || !c->writers_gone[i])
            return c->readable[i];
    }
    if (n < 0 && is_pause(c, errno) && !c->writers_gone[i]) {
        c->readable[i] = false;
        return false;
    }
    fd_close(&c->output_fds[i]);
    port_put(&v->port, s->id, CHANNEL_EOF, lane, NULL, 0);
    return false;
}

static bool handle_pump(struct service *v, struct stream *s)
{
    struct command *c = &s->command;
    bool open_before = c->output_fds[0] >= 0 || c->output_fds[1] >= 0;
    bool more = pump_output(v, s, 0);

    more = pump_output(v, s, 1) || more;
    if (open_before && c->output_fds[0] < 0 && c->output_fds[1] < 0)
        advance(v, s);
    return more;
}

static void handle_signal(struct service *v, struct stream *s, enum channel_signal_scope scope,
                          uint32_t number)
{
    struct command *c = &s->command;

    (void)v;
    if (c->exited || number == 0 || number >= (uint32_t)_NSIG)
        return;
    if (scope == CHANNEL_SIGNAL_GROUP)
        (void)kill(-c->pid, (int)number);
    else if (scope == CHANNEL_SIGNAL_OTHERS && c->has_group)
        execgroup_signal_others(&c->group, c->pid, (int)number);
}

static int handle_resize(struct stream *s, uint16_t rows, uint16_t columns)
{
    struct command *c = &s->command;

    if (!c->is_terminal)
        return -1;
    if (c->output_fds[0] >= 0)
        terminal_resize(c->output_fds[0], rows, columns);
    return 0;
}

static void handle_reset(struct service *v, struct stream *s)
{
    struct command *c = &s->command;

    c->reset = true;
    s->receive_eof = true;
    kill_all(c); /* before the ends of pipes or of a terminal say something to it */
    close_stdin(v, s);
    for (unsigned i = 0; i < COMMAND_OUTPUTS; i++)
        fd_close(&c->output_fds[i]);
    advance(v, s);
}

static void command_fini(struct service *v, struct stream *s)
{
    struct command *c = &s->command;

    fd_close(&c->stdin_fd);
    buffer_fini(&c->stdin_waiting);
    for (unsigned i = 0; i < COMMAND_OUTPUTS; i++)
        fd_close(&c->output_fds[i]);
    if (c->group_watched)
        (void)epoll_ctl(v->epoll_fd, EPOLL_CTL_DEL, c->group.events_fd, NULL);
    if (c->pid > 0 && !c->exited) {
        /* The service ends before the command. */
        kill_all(c);
        (void)waitpid(c->pid, NULL, 0);
        if (c->has_group)
            execgroups_drop(&v->groups, &c->group);
    } else if (c->has_group) {
        execgroups_put(&v->groups, &c->group);
    }
    c->has_group = false;
}

const struct stream_op command_op = {
    .op = CHANNEL_OP_EXEC,
    .start = command_start,
    .data = handle_data,
    .eof = handle_eof,
    .signal = handle_signal,
    .resize = handle_resize,
    .reset = handle_reset,
    .pump = handle_pump,
    .fini = command_fini,
};
