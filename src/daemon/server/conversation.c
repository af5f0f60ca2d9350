#include "daemon/server/conversation.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cloche/limits.h"
#include "daemon/server/connection.h"
#include "daemon/server/dispatch.h"
#include "daemon/server/exchange_deadline.h"
#include "daemon/server/exchange_private.h"
#include "daemon/server/service.h"

_Static_assert(HTTP_INPUT_BYTES_MAX >= HTTP_HEAD_BYTES_MAX, "a head must fit into the input");

enum phase { HEAD, EXCHANGE, SKIP, LINGER, ENDED };

struct conversation {
    struct connection connection;
    struct service *service;
    LIST_ENTRY(conversation) entry;
    enum phase phase;
    uint64_t since_ms; /* loop time at which the phase began; in HEAD: of the first byte */
    bool head_begun;
    size_t scanned; /* of the head that is coming */
    uint64_t skipped_bytes;
    struct exchange *exchange;
};

/* The connection is embedded. */
static struct conversation *conversation_of(const struct connection *c)
{
    return (struct conversation *)((char *)(uintptr_t)c -
                                   offsetof(struct conversation, connection));
}

static uint64_t now_ms(const struct conversation *v)
{
    return uv_now(v->service->loop);
}

static void enter(struct conversation *v, enum phase phase)
{
    v->phase = phase;
    v->since_ms = now_ms(v);
    v->connection.timed_out = false;
    v->connection.read_max = phase == HEAD ? CONNECTION_READ_HEAD : HTTP_INPUT_BYTES_MAX;
}

static void end(struct conversation *v)
{
    assert(v->exchange == NULL && v->phase != ENDED);
    v->phase = ENDED;
    connection_close(&v->connection);
}

static void begin_linger(struct conversation *v)
{
    if (v->connection.eof) {
        end(v);
        return;
    }
    (void)shutdown(v->connection.fd, SHUT_WR);
    enter(v, LINGER);
}

static bool begin_exchange(struct conversation *v, struct exchange *x)
{
    if (x == NULL) {
        end(v);
        return false;
    }
    v->exchange = x;
    enter(v, EXCHANGE);
    return true;
}

/* Replies with an error to a request that could not be read, and hangs up after that. */
static bool refuse(struct conversation *v, const struct error *e)
{
    struct connection *c = &v->connection;

    c->body_done = true;
    c->body_bad = true;
    if (!begin_exchange(v, exchange_new(v->service, c, NULL, NULL)))
        return false;
    exchange_reply_error(v->exchange, e);
    return true;
}

static bool begin_request(struct conversation *v, const struct http_head *head)
{
    struct connection *c = &v->connection;

    if (!begin_exchange(v, exchange_new(v->service, c, head, (const char *)buffer_bytes(&c->in))))
        return false;
    buffer_consume(&c->in, head->size);
    connection_body_begin(c, head);
    dispatch(v->exchange);
    return true;
}

static bool step_head(struct conversation *v)
{
    struct connection *c = &v->connection;
    struct http_head head;
    struct error e = ERROR_INIT;
    bool late = c->timed_out;

    c->timed_out = false;
    if (c->broken || v->service->stopping || (c->in.size == 0 && (c->eof || late))) {
        end(v);
        return false;
    }
    if (c->in.size == 0)
        return false;
    if (!v->head_begun) {
        v->head_begun = true;
        v->scanned = 0;
        v->since_ms = now_ms(v);
    }
    switch (http_request_parse((const char *)buffer_bytes(&c->in), c->in.size, &v->scanned, &head,
                               &e)) {
    case HTTP_DONE:
        v->head_begun = false;
        return begin_request(v, &head);
    case HTTP_BAD:
        return refuse(v, &e);
    case HTTP_MORE:
        break;
    }
    if (c->eof) {
        error_set(&e, ERR_BAD_REQUEST, "the request ended within its head");
        return refuse(v, &e);
    }
    if (late) {
        error_set(&e, ERR_REQUEST_TIMEOUT, "the head of the request did not come within %u ms",
                  v->service->head_timeout_ms);
        return refuse(v, &e);
    }
    return false;
}

/* The reply is on its way to the client, or the client is gone. */
static bool end_exchange(struct conversation *v)
{
    struct connection *c = &v->connection;
    struct exchange *x = v->exchange;
    bool close_after = x->close_after;

    if (x->on_close != NULL)
        x->on_close(x);
    v->exchange = NULL;
    exchange_free(x);
    if (c->fd < 0) {
        end(v);
    } else if (c->body_bad || (close_after && !c->body_done)) {
        begin_linger(v);
    } else if (close_after || v->service->stopping) {
        end(v);
    } else {
        v->skipped_bytes = 0;
        enter(v, c->body_done ? HEAD : SKIP);
    }
    return v->phase != ENDED;
}

/* A wait of the exchange has taken too long: for the body, or for the client to read. */
static void step_exchange_late(struct conversation *v)
{
    struct connection *c = &v->connection;
    uint64_t now = now_ms(v), deadline_ms = exchange_deadline_ms(v->exchange);
    uint32_t stall_ms = v->service->stall_timeout_ms;
    struct error e = ERROR_INIT;

    c->timed_out = false;
    if (connection_queued(c) > 0 && now >= c->sent_at_ms + stall_ms) {
        c->broken = true;
    } else if (deadline_ms != 0 && now >= deadline_ms) {
        exchange_expire(v->exchange);
    } else if (exchange_body_wanted(v->exchange) && now >= c->read_at_ms + stall_ms) {
        error_set(&e, ERR_REQUEST_TIMEOUT, "no more of the request's body came within %u ms",
                  stall_ms);
        c->body_bad = true;
        exchange_body_fail(v->exchange, &e);
    }
}

static bool step_exchange(struct conversation *v)
{
    struct connection *c = &v->connection;
    struct exchange *x = v->exchange;

    if (c->timed_out)
        step_exchange_late(v);
    if (c->broken && c->fd >= 0) {
        connection_cut(c);
        exchange_tell_gone(x);
    }
    if (x->finished && connection_queued(c) == 0)
        return end_exchange(v);
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

static bool step_skip(struct conversation *v)
{
    struct connection *c = &v->connection;
    struct http_span piece = {0};
    struct error e = ERROR_INIT;
    size_t used = 0;

    if (c->broken || v->service->stopping || c->timed_out) {
        end(v);
        return false;
    }
    enum http_result result = connection_body_next(c, &piece, &used, &e);
    if (result == HTTP_BAD || v->skipped_bytes + used > HTTP_DRAIN_BYTES_MAX) {
        begin_linger(v);
        return v->phase != ENDED;
    }
    v->skipped_bytes += used;
    buffer_consume(&c->in, used);
    if (result == HTTP_DONE) {
        enter(v, HEAD);
        return true;
    }
    if (c->in.size == 0 && c->eof) {
        end(v);
        return false;
    }
    return used > 0;
}

static bool step_linger(struct conversation *v)
{
    struct connection *c = &v->connection;

    buffer_consume(&c->in, c->in.size);
    if (c->broken || c->eof || c->timed_out)
        end(v);
    return false;
}

static bool step(struct connection *c)
{
    struct conversation *v = conversation_of(c);

    switch (v->phase) {
    case HEAD:
        return step_head(v);
    case EXCHANGE:
        return step_exchange(v);
    case SKIP:
        return step_skip(v);
    case LINGER:
        return step_linger(v);
    case ENDED:
        break;
    }
    return false;
}

/* 0 is never. */
static uint64_t sooner(uint64_t a_ms, uint64_t b_ms)
{
    return a_ms == 0 || (b_ms != 0 && b_ms < a_ms) ? b_ms : a_ms;
}

static uint64_t exchange_wait_ms(const struct conversation *v)
{
    const struct connection *c = &v->connection;
    uint32_t stall_ms = v->service->stall_timeout_ms;
    uint64_t deadline_ms = exchange_deadline_ms(v->exchange);

    if (connection_queued(c) > 0)
        deadline_ms = sooner(deadline_ms, c->sent_at_ms + stall_ms);
    if (exchange_body_wanted(v->exchange))
        deadline_ms = sooner(deadline_ms, c->read_at_ms + stall_ms);
    return deadline_ms;
}

static uint64_t deadline_ms(const struct connection *c)
{
    const struct conversation *v = conversation_of(c);
    const struct service *s = v->service;

    switch (v->phase) {
    case HEAD:
        return v->since_ms + (v->head_begun ? s->head_timeout_ms : s->idle_timeout_ms);
    case EXCHANGE:
        return exchange_wait_ms(v);
    case SKIP:
    case LINGER:
        return v->since_ms + s->linger_ms;
    case ENDED:
        break;
    }
    return 0;
}

static void on_closed(struct connection *c)
{
    struct conversation *v = conversation_of(c);
    struct service *s = v->service;

    assert(v->exchange == NULL);
    LIST_REMOVE(v, entry);
    free(v);
    assert(s->conversation_count > 0);
    s->conversation_count--;
    s->on_ended(s);
}

static void begin(struct service *s, int fd, enum phase phase)
{
    static const struct connection_owner owner = {
        .step = step, .deadline_ms = deadline_ms, .on_closed = on_closed};
    struct conversation *v = calloc(1, sizeof(*v));

    if (v == NULL) {
        (void)close(fd);
        return;
    }
    v->service = s;
    v->phase = phase;
    v->since_ms = now_ms(v);
    if (connection_open(&v->connection, &owner, s->loop, fd) != 0) {
        free(v);
        return;
    }
    LIST_INSERT_HEAD(&s->conversations, v, entry);
    s->conversation_count++;
}

void conversation_begin(struct service *s, int fd)
{
    begin(s, fd, HEAD);
}

void conversation_begin_farewell(struct service *s, int fd)
{
    begin(s, fd, LINGER);
}

void conversation_end_idle(struct service *s)
{
    struct conversation *v;

    LIST_FOREACH (v, &s->conversations, entry) {
        if (v->phase == HEAD || v->phase == SKIP)
            end(v);
    }
}

void conversation_cut_all(struct service *s)
{
    struct conversation *v;

    LIST_FOREACH (v, &s->conversations, entry) {
        if (v->phase == EXCHANGE)
            connection_break(&v->connection);
        else if (v->phase != ENDED)
            end(v);
    }
}
