#include "daemon/server/connection.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cloche/limits.h"

/* A client that reads as fast as we write must not keep the loop from the others. */
#define SENDS_PER_TURN 16u

static void on_handle_closed(uv_handle_t *handle)
{
    struct connection *c = handle->data;

    assert(c->handles > 0);
    if (--c->handles == 0 && c->closed)
        c->owner->on_closed(c);
}

void connection_cut(struct connection *c)
{
    if (c->fd < 0)
        return;
    uv_close((uv_handle_t *)&c->poll, on_handle_closed);
    fd_close(&c->fd);
    buffer_fini(&c->in);
    buffer_fini(&c->out);
    buffer_fini(&c->whole);
}

void connection_close(struct connection *c)
{
    assert(!c->closed);
    c->closed = true;
    connection_cut(c);
    uv_close((uv_handle_t *)&c->timer, on_handle_closed);
}

/* Both directions closed, or an error on the socket. A client that only shut its sending side down
 * does not count: on a Unix socket that is no hangup. */
static bool is_hung_up(const struct connection *c)
{
    struct pollfd p = {.fd = c->fd};

    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

static void receive(struct connection *c)
{
    size_t room = buffer_room(&c->in);
    size_t want = c->read_max < room ? c->read_max : room;

    if (want == 0 || c->eof)
        return;
    uint8_t *to = buffer_reserve(&c->in, want);
    if (to == NULL) {
        c->broken = true;
        return;
    }
    ssize_t size = recv(c->fd, to, want, MSG_DONTWAIT);
    if (size > 0) {
        c->read_ns = clock_mono_ns();
        c->read_at_ms = uv_now(c->loop);
        buffer_commit(&c->in, (size_t)size);
    } else if (size == 0) {
        c->eof = true;
        c->broken = is_hung_up(c);
    } else if (errno != EAGAIN && errno != EINTR) {
        c->broken = true;
    }
}

/* A byte out of band is nothing of HTTP, and would wake the loop until it is read: with `in` full
 * that may be never. */
static void drop_urgent(struct connection *c)
{
    uint8_t byte;

    (void)!recv(c->fd, &byte, sizeof(byte), MSG_OOB | MSG_DONTWAIT);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct connection *c = poll->data;

    if (status < 0) {
        c->broken = true;
    } else {
        if ((events & UV_READABLE) != 0)
            receive(c);
        if ((events & UV_DISCONNECT) != 0)
            c->half_closed = true;
        if ((events & UV_PRIORITIZED) != 0)
            drop_urgent(c);
        if ((events & (UV_DISCONNECT | UV_PRIORITIZED)) != 0)
            c->broken |= is_hung_up(c);
    }
    connection_advance(c);
}

static void on_timer(uv_timer_t *timer)
{
    struct connection *c = timer->data;

    if (!c->kicked)
        c->timed_out = true;
    connection_advance(c);
}

void connection_kick(struct connection *c)
{
    if (c->advancing || c->kicked || c->closed)
        return;
    c->kicked = true;
    (void)uv_timer_start(&c->timer, on_timer, 0, 0);
}

void connection_break(struct connection *c)
{
    c->broken = true;
    connection_kick(c);
}

struct buffer *connection_out(struct connection *c)
{
    if (connection_queued(c) == 0)
        c->sent_at_ms = uv_now(c->loop);
    return &c->out;
}

size_t connection_queued(const struct connection *c)
{
    return c->out.size + c->whole.size;
}

static void consume_sent(struct connection *c, size_t size)
{
    size_t of_out = size < c->out.size ? size : c->out.size;

    buffer_consume(&c->out, of_out);
    buffer_consume(&c->whole, size - of_out);
    if (c->whole.size == 0)
        buffer_fini(&c->whole);
}

static struct iovec piece_of(const struct buffer *b)
{
    return (struct iovec){b->size > 0 ? buffer_bytes(b) : NULL, b->size};
}

void connection_flush(struct connection *c)
{
    for (unsigned i = 0; i < SENDS_PER_TURN && connection_queued(c) > 0; i++) {
        struct iovec pieces[2] = {piece_of(&c->out), piece_of(&c->whole)};
        struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};

        if (c->broken || c->fd < 0)
            return;
        ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno != EAGAIN && errno != EINTR)
                connection_break(c);
            return;
        }
        c->sent_at_ms = uv_now(c->loop);
        consume_sent(c, (size_t)sent);
    }
}

/* What the descriptor is watched for. The kernel reports a hangup always, but libuv watches for
 * nothing where nothing is asked for, and hands a hangup on as what was: as UV_PRIORITIZED, which
 * else stands for a byte out of band. */
static int wanted_events(const struct connection *c)
{
    int events = UV_PRIORITIZED;

    if (!c->eof && buffer_room(&c->in) > 0)
        events |= UV_READABLE;
    else if (!c->eof && !c->half_closed)
        events |= UV_DISCONNECT;
    if (connection_queued(c) > 0)
        events |= UV_WRITABLE;
    return events;
}

static void set_waits(struct connection *c)
{
    uint64_t deadline_ms = c->owner->deadline_ms(c);
    uint64_t now_ms = uv_now(c->loop);

    if (c->in.size == 0 && c->in.capacity > c->read_max)
        buffer_fini(&c->in);
    if (c->out.size == 0 && c->out.capacity > HTTP_REPLY_QUEUE_LOW)
        buffer_fini(&c->out);
    if (c->fd >= 0 && wanted_events(c) != c->events) {
        c->events = wanted_events(c);
        int result = uv_poll_start(&c->poll, c->events, on_poll);
        assert(result == 0);
    }
    if (deadline_ms == 0)
        (void)uv_timer_stop(&c->timer);
    else
        (void)uv_timer_start(&c->timer, on_timer, deadline_ms > now_ms ? deadline_ms - now_ms : 0,
                             0);
}

void connection_advance(struct connection *c)
{
    if (c->closed)
        return;
    assert(!c->advancing);
    c->kicked = false;
    c->advancing = true;
    do {
        connection_flush(c);
    } while (c->owner->step(c));
    c->advancing = false;
    if (!c->closed)
        set_waits(c);
}

void connection_body_begin(struct connection *c, const struct http_head *head)
{
    c->framing = head->framing;
    c->body_left = head->framing == HTTP_BODY_LENGTH ? head->content_length : 0;
    c->body_done = head->framing != HTTP_BODY_CHUNKED && c->body_left == 0;
    c->body_bad = false;
    http_chunked_init(&c->chunked);
}

enum http_result connection_body_next(struct connection *c, struct http_span *ret_piece,
                                      size_t *ret_used, struct error *e)
{
    const char *data = c->in.size > 0 ? (const char *)buffer_bytes(&c->in) : "";

    if (c->framing == HTTP_BODY_CHUNKED)
        return http_chunked_decode(&c->chunked, data, c->in.size, ret_used, ret_piece, e);
    if (c->framing == HTTP_BODY_UNTIL_CLOSE) {
        *ret_used = c->in.size < HTTP_UPGRADED_PIECE ? c->in.size : HTTP_UPGRADED_PIECE;
        *ret_piece = (struct http_span){data, *ret_used};
        return c->eof && *ret_used == c->in.size ? HTTP_DONE : HTTP_MORE;
    }
    size_t size = c->in.size < c->body_left ? c->in.size : (size_t)c->body_left;
    *ret_piece = (struct http_span){data, size};
    *ret_used = size;
    c->body_left -= size;
    return c->body_left == 0 ? HTTP_DONE : HTTP_MORE;
}

int connection_open(struct connection *c, const struct connection_owner *owner, uv_loop_t *loop,
                    int fd)
{
    *c = (struct connection){.owner = owner, .loop = loop, .fd = fd};
    if (uv_poll_init(loop, &c->poll, fd) != 0) {
        fd_close(&c->fd);
        return -1;
    }
    c->in.size_max = HTTP_INPUT_BYTES_MAX;
    c->out.size_max = HTTP_REPLY_QUEUE_MAX + 2 * HTTP_HEAD_BYTES_MAX;
    c->read_max = CONNECTION_READ_HEAD;
    (void)uv_timer_init(loop, &c->timer);
    c->poll.data = c;
    c->timer.data = c;
    c->handles = 2;
    set_waits(c);
    return 0;
}
