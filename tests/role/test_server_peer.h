/*
 * A real server on a Unix socket, its handlers, and clients against it, all on one thread: a client
 * that waits turns the server's loop meanwhile, so every test runs in one order only.
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
#include "daemon/exchange.h"
#include "daemon/server.h"
#include "http/chunked.h"
#include "http/head.h"

#define HOST         "Host: localhost\r\n"
#define WAIT_MAX_MS  5000u
#define SMALL_MAX    16u
#define UPLOAD_PIECE (64 * KIB)

struct fixture {
    uv_loop_t loop;
    struct server *server;
    struct sockaddr_un address;
    bool stopped;
    uint64_t now_ns;

    /* What the handlers saw. */
    unsigned calls, closes, gone, ends, failures, waiting_calls;
    enum error_code failure;
    struct exchange *waiting; /* of /wait: the test finishes it */
    uint64_t uploaded;
    bool upload_paused;
    bool upload_auto; /* an upload's pauses end by themselves */
    struct exchange *upload;
    uv_timer_t resume_timer;
    size_t queue_peak;
};

struct download {
    uint64_t left;
    uint64_t at;
};

struct client {
    struct fixture *f;
    int fd;
    struct buffer in;
    bool eof;
};

struct reply {
    struct http_head head;
    char *head_text;
    struct buffer body;
    bool truncated; /* the connection ended before the reply did */
};

/* -- Handlers */

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
    struct error e = ERROR_INIT;

    (void)enter(x);
    if (exchange_check_query(x, names, &e) != 0) {
        exchange_reply_error(x, &e);
        return;
    }
    cJSON *tree = cJSON_CreateObject();
    (void)cJSON_AddStringToObject(tree, "word", exchange_param(x, "word"));
    (void)cJSON_AddStringToObject(tree, "q", exchange_query(x, "q") ? exchange_query(x, "q") : "-");
    (void)cJSON_AddStringToObject(tree, "x",
                                  exchange_header(x, "x-test") ? exchange_header(x, "x-test") : "");
    (void)cJSON_AddBoolToObject(tree, "ndjson", exchange_accepts(x, "application/x-ndjson"));
    exchange_set_header(x, "X-Extra", "%d", 42);
    exchange_reply_json(x, 200, tree);
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

static const struct route routes[] = {
    {"GET", "/echo/{word}", handle_echo},
    {"DELETE", "/echo/{word}", handle_empty},
    {"GET", "/echo/fixed/x", handle_empty},
    {"GET", "/", handle_empty},
    {"POST", "/whole", handle_whole},
    {"POST", "/small", handle_small},
    {"PUT", "/upload", handle_upload},
    {"GET", "/chunked/{bytes}", handle_chunked},
    {"GET", "/length/{bytes}", handle_length},
    {"GET", "/large/{bytes}", handle_large},
    {"GET", "/wait", handle_wait},
    {"POST", "/wait", handle_wait},
    {"GET", "/cut", handle_cut},
    {"POST", "/ignore", handle_empty},
    {"GET", "/full", handle_full},
    {"GET", "/flood", handle_flood},
};

/* -- The fixture */

static inline void turn(struct fixture *f)
{
    (void)uv_run(&f->loop, UV_RUN_NOWAIT);
}

/* Turns the loop for a while. */
static inline void turn_for(struct fixture *f, unsigned ms)
{
    uint64_t end_ns = clock_mono_ns() + ms * NS_PER_MS;

    while (clock_mono_ns() < end_ns) {
        turn(f);
        (void)usleep(200);
    }
}

#define turn_until(f, condition)                                                                   \
    do {                                                                                           \
        uint64_t end_ns = clock_mono_ns() + WAIT_MAX_MS * NS_PER_MS;                               \
        while (!(condition)) {                                                                     \
            turn(f);                                                                               \
            if (clock_mono_ns() > end_ns)                                                          \
                fail_msg("this did not happen in time: %s", #condition);                           \
        }                                                                                          \
    } while (0)

static inline struct fixture *fixture_new(const struct server_options *limits)
{
    static unsigned count;
    struct fixture *f = calloc(1, sizeof(*f));
    struct server_options options = limits != NULL ? *limits : (struct server_options){0};
    struct error e = ERROR_INIT;

    assert_non_null(f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    (void)uv_timer_init(&f->loop, &f->resume_timer);
    f->resume_timer.data = f;
    f->upload_auto = true;
    f->address.sun_family = AF_UNIX;
    /* An abstract name: nothing to remove. */
    (void)snprintf(f->address.sun_path + 1, sizeof(f->address.sun_path) - 1, "cloche-test-%d-%u",
                   (int)getpid(), count++);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&f->address, sizeof(f->address)), 0);
    assert_int_equal(listen(fd, 128), 0);
    options.loop = &f->loop;
    options.routes = routes;
    options.route_count = sizeof(routes) / sizeof(routes[0]);
    options.context = f;
    assert_int_equal(server_new(&options, fd, &f->server, &e), 0);
    return f;
}

static inline void on_fixture_stopped(void *context)
{
    ((struct fixture *)context)->stopped = true;
}

/* Stops the server; every exchange must have been closed, and nothing be left on the loop. */
static inline void fixture_free(struct fixture *f)
{
    if (!f->stopped) {
        server_stop(f->server, 50, on_fixture_stopped);
        turn_until(f, f->stopped);
    }
    assert_int_equal(server_connection_count(f->server), 0);
    assert_int_equal(f->calls, f->closes);
    server_free(f->server);
    uv_close((uv_handle_t *)&f->resume_timer, NULL);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    free(f);
}

/* -- Clients */

static inline struct client *client_new(struct fixture *f)
{
    struct client *c = calloc(1, sizeof(*c));

    assert_non_null(c);
    c->f = f;
    c->in.size_max = 64 * MIB;
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(c->fd >= 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&f->address, sizeof(f->address)), 0);
    return c;
}

static inline void client_free(struct client *c)
{
    if (c->fd >= 0)
        (void)close(c->fd);
    buffer_fini(&c->in);
    free(c);
}

/* Sends what the server takes without a wait; returns how much that was. */
static inline size_t client_push(struct client *c, const void *data, size_t size)
{
    ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);

    return sent > 0 ? (size_t)sent : 0;
}

static inline void client_send(struct client *c, const void *data, size_t size)
{
    uint64_t end_ns = clock_mono_ns() + WAIT_MAX_MS * NS_PER_MS;
    const char *p = data;

    while (size > 0) {
        ssize_t sent = send(c->fd, p, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return; /* refused in the middle: the reply says why */
        if (sent > 0) {
            p += sent;
            size -= (size_t)sent;
        }
        turn(c->f);
        assert_true(clock_mono_ns() < end_ns);
    }
}

static inline void client_send_text(struct client *c, const char *text)
{
    client_send(c, text, strlen(text));
}

/* Receives what is there, up to `size_max` bytes. */
static inline void client_receive(struct client *c, size_t size_max)
{
    uint8_t *to = buffer_reserve(&c->in, size_max);

    assert_non_null(to);
    ssize_t size = recv(c->fd, to, size_max, 0);
    if (size > 0)
        buffer_commit(&c->in, (size_t)size);
    else if (size == 0 || errno != EAGAIN)
        c->eof = true;
}

static inline void client_wait_eof(struct client *c)
{
    uint64_t end_ns = clock_mono_ns() + WAIT_MAX_MS * NS_PER_MS;

    while (!c->eof) {
        turn(c->f);
        client_receive(c, 65536);
        assert_true(clock_mono_ns() < end_ns);
    }
}

static inline void reply_fini(struct reply *r)
{
    free(r->head_text);
    buffer_fini(&r->body);
    memset(r, 0, sizeof(*r));
}

/* Tries to take a whole body; true when it is there (or cannot come any more). */
static inline bool take_body(struct client *c, struct reply *r, struct http_chunked *chunked)
{
    struct error e = ERROR_INIT;

    while (r->head.framing == HTTP_BODY_CHUNKED && c->in.size > 0) {
        struct http_span piece;
        size_t used;
        enum http_result result = http_chunked_decode(chunked, (const char *)buffer_bytes(&c->in),
                                                      c->in.size, &used, &piece, &e);
        assert_int_not_equal(result, HTTP_BAD);
        assert_int_equal(buffer_append(&r->body, piece.data, piece.size), 0);
        buffer_consume(&c->in, used);
        if (result == HTTP_DONE)
            return true;
    }
    if (r->head.framing == HTTP_BODY_NONE)
        return true;
    if (r->head.framing == HTTP_BODY_LENGTH) {
        size_t left = (size_t)r->head.content_length - r->body.size;
        size_t take = c->in.size < left ? c->in.size : left;

        if (take > 0)
            assert_int_equal(buffer_append(&r->body, buffer_bytes(&c->in), take), 0);
        buffer_consume(&c->in, take);
        if (take == left)
            return true;
    }
    r->truncated = c->eof;
    return c->eof;
}

/* Waits for the next reply; fails the test when none comes. */
static inline struct reply client_reply_to(struct client *c, enum http_method method)
{
    uint64_t end_ns = clock_mono_ns() + WAIT_MAX_MS * NS_PER_MS;
    struct reply r = {.body.size_max = 64 * MIB};
    struct http_chunked chunked;
    struct error e = ERROR_INIT;
    size_t scanned = 0;

    http_chunked_init(&chunked);
    for (;;) {
        assert_true(clock_mono_ns() < end_ns);
        turn(c->f);
        if (!c->eof)
            client_receive(c, 65536);
        if (r.head_text == NULL && c->in.size > 0) {
            enum http_result result = http_response_parse(
                (const char *)buffer_bytes(&c->in), c->in.size, &scanned, method, &r.head, &e);
            if (result == HTTP_BAD)
                fail_msg("bad reply: %s", e.message);
            if (result == HTTP_DONE) {
                r.head_text = malloc(r.head.size);
                assert_non_null(r.head_text);
                memcpy(r.head_text, buffer_bytes(&c->in), r.head.size);
                http_head_rebase(&r.head, (const char *)buffer_bytes(&c->in), r.head_text);
                buffer_consume(&c->in, r.head.size);
            }
        }
        if (r.head_text != NULL && take_body(c, &r, &chunked))
            return r;
        if (r.head_text == NULL && c->eof)
            fail_msg("the connection was closed without a reply");
    }
}

static inline struct reply client_reply(struct client *c)
{
    return client_reply_to(c, HTTP_GET);
}

static inline bool reply_has(const struct reply *r, const char *name, const char *value)
{
    const struct http_header *header = http_head_find(&r->head, name);

    return header != NULL && http_span_is(header->value, value);
}

static inline bool reply_contains(const struct reply *r, const char *text)
{
    return r->body.size > 0 &&
           memmem(buffer_bytes(&r->body), r->body.size, text, strlen(text)) != NULL;
}

static inline void check_pattern(const struct buffer *b)
{
    for (size_t i = 0; i < b->size; i++) {
        if (buffer_bytes(b)[i] != (uint8_t)(i * 7))
            fail_msg("wrong byte at %zu", i);
    }
}

/* Sends one request on a new connection and checks the reply's status. */
static inline void expect_status(struct fixture *f, const char *request, int status)
{
    struct client *c = client_new(f);

    client_send_text(c, request);
    struct reply r = client_reply(c);
    if (r.head.status != status)
        fail_msg("%d, not %d, to: %s", r.head.status, status, request);
    reply_fini(&r);
    client_free(c);
}
