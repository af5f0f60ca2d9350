/* Reading a request's body: whole, or in pieces with back-pressure. One that was read ahead is
 * there already when the handler asks for it. */
#include <assert.h>
#include <inttypes.h>

#include "cloche/limits.h"
#include "daemon/server/exchange_private.h"

#define CONTINUE "HTTP/1.1 100 Continue\r\n\r\n"

uint64_t exchange_body_length(const struct exchange *x)
{
    switch (x->head.framing) {
    case HTTP_BODY_CHUNKED:
        return EXCHANGE_LENGTH_UNKNOWN;
    case HTTP_BODY_LENGTH:
        return x->head.content_length;
    case HTTP_BODY_NONE:
    case HTTP_BODY_UNTIL_CLOSE:
        break;
    }
    return 0;
}

void exchange_body_drop(struct exchange *x)
{
    budget_give(&x->service->budget->bodies, x->body.size);
    buffer_fini(&x->body);
}

static int too_large(const struct exchange *x, struct error *e)
{
    return error_set(e, ERR_TOO_LARGE, "the body of the request has more than %" PRIu64 " bytes",
                     x->read_max);
}

/* The client of "Expect: 100-continue" sends nothing until it is told to. One that did not wait
 * needs no answer. */
static void send_continue(struct exchange *x)
{
    struct connection *c = x->connection;

    if (c->in.size == 0 && !x->started) {
        if (buffer_append(connection_out(c), CONTINUE, sizeof(CONTINUE) - 1) != 0)
            connection_break(c);
        connection_flush(c);
    }
    x->continue_pending = false;
}

static void begin(struct exchange *x, enum exchange_reader reader, uint64_t size_max)
{
    struct connection *c = x->connection;
    uint64_t length = exchange_body_length(x);

    assert(!x->read_called && !x->finished);
    assert(reader != READER_STREAM || x->read_bytes == 0);
    x->read_called = true;
    x->reader = reader;
    x->read_max = size_max;
    x->body.size_max = size_max;
    c->read_at_ms = uv_now(c->loop);
    if (x->gone)
        error_set(&x->failure, ERR_UNREACHABLE, "the client has gone");
    else if ((length != EXCHANGE_LENGTH_UNKNOWN && length > size_max) || x->read_bytes > size_max)
        (void)too_large(x, &x->failure);
    else if (x->continue_pending)
        send_continue(x);
    connection_kick(c);
}

void exchange_read_whole(struct exchange *x, uint64_t size_max,
                         void (*on_body)(struct exchange *x, const void *data, size_t size))
{
    x->on_body = on_body;
    begin(x, READER_WHOLE, size_max);
}

void exchange_read_ahead(struct exchange *x,
                         void (*on_data)(struct exchange *x, const void *data, size_t size),
                         void (*on_body)(struct exchange *x, const void *data, size_t size))
{
    x->on_data = on_data;
    x->on_body = on_body;
    begin(x, READER_AHEAD, HTTP_JSON_BODY_MAX);
}

void exchange_read_stream(struct exchange *x, uint64_t size_max,
                          void (*on_data)(struct exchange *x, const void *data, size_t size),
                          void (*on_end)(struct exchange *x, const struct error *failure))
{
    x->on_data = on_data;
    x->on_end = on_end;
    begin(x, READER_STREAM, size_max);
}

void exchange_pause(struct exchange *x)
{
    x->paused = true;
}

void exchange_resume(struct exchange *x)
{
    x->paused = false;
    x->connection->read_at_ms = uv_now(x->service->loop);
    connection_kick(x->connection);
}

void exchange_upgrade(struct exchange *x, const char *protocol,
                      void (*on_data)(struct exchange *x, const void *data, size_t size),
                      void (*on_end)(struct exchange *x, const struct error *failure),
                      void (*on_drain)(struct exchange *x))
{
    assert(x->connection->body_done);
    exchange_start_upgrade(x, protocol, on_drain);
    /* From here on all that the client sends is the body. */
    x->connection->framing = HTTP_BODY_UNTIL_CLOSE;
    x->connection->body_done = false;
    exchange_read_stream(x, UINT64_MAX, on_data, on_end);
}

bool exchange_body_wanted(const struct exchange *x)
{
    return x->reader != READER_NONE && !x->paused && !x->connection->body_done &&
           x->connection->fd >= 0 && !x->upgraded;
}

void exchange_body_fail(struct exchange *x, const struct error *failure)
{
    enum exchange_reader reader = x->reader;

    x->reader = READER_NONE;
    exchange_body_drop(x);
    if (reader == READER_STREAM)
        x->on_end(x, failure);
    else
        exchange_reply_error(x, failure);
}

void exchange_tell_gone(struct exchange *x)
{
    struct error e = ERROR_INIT;

    if (x->gone)
        return;
    x->gone = true;
    if (x->finished)
        return;
    if (x->reader != READER_NONE) {
        error_set(&e, ERR_UNREACHABLE, "the client has gone");
        exchange_body_fail(x, &e);
    } else if (x->on_gone != NULL) {
        x->on_gone(x);
    }
}

/* All of the body has been read. */
static void complete(struct exchange *x)
{
    enum exchange_reader reader = x->reader;

    x->reader = READER_NONE;
    if (reader == READER_STREAM) {
        x->on_end(x, NULL);
        return;
    }
    if (reader == READER_AHEAD)
        x->read_called = false;
    x->on_body(x, x->body.size > 0 ? (const void *)buffer_bytes(&x->body) : "", x->body.size);
    if (reader == READER_WHOLE)
        exchange_body_drop(x);
}

/* Hands one piece on; fills `e` where that cannot be. */
static int take_piece(struct exchange *x, struct http_span piece, struct error *e)
{
    struct budget *bodies = &x->service->budget->bodies;

    if (piece.size > x->read_max - x->read_bytes)
        return too_large(x, e);
    x->read_bytes += piece.size;
    if (x->reader == READER_STREAM) {
        x->on_data(x, piece.data, piece.size);
        return 0;
    }
    if (!budget_take(bodies, piece.size))
        return error_set(e, ERR_NO_CAPACITY, "too many large requests at once");
    if (buffer_append(&x->body, piece.data, piece.size) != 0) {
        budget_give(bodies, piece.size);
        return error_set(e, ERR_NO_CAPACITY, "too many large requests at once");
    }
    if (x->reader == READER_AHEAD)
        x->on_data(x, piece.data, piece.size);
    return 0;
}

bool exchange_body_step(struct exchange *x)
{
    struct connection *c = x->connection;
    struct http_span piece = {0};
    struct error e = ERROR_INIT;
    size_t used = 0;

    if (x->reader == READER_NONE || x->paused)
        return false;
    if (x->failure.code != ERR_NONE) {
        exchange_body_fail(x, &x->failure);
        return true;
    }
    if (c->body_done) {
        complete(x);
        return true;
    }
    enum http_result result = connection_body_next(c, &piece, &used, &e);
    if (result == HTTP_BAD) {
        c->body_bad = true;
    } else {
        c->body_done = result == HTTP_DONE;
        int taken = piece.size > 0 ? take_piece(x, piece, &e) : 0;
        buffer_consume(&c->in, used);
        if (taken == 0 && (used > 0 || c->body_done))
            return true;
        if (taken == 0 && c->eof) {
            c->body_bad = true;
            error_set(&e, ERR_BAD_REQUEST, "the request ended within its body");
        }
    }
    if (e.code == ERR_NONE)
        return false;
    exchange_body_fail(x, &e);
    return true;
}
