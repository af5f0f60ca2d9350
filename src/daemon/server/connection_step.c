/* The steps of a connection's phases, and how long each may wait. */
#include <assert.h>
#include <string.h>
#include <sys/socket.h>

#include "cloche/limits.h"
#include "daemon/server/connection.h"
#include "daemon/server/exchange_private.h"
#include "daemon/server/server_private.h"

_Static_assert(HTTP_INPUT_BYTES_MAX >= HTTP_HEAD_BYTES_MAX, "a head must fit into the input");

static void enter(struct connection *c, enum connection_phase phase)
{
    c->phase = phase;
    c->phase_since_ms = uv_now(c->server->options.loop);
    c->timed_out = false;
}

static void begin_linger(struct connection *c)
{
    if (c->eof) {
        connection_close(c);
        return;
    }
    (void)shutdown(c->fd, SHUT_WR);
    enter(c, CONNECTION_LINGER);
}

/* Replies with an error to a request that could not be read, and hangs up after that. */
static bool refuse(struct connection *c, const struct error *e)
{
    struct exchange *x = exchange_new(c, NULL, NULL);

    if (x == NULL) {
        connection_close(c);
        return false;
    }
    c->exchange = x;
    c->body_done = true;
    c->body_bad = true;
    enter(c, CONNECTION_EXCHANGE);
    exchange_reply_error(x, e);
    return true;
}

static bool begin_exchange(struct connection *c, const struct http_head *head)
{
    struct exchange *x = exchange_new(c, head, (const char *)buffer_bytes(&c->in));

    if (x == NULL) {
        connection_close(c);
        return false;
    }
    buffer_consume(&c->in, head->size);
    c->scanned = 0;
    c->framing = head->framing;
    c->body_left = head->framing == HTTP_BODY_LENGTH ? head->content_length : 0;
    c->body_done = head->framing != HTTP_BODY_CHUNKED && c->body_left == 0;
    c->body_bad = false;
    c->close_after = false;
    http_chunked_init(&c->chunked);
    c->exchange = x;
    enter(c, CONNECTION_EXCHANGE);
    exchange_dispatch(x);
    return true;
}

static bool step_head(struct connection *c)
{
    struct http_head head;
    struct error e = ERROR_INIT;

    bool late = c->timed_out;
    c->timed_out = false;
    if (c->broken || c->server->stopping || (c->in.size == 0 && (c->eof || late))) {
        connection_close(c);
        return false;
    }
    if (c->in.size == 0)
        return false;
    switch (http_request_parse((const char *)buffer_bytes(&c->in), c->in.size, &c->scanned, &head,
                               &e)) {
    case HTTP_DONE:
        return begin_exchange(c, &head);
    case HTTP_BAD:
        return refuse(c, &e);
    case HTTP_MORE:
        break;
    }
    if (c->eof) {
        error_set(&e, ERR_BAD_REQUEST, "the request ended within its head");
        return refuse(c, &e);
    }
    if (late) {
        error_set(&e, ERR_REQUEST_TIMEOUT, "the head of the request did not come within %u ms",
                  c->server->options.head_timeout_ms);
        return refuse(c, &e);
    }
    return false;
}

/* The reply is on its way to the client, or the client is gone. */
static bool end_exchange(struct connection *c)
{
    struct exchange *x = c->exchange;

    if (x->on_close != NULL)
        x->on_close(x);
    c->exchange = NULL;
    exchange_free(x);
    if (c->fd < 0) {
        connection_close(c);
    } else if (c->body_bad || (c->close_after && !c->body_done)) {
        begin_linger(c);
    } else if (c->close_after || c->server->stopping) {
        connection_close(c);
    } else {
        c->skipped_bytes = 0;
        enter(c, c->body_done ? CONNECTION_HEAD : CONNECTION_SKIP);
    }
    return c->phase != CONNECTION_CLOSED;
}

/* A wait of the exchange has taken too long: for the body, or for the client to read. */
static void step_exchange_late(struct connection *c)
{
    uint64_t now_ms = uv_now(c->server->options.loop);
    uint32_t stall_ms = c->server->options.stall_timeout_ms;
    struct error e = ERROR_INIT;

    c->timed_out = false;
    uint64_t deadline_ms = exchange_deadline_ms(c->exchange);

    if (connection_queued(c) > 0 && now_ms >= c->sent_at_ms + stall_ms) {
        c->broken = true;
    } else if (deadline_ms != 0 && now_ms >= deadline_ms) {
        exchange_expire(c->exchange);
    } else if (exchange_body_wanted(c->exchange) && now_ms >= c->read_at_ms + stall_ms) {
        error_set(&e, ERR_REQUEST_TIMEOUT, "no more of the request's body came within %u ms",
                  stall_ms);
        c->body_bad = true;
        exchange_body_fail(c->exchange, &e);
    }
}

static bool step_exchange(struct connection *c)
{
    struct exchange *x = c->exchange;

    if (c->timed_out)
        step_exchange_late(c);
    if (c->broken && c->fd >= 0) {
        connection_cut(c);
        exchange_tell_gone(x);
    }
    if (x->finished && connection_queued(c) == 0)
        return end_exchange(c);
    if (exchange_body_step(x))
        return true;
    if (x->drain_wanted && connection_queued(c) <= HTTP_REPLY_QUEUE_LOW && !x->finished &&
        c->fd >= 0) {
        x->drain_wanted = false;
        x->on_drain(x);
        return true;
    }
    /* A callback may have finished the exchange, or found the client gone, just now. */
    return (x->finished && connection_queued(c) == 0) || (c->broken && c->fd >= 0);
}

static bool step_skip(struct connection *c)
{
    struct http_span piece = {0};
    struct error e = ERROR_INIT;
    size_t used = 0;

    if (c->broken || c->server->stopping || c->timed_out) {
        connection_close(c);
        return false;
    }
    enum http_result result = connection_body_next(c, &piece, &used, &e);
    if (result == HTTP_BAD || c->skipped_bytes + used > HTTP_DRAIN_BYTES_MAX) {
        begin_linger(c);
        return c->phase != CONNECTION_CLOSED;
    }
    c->skipped_bytes += used;
    buffer_consume(&c->in, used);
    if (result == HTTP_DONE) {
        enter(c, CONNECTION_HEAD);
        return true;
    }
    if (c->in.size == 0 && c->eof) {
        connection_close(c);
        return false;
    }
    return used > 0;
}

static bool step_linger(struct connection *c)
{
    buffer_consume(&c->in, c->in.size);
    if (c->broken || c->eof || c->timed_out)
        connection_close(c);
    return false;
}

bool connection_step(struct connection *c)
{
    switch (c->phase) {
    case CONNECTION_HEAD:
        return step_head(c);
    case CONNECTION_EXCHANGE:
        return step_exchange(c);
    case CONNECTION_SKIP:
        return step_skip(c);
    case CONNECTION_LINGER:
        return step_linger(c);
    case CONNECTION_CLOSED:
        break;
    }
    return false;
}

/* 0 is never. */
static uint64_t sooner(uint64_t a_ms, uint64_t b_ms)
{
    return a_ms == 0 || (b_ms != 0 && b_ms < a_ms) ? b_ms : a_ms;
}

uint64_t connection_deadline_ms(const struct connection *c)
{
    const struct server_options *o = &c->server->options;
    uint64_t deadline_ms = 0;

    switch (c->phase) {
    case CONNECTION_HEAD:
        return c->phase_since_ms + (c->in.size > 0 ? o->head_timeout_ms : o->idle_timeout_ms);
    case CONNECTION_EXCHANGE:
        if (connection_queued(c) > 0)
            deadline_ms = c->sent_at_ms + o->stall_timeout_ms;
        if (exchange_body_wanted(c->exchange))
            deadline_ms = sooner(deadline_ms, c->read_at_ms + o->stall_timeout_ms);
        return sooner(deadline_ms, exchange_deadline_ms(c->exchange));
    case CONNECTION_SKIP:
    case CONNECTION_LINGER:
        return c->phase_since_ms + o->linger_ms;
    case CONNECTION_CLOSED:
        break;
    }
    return 0;
}
