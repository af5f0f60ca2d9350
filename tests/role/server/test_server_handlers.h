/*
 * The handlers that the server's tests run it with, and what they have seen.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "cloche/limits.h"
#include "daemon/server/budget.h"
#include "daemon/server/exchange.h"
#include "daemon/server/server.h"
#include "daemon/server/websocket.h"
#include "http/chunked.h"
#include "http/head.h"
#include "json/json_write.h"

#define SMALL_MAX    16u
#define UPLOAD_PIECE (64 * KIB)

struct fixture {
    uv_loop_t loop;
    struct exchange_budget budget;
    struct server *server;
    struct sockaddr_un address;
    unsigned idle_handles; /* the loop's, with no connection */
    bool stopped;

    /* What the handlers saw. */
    unsigned calls, closes, gone, ends, failures, waiting_calls;
    enum error_code failure;
    struct exchange *waiting; /* of /wait, /make, /once, /records: the test finishes it */
    unsigned made;
    uint64_t uploaded;
    bool upload_paused;
    bool upload_auto; /* an upload's pauses end by themselves */
    bool upload_any;  /* several at once, of any content */
    struct exchange *upload;
    uv_timer_t resume_timer;
    size_t queue_peak;

    /* /socket */
    uint32_t ping_ms;
    bool socket_mute; /* it takes nothing that the client sends */
    uint64_t socket_bytes;
    size_t socket_text_max;
    unsigned socket_texts;
};

struct download {
    uint64_t left;
    uint64_t at;
};

static inline struct fixture *fixture_of(struct exchange *x)
{
    return exchange_context(x);
}

static inline void count_close(struct exchange *x)
{
    fixture_of(x)->closes++;
    free(exchange_user(x));
}

static inline struct fixture *enter(struct exchange *x)
{
    fixture_of(x)->calls++;
    exchange_on_close(x, count_close);
    assert_true(exchange_arrival_ns(x) > 0 && exchange_arrival_ns(x) <= clock_mono_ns());
    return fixture_of(x);
}

static inline void handle_echo(struct exchange *x)
{
    static const char *const names[] = {"q", "many*", NULL};
    struct buffer body = BUFFER_INIT(64 * KIB);
    struct error e = ERROR_INIT;
    struct json_writer w;

    (void)enter(x);
    if (exchange_check_query(x, names, &e) != 0) {
        exchange_reply_error(x, &e);
        return;
    }
    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_put_text(&w, "word", exchange_param(x, "word"));
    json_put_text(&w, "q", exchange_query(x, "q") ? exchange_query(x, "q") : "-");
    json_put_text(&w, "x", exchange_header(x, "x-test") ? exchange_header(x, "x-test") : "");
    json_put_bool(&w, "ndjson", exchange_accepts(x, "application/x-ndjson"));
    json_end_object(&w);
    exchange_set_header(x, "X-Extra", "%d", 42);
    exchange_reply_written(x, 200, &w);
}

static inline void whole_body(struct exchange *x, const void *data, size_t size)
{
    assert_non_null(data);
    exchange_reply(x, 200, "application/octet-stream", data, size);
}

static inline void handle_whole(struct exchange *x)
{
    (void)enter(x);
    exchange_read_whole(x, HTTP_JSON_BODY_MAX, whole_body);
}

static inline void handle_small(struct exchange *x)
{
    (void)enter(x);
    exchange_read_whole(x, SMALL_MAX, whole_body);
}

static inline void resume_upload(uv_timer_t *timer)
{
    struct fixture *f = timer->data;

    f->upload_paused = false;
    exchange_resume(f->upload);
}

static inline void upload_data(struct exchange *x, const void *data, size_t size)
{
    struct fixture *f = fixture_of(x);

    if (f->upload_any)
        return;
    assert_true(size > 0 && !f->upload_paused);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(((const uint8_t *)data)[i], (uint8_t)((f->uploaded + i) * 7));
    if (f->uploaded / UPLOAD_PIECE != (f->uploaded + size) / UPLOAD_PIECE) {
        exchange_pause(x);
        f->upload_paused = true;
        if (f->upload_auto)
            (void)uv_timer_start(&f->resume_timer, resume_upload, 1, 0);
    }
    f->uploaded += size;
}

static inline void upload_end(struct exchange *x, const struct error *failure)
{
    struct fixture *f = fixture_of(x);
    char text[32];

    f->ends++;
    f->upload = NULL;
    (void)uv_timer_stop(&f->resume_timer);
    if (failure != NULL) {
        f->failures++;
        f->failure = failure->code;
        exchange_reply_error(x, failure);
        return;
    }
    int size = snprintf(text, sizeof(text), "%llu", (unsigned long long)f->uploaded);
    exchange_reply(x, 201, "text/plain", text, (size_t)size);
}

static inline void count_gone(struct exchange *x)
{
    fixture_of(x)->gone++;
}

static inline void handle_upload(struct exchange *x)
{
    struct fixture *f = enter(x);

    f->uploaded = 0;
    f->upload = x;
    f->upload_paused = false;
    exchange_on_gone(x, count_gone);
    exchange_read_stream(x, UINT64_C(1) << 30, upload_data, upload_end);
}

static inline void download_more(struct exchange *x)
{
    struct download *d = exchange_user(x);
    struct fixture *f = fixture_of(x);
    uint8_t piece[10000];

    while (d->left > 0 && exchange_queued(x) <= 256 * KIB) {
        size_t size = d->left < sizeof(piece) ? (size_t)d->left : sizeof(piece);

        for (size_t i = 0; i < size; i++)
            piece[i] = (uint8_t)((d->at + i) * 7);
        assert_int_equal(exchange_write(x, piece, size), 0);
        d->at += size;
        d->left -= size;
        if (exchange_queued(x) > f->queue_peak)
            f->queue_peak = exchange_queued(x);
    }
    if (d->left == 0)
        exchange_end(x);
}

static inline void gone_abort(struct exchange *x)
{
    fixture_of(x)->gone++;
    exchange_abort(x);
}

static inline void start_download(struct exchange *x, bool chunked)
{
    struct download *d = calloc(1, sizeof(*d));

    (void)enter(x);
    assert_non_null(d);
    d->left = strtoull(exchange_param(x, "bytes"), NULL, 10);
    exchange_set_user(x, d);
    exchange_on_gone(x, gone_abort);
    exchange_start(x, 200, "application/octet-stream", chunked ? EXCHANGE_LENGTH_UNKNOWN : d->left,
                   download_more);
    download_more(x);
}

static inline void handle_chunked(struct exchange *x)
{
    start_download(x, true);
}

static inline void handle_length(struct exchange *x)
{
    start_download(x, false);
}

static inline void handle_large(struct exchange *x)
{
    size_t size = strtoull(exchange_param(x, "bytes"), NULL, 10);
    struct buffer body = BUFFER_INIT(size);
    uint8_t *to = buffer_reserve(&body, size);

    (void)enter(x);
    assert_non_null(to);
    for (size_t i = 0; i < size; i++)
        to[i] = (uint8_t)(i * 7);
    buffer_commit(&body, size);
    exchange_reply_buffer(x, 200, "application/octet-stream", &body);
}

static inline void handle_wait(struct exchange *x)
{
    struct fixture *f = enter(x);

    f->waiting_calls++;
    f->waiting = x;
    exchange_on_gone(x, count_gone);
}

/* The body says what becomes of it. */
static inline void make_body(struct exchange *x, const void *data, size_t size)
{
    struct fixture *f = fixture_of(x);
    struct buffer body = BUFFER_INIT(2 * IDEMPOTENCY_REPLY_MAX);
    struct error e = ERROR_INIT;

    f->made++;
    if (size > 0 && memcmp(data, "wait", 4) == 0) {
        f->waiting = x;
    } else if (size > 0 && memcmp(data, "fail", 4) == 0) {
        (void)error_set(&e, ERR_COMMAND_NOT_STARTED, "failed %u", f->made);
        exchange_reply_error(x, &e);
    } else if (size > 0 && memcmp(data, "full", 4) == 0) {
        (void)error_set(&e, ERR_NO_CAPACITY, "full %u", f->made);
        exchange_reply_error(x, &e);
    } else if (size > 0 && memcmp(data, "none", 4) == 0) {
        exchange_reply_empty(x);
    } else {
        size_t fill = size > 0 && memcmp(data, "large", 5) == 0 ? IDEMPOTENCY_REPLY_MAX : 0;
        assert_int_equal(buffer_printf(&body, "made %u", f->made), 0);
        memset(buffer_reserve(&body, fill), 'x', fill);
        buffer_commit(&body, fill);
        exchange_reply_buffer(x, 201, "text/plain", &body);
    }
}

static inline void handle_make(struct exchange *x)
{
    (void)enter(x);
    exchange_on_gone(x, gone_abort);
    exchange_read_whole(x, 64 * KIB, make_body);
}

static inline void records_body(struct exchange *x, const void *data, size_t size)
{
    struct fixture *f = fixture_of(x);

    f->made++;
    f->waiting = x;
    exchange_start(x, 200, NDJSON_TYPE, EXCHANGE_LENGTH_UNKNOWN, NULL);
    assert_int_equal(exchange_write(x, data, size), 0);
}

/* A stream of the body's records, which the test goes on with. */
static inline void handle_records(struct exchange *x)
{
    (void)enter(x);
    exchange_on_gone(x, gone_abort);
    exchange_read_whole(x, SMALL_MAX, records_body);
}

/* Starts a reply and then fails; by query: with a length, by an error. */
static inline void handle_cut(struct exchange *x)
{
    const char *how = exchange_query(x, "how");
    struct error e = ERROR_INIT;

    (void)enter(x);
    error_set(&e, ERR_INTERNAL, "too late");
    exchange_start(x, 200, "text/plain",
                   strcmp(how, "length") == 0 ? 1000 : EXCHANGE_LENGTH_UNKNOWN, NULL);
    assert_int_equal(exchange_write(x, "begin", 5), 0);
    if (strcmp(how, "length") == 0)
        exchange_end(x);
    else if (strcmp(how, "error") == 0)
        exchange_reply_error(x, &e);
    else
        exchange_abort(x);
}

static inline void handle_empty(struct exchange *x)
{
    (void)enter(x);
    exchange_reply_empty(x);
}

static inline void handle_full(struct exchange *x)
{
    struct error e = ERROR_INIT;

    (void)enter(x);
    error_set(&e, ERR_NO_CAPACITY, "no room");
    error_remedy(&e, "delete a sandbox");
    exchange_reply_error(x, &e);
}

/* More than the queue takes: refused, and the handler aborts. */
static inline void handle_flood(struct exchange *x)
{
    static const uint8_t piece[64 * KIB];
    unsigned count = 0;

    (void)enter(x);
    exchange_start(x, 200, NULL, EXCHANGE_LENGTH_UNKNOWN, NULL);
    while (exchange_write(x, piece, sizeof(piece)) == 0)
        assert_true(count++ < 1000);
    assert_true(exchange_queued(x) <= HTTP_REPLY_QUEUE_MAX + 32 * KIB);
    exchange_abort(x);
}

/* A WebSocket that sends back what it gets. The text "bye" closes it, "flood" brings a lot. */
struct echo {
    struct fixture *f;
    struct websocket *socket;
    size_t flood_left;
    bool paused;
};

static inline void echo_room(void *arg)
{
    static const uint8_t piece[8000];
    struct echo *o = arg;

    while (o->flood_left > 0 && websocket_queued(o->socket) < 128 * KIB) {
        websocket_send_bytes(o->socket, piece, sizeof(piece));
        o->flood_left -= sizeof(piece);
    }
    if (websocket_queued(o->socket) > o->f->queue_peak)
        o->f->queue_peak = websocket_queued(o->socket);
    if (o->paused) {
        o->paused = false;
        websocket_resume(o->socket);
    }
}

static inline void echo_bytes(void *arg, const uint8_t *data, size_t size)
{
    struct echo *o = arg;

    assert_true(size > 0);
    o->f->socket_bytes += size;
    websocket_send_bytes(o->socket, data, size);
    if (o->f->socket_mute || websocket_queued(o->socket) > 2 * HTTP_REPLY_QUEUE_LOW) {
        o->paused = true;
        websocket_pause(o->socket);
    }
}

static inline void echo_text(void *arg, const char *text, size_t size)
{
    struct echo *o = arg;

    o->f->socket_texts++;
    if (size > o->f->socket_text_max)
        o->f->socket_text_max = size;
    if (size == 3 && memcmp(text, "bye", 3) == 0) {
        websocket_close(o->socket, WEBSOCKET_INTERNAL, "as you like");
    } else if (size == 5 && memcmp(text, "flood", 5) == 0) {
        o->flood_left = 500 * 8000;
        echo_room(o);
    } else {
        websocket_send_text(o->socket, text, size);
    }
}

static inline void echo_close(void *arg)
{
    struct echo *o = arg;

    o->f->closes++;
    free(o);
}

static inline void handle_socket(struct exchange *x)
{
    static const struct websocket_calls calls = {
        .on_bytes = echo_bytes, .on_text = echo_text, .on_room = echo_room, .on_close = echo_close};
    struct fixture *f = enter(x);
    struct echo *o = calloc(1, sizeof(*o));
    struct error e = ERROR_INIT;

    assert_non_null(o);
    o->f = f;
    if (websocket_accept(x, f->ping_ms, &calls, o, &o->socket, &e) == 0)
        return;
    free(o);
    exchange_reply_error(x, &e);
}

static const struct route routes[] = {
    {"GET", "/socket", handle_socket, ROUTE_NO_KEY},
    {"GET", "/echo/{word}", handle_echo, ROUTE_NO_KEY},
    {"DELETE", "/echo/{word}", handle_empty, ROUTE_NO_KEY},
    {"GET", "/echo/fixed/x", handle_empty, ROUTE_NO_KEY},
    {"GET", "/", handle_empty, ROUTE_NO_KEY},
    {"POST", "/whole", handle_whole, ROUTE_NO_KEY},
    {"POST", "/small", handle_small, ROUTE_NO_KEY},
    {"PUT", "/upload", handle_upload, ROUTE_NO_KEY},
    {"GET", "/chunked/{bytes}", handle_chunked, ROUTE_NO_KEY},
    {"GET", "/length/{bytes}", handle_length, ROUTE_NO_KEY},
    {"GET", "/large/{bytes}", handle_large, ROUTE_NO_KEY},
    {"GET", "/wait", handle_wait, ROUTE_NO_KEY},
    {"POST", "/wait", handle_wait, ROUTE_NO_KEY},
    {"POST", "/make", handle_make, ROUTE_UNDONE},
    {"POST", "/once", handle_make, ROUTE_ONCE},
    {"POST", "/records", handle_records, ROUTE_ONCE},
    {"GET", "/cut", handle_cut, ROUTE_NO_KEY},
    {"POST", "/ignore", handle_empty, ROUTE_NO_KEY},
    {"GET", "/full", handle_full, ROUTE_NO_KEY},
    {"GET", "/flood", handle_flood, ROUTE_NO_KEY},
};
