/* The reply's side of an exchange. */
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "cloche/limits.h"
#include "daemon/server/exchange_private.h"
#include "http/write.h"
#include "json/json_write.h"

#define ERROR_BODY_MAX (16 * KIB)
#define JSON_TYPE      "application/json"

/* Nothing that the handler says reaches the client. */
static bool is_cut(const struct exchange *x)
{
    return x->connection->fd < 0 || x->connection->broken || x->late;
}

/* Whether the connection ends with this reply. The rest of a body that nobody reads must be skipped
 * to find the next request: where that is a lot, or may never come, it is not worth it. */
static bool must_close(const struct exchange *x)
{
    const struct connection *c = x->connection;

    if (!x->head.keep_alive || x->service->stopping || c->body_bad)
        return true;
    if (c->body_done)
        return false;
    return x->continue_pending ||
           (x->reader == READER_NONE &&
            (c->framing == HTTP_BODY_CHUNKED || c->body_left > HTTP_DRAIN_BYTES_MAX));
}

static int put_date(struct buffer *out)
{
    time_t now = time(NULL);
    char text[40];
    struct tm tm;

    (void)gmtime_r(&now, &tm);
    (void)strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm);
    return http_header_put(out, "Date", "%s", text);
}

static int put_head(struct exchange *x, struct buffer *out, int status, const char *content_type,
                    uint64_t length)
{
    bool has_body = status != 204 && status != 304;
    bool chunked = length == EXCHANGE_LENGTH_UNKNOWN;

    if (http_response_start(out, status) != 0 || put_date(out) != 0 ||
        http_header_put(out, "X-Request-Id", "%s", x->request_id) != 0)
        return -1;
    if (content_type != NULL && http_header_put(out, "Content-Type", "%s", content_type) != 0)
        return -1;
    if (has_body && chunked && http_header_put(out, "Transfer-Encoding", "chunked") != 0)
        return -1;
    if (has_body && !chunked && http_header_put(out, "Content-Length", "%" PRIu64, length) != 0)
        return -1;
    if (x->close_after && http_header_put(out, "Connection", "close") != 0)
        return -1;
    if (x->headers.size > 0 && buffer_append(out, buffer_bytes(&x->headers), x->headers.size) != 0)
        return -1;
    return http_head_end(out);
}

static int put_upgrade(struct exchange *x, struct buffer *out, const char *protocol)
{
    if (http_response_start(out, 101) != 0 || put_date(out) != 0 ||
        http_header_put(out, "X-Request-Id", "%s", x->request_id) != 0 ||
        http_header_put(out, "Connection", "Upgrade") != 0 ||
        http_header_put(out, "Upgrade", "%s", protocol) != 0 ||
        (x->headers.size > 0 &&
         buffer_append(out, buffer_bytes(&x->headers), x->headers.size) != 0))
        return -1;
    return http_head_end(out);
}

static void start(struct exchange *x, int status, const char *content_type, uint64_t length)
{
    struct connection *c = x->connection;

    assert(!x->started && !x->finished);
    x->started = true;
    x->chunked = length == EXCHANGE_LENGTH_UNKNOWN;
    x->length_left = length;
    x->discard = is_cut(x);
    if (x->discard)
        return;
    x->close_after = must_close(x);
    if (put_head(x, connection_out(c), status, content_type, length) != 0) {
        x->discard = true;
        connection_break(c);
    }
    x->discard |= exchange_is_head(x);
}

void exchange_finish(struct exchange *x)
{
    assert(!x->finished);
    if (x->watch != NULL)
        x->watch->on_finish(x->watch_arg, x);
    x->watch = NULL;
    x->finished = true;
    x->reader = READER_NONE;
    connection_flush(x->connection);
    connection_kick(x->connection);
}

void exchange_set_header(struct exchange *x, const char *name, const char *format, ...)
{
    char value[HTTP_REPLY_HEADERS_MAX];
    va_list ap;

    assert(!x->started);
    va_start(ap, format);
    (void)vsnprintf(value, sizeof(value), format, ap);
    va_end(ap);
    x->has_retry_after |= strcasecmp(name, "Retry-After") == 0;
    if (http_header_put(&x->headers, name, "%s", value) != 0)
        connection_break(x->connection);
}

int exchange_hold(struct exchange *x, uint64_t bytes, struct error *e)
{
    if (!budget_take(&x->service->budget->replies, bytes)) {
        (void)error_set(e, ERR_NO_CAPACITY, "the replies under way hold too many bytes together");
        return error_remedy(e, "Have output streamed (Accept: application/x-ndjson), fetch files "
                               "with GET .../files, or try again later.");
    }
    x->held_bytes += bytes;
    return 0;
}

/* The handler has its whole reply; whether it can be sent is another matter. */
static void tell_reply(struct exchange *x, int status, const char *content_type,
                       const struct buffer *body)
{
    const void *data = body->size > 0 ? buffer_bytes(body) : NULL;

    if (x->watch != NULL)
        x->watch->on_reply(x->watch_arg, x, status, content_type, data, body->size);
}

void exchange_reply_buffer(struct exchange *x, int status, const char *content_type,
                           struct buffer *body)
{
    struct connection *c = x->connection;

    tell_reply(x, status, content_type, body);
    start(x, status, content_type, body->size);
    if (!x->discard && body->size > 0) {
        assert(c->whole.size == 0);
        c->whole = *body;
        *body = (struct buffer){.size_max = body->size_max};
    } else {
        buffer_fini(body);
    }
    exchange_finish(x);
}

void exchange_reply(struct exchange *x, int status, const char *content_type, const void *data,
                    size_t size)
{
    struct buffer body = BUFFER_INIT(size);

    if (buffer_append(&body, data, size) != 0) {
        buffer_fini(&body);
        exchange_abort(x);
        return;
    }
    exchange_reply_buffer(x, status, content_type, &body);
}

void exchange_reply_empty(struct exchange *x)
{
    const struct buffer none = BUFFER_INIT(0);

    tell_reply(x, 204, NULL, &none);
    start(x, 204, NULL, 0);
    exchange_finish(x);
}

void exchange_reply_written(struct exchange *x, int status, const struct json_writer *w)
{
    struct error e = ERROR_INIT;

    if (!w->failed) {
        exchange_reply_buffer(x, status, JSON_TYPE, w->out);
        return;
    }
    buffer_fini(w->out);
    (void)error_set(&e, ERR_INTERNAL, "the reply is too large, or memory is short");
    exchange_reply_error(x, &e);
}

/* The error as the body of a reply; -1 when memory is short. */
static int write_error(const struct exchange *x, const struct error *e, struct buffer *body)
{
    struct json_writer w;

    json_writer_init(&w, body);
    json_put_error(&w, e, x->request_id);
    return w.failed ? -1 : buffer_append(body, "\n", 1);
}

void exchange_reply_error(struct exchange *x, const struct error *e)
{
    struct buffer body = BUFFER_INIT(ERROR_BODY_MAX);
    int status = error_http_status(e->code);

    assert(e->code != ERR_NONE);
    if (x->started || write_error(x, e, &body) != 0) {
        buffer_fini(&body);
        exchange_abort(x);
        return;
    }
    if ((status == 429 || status == 503) && !x->has_retry_after)
        exchange_set_header(x, "Retry-After", "1");
    exchange_reply_buffer(x, status, JSON_TYPE, &body);
}

/* HTTP/1.0 has no chunks, and a body that ends with the connection looks whole when it is cut. */
static void start_refused(struct exchange *x)
{
    struct connection *c = x->connection;
    struct buffer body = BUFFER_INIT(ERROR_BODY_MAX);
    struct error e = ERROR_INIT;

    error_set(&e, ERR_HTTP_VERSION,
              "this reply has no length known beforehand, which HTTP/1.0 "
              "cannot carry");
    error_remedy(&e, "use HTTP/1.1");
    if (write_error(x, &e, &body) != 0)
        connection_break(c);
    start(x, error_http_status(e.code), JSON_TYPE, body.size);
    if (!x->discard && buffer_append(connection_out(c), buffer_bytes(&body), body.size) != 0)
        connection_break(c);
    x->discard = true;
    x->chunked = true;
    buffer_fini(&body);
}

void exchange_start(struct exchange *x, int status, const char *content_type, uint64_t length,
                    void (*on_drain)(struct exchange *x))
{
    x->on_drain = on_drain;
    x->is_records = content_type != NULL && strcmp(content_type, NDJSON_TYPE) == 0;
    if (length == EXCHANGE_LENGTH_UNKNOWN && x->head.minor_version == 0)
        start_refused(x);
    else
        start(x, status, content_type, length);
    /* Sent at the next turn, unless a first piece of the body takes it along before. */
    connection_kick(x->connection);
}

void exchange_start_upgrade(struct exchange *x, const char *protocol,
                            void (*on_drain)(struct exchange *x))
{
    struct connection *c = x->connection;

    assert(!x->started && !x->finished);
    x->on_drain = on_drain;
    x->upgraded = x->started = true;
    x->length_left = UINT64_MAX;
    x->discard = is_cut(x);
    x->close_after = true;
    if (!x->discard && put_upgrade(x, connection_out(c), protocol) != 0)
        connection_break(c);
}

bool exchange_started(const struct exchange *x)
{
    return x->started;
}

int exchange_write(struct exchange *x, const void *data, size_t size)
{
    struct connection *c = x->connection;

    assert(x->started && !x->finished);
    if (!x->chunked && size > x->length_left)
        return -1;
    if (size == 0)
        return 0;
    if (!x->discard && !is_cut(x)) {
        size_t queued = connection_queued(c);

        if (queued > HTTP_REPLY_QUEUE_MAX || size > HTTP_REPLY_QUEUE_MAX - queued)
            return -1;
        if ((x->chunked ? http_chunk_append(connection_out(c), data, size)
                        : buffer_append(connection_out(c), data, size)) != 0)
            return -1;
        x->in_record = ((const char *)data)[size - 1] != '\n';
        connection_flush(c);
        x->drain_wanted |= x->on_drain != NULL && connection_queued(c) > HTTP_REPLY_QUEUE_LOW;
        connection_kick(c);
    }
    if (!x->chunked)
        x->length_left -= size;
    return 0;
}

size_t exchange_queued(const struct exchange *x)
{
    return connection_queued(x->connection);
}

void exchange_end(struct exchange *x)
{
    struct connection *c = x->connection;

    assert(x->started);
    if (!x->discard && !x->chunked && !x->upgraded && x->length_left > 0) {
        exchange_abort(x);
        return;
    }
    if (!x->discard && x->chunked && !is_cut(x) &&
        buffer_append_text(connection_out(c), HTTP_CHUNK_LAST) != 0)
        connection_break(c);
    exchange_finish(x);
}

void exchange_abort(struct exchange *x)
{
    if (!is_cut(x))
        connection_break(x->connection);
    exchange_finish(x);
}

/* The last record of a stream. Inside of another record, or where the client expects a length,
 * there is no place for it; -1 then. */
static int end_with_record(struct exchange *x, const struct error *e)
{
    struct buffer record = BUFFER_INIT(ERROR_BODY_MAX);
    struct buffer *out = connection_out(x->connection);
    struct json_writer w;
    int result = -1;

    json_writer_init(&w, &record);
    json_begin_object(&w, NULL);
    json_put_text(&w, "type", "error");
    json_put_error_member(&w, e, x->request_id);
    json_end_object(&w);
    if (x->is_records && x->chunked && !x->in_record && !x->discard && !w.failed &&
        buffer_append_text(&record, "\n") == 0 &&
        http_chunk_append(out, buffer_bytes(&record), record.size) == 0)
        result = buffer_append_text(out, HTTP_CHUNK_LAST);
    buffer_fini(&record);
    return result;
}

static int put_late_error(struct exchange *x, const struct error *e)
{
    struct connection *c = x->connection;
    struct buffer body = BUFFER_INIT(ERROR_BODY_MAX);
    struct buffer *out = connection_out(c);
    int result = -1;

    buffer_fini(&x->headers); /* the handler's, for another reply */
    x->close_after = must_close(x);
    if (write_error(x, e, &body) == 0 &&
        put_head(x, out, error_http_status(e->code), JSON_TYPE, body.size) == 0)
        result = exchange_is_head(x) ? 0 : buffer_append(out, buffer_bytes(&body), body.size);
    buffer_fini(&body);
    return result;
}

void exchange_reply_late(struct exchange *x, const struct error *e, bool was_started)
{
    struct connection *c = x->connection;

    assert(x->late);
    x->drain_wanted = false;
    if (c->broken)
        return;
    if ((was_started ? end_with_record(x, e) : put_late_error(x, e)) != 0)
        connection_break(c);
    connection_flush(c);
}
