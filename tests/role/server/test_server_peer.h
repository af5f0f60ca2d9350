/*
 * A real server on a Unix socket, its handlers, and clients against it, all on one thread and with
 * a clock of their own (fake_clock.h): a client that waits turns the server's loop meanwhile, so
 * every test runs in one order only.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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
#include "daemon/server/exchange.h"
#include "daemon/server/server.h"
#include "http/chunked.h"
#include "http/head.h"
#include "test_server_handlers.h"
#include "tests/fake_clock.h"

#define HOST        "Host: localhost\r\n"
#define WAIT_MAX_MS 5000u
/* Far more than anything here takes. */
#define TURNS_TO_REST  2000u
#define WAIT_TURNS_MAX 200000u

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

/* -- The fixture */

static inline void turn(struct fixture *f)
{
    (void)uv_run(&f->loop, UV_RUN_NOWAIT);
}

static inline bool is_at_rest(struct fixture *f)
{
    struct pollfd p = {.fd = uv_backend_fd(&f->loop), .events = POLLIN};

    return (uv_backend_timeout(&f->loop) != 0 || !uv_loop_alive(&f->loop)) && poll(&p, 1, 0) == 0;
}

/* Has the server do all that there is to do now; fails where that finds no end. */
static inline void turn_to_rest(struct fixture *f)
{
    for (unsigned i = 0; i < TURNS_TO_REST; i++) {
        turn(f);
        if (is_at_rest(f))
            return;
    }
    fail_msg("the loop finds something to do again and again");
}

/* Lets time pass. */
static inline void turn_for(struct fixture *f, unsigned ms)
{
    for (unsigned i = 0; i < ms; i++) {
        fake_clock_move_ms(1);
        turn_to_rest(f);
    }
}

/* How long something may take, by the clock and in turns. */
struct patience {
    uint64_t end_ns;
    unsigned turns;
};

static inline struct patience patience_new(void)
{
    return (struct patience){clock_mono_ns() + WAIT_MAX_MS * NS_PER_MS, WAIT_TURNS_MAX};
}

/* Waits a little for `what`: time passes where the server has nothing to do. */
static inline void wait_turn(struct fixture *f, struct patience *p, const char *what)
{
    turn(f);
    if (is_at_rest(f))
        fake_clock_move_ms(1);
    if (clock_mono_ns() > p->end_ns || --p->turns == 0)
        fail_msg("this did not happen in time: %s", what);
}

#define turn_until(f, condition)                                                                   \
    do {                                                                                           \
        struct patience patience = patience_new();                                                 \
        while (!(condition))                                                                       \
            wait_turn(f, &patience, #condition);                                                   \
    } while (0)

static inline void count_handle(uv_handle_t *handle, void *arg)
{
    (void)handle;
    ++*(unsigned *)arg;
}

/* How many handles of the loop belong to connections: two to each, and one that is left while the
 * client is gone and the handler has not finished. */
static inline unsigned connection_handles(struct fixture *f)
{
    unsigned count = 0;

    uv_walk(&f->loop, count_handle, &count);
    return count - f->idle_handles;
}

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
    f->budget = (struct exchange_budget)EXCHANGE_BUDGET_INIT;
    options.budget = &f->budget;
    assert_int_equal(server_new(&options, fd, &f->server, &e), 0);
    f->idle_handles = connection_handles(f);
    return f;
}

static inline void on_fixture_stopped(void *arg)
{
    ((struct fixture *)arg)->stopped = true;
}

/* Stops the server; every exchange must have been closed, and nothing be left on the loop. */
static inline void fixture_free(struct fixture *f)
{
    if (!f->stopped) {
        server_stop(f->server, 50, on_fixture_stopped, f);
        turn_until(f, f->stopped);
    }
    assert_int_equal(f->calls, f->closes);
    assert_int_equal(f->budget.bodies.bytes, 0);
    assert_int_equal(f->budget.replies.bytes, 0);
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
    struct patience patience = patience_new();
    const char *p = data;

    while (size > 0) {
        ssize_t sent = send(c->fd, p, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return; /* refused in the middle: the reply says why */
        if (sent > 0) {
            p += sent;
            size -= (size_t)sent;
        }
        wait_turn(c->f, &patience, "the server takes it");
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
    struct patience patience = patience_new();

    while (!c->eof) {
        wait_turn(c->f, &patience, "the connection ends");
        client_receive(c, 65536);
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
    struct patience patience = patience_new();
    struct reply r = {.body.size_max = 64 * MIB};
    struct http_chunked chunked;
    struct error e = ERROR_INIT;
    size_t scanned = 0;

    http_chunked_init(&chunked);
    for (;;) {
        wait_turn(c->f, &patience, "a reply");
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

/* A POST with a body and more header lines. */
static inline void client_post(struct client *c, const char *target, const char *headers,
                               const char *body)
{
    char text[1024];
    int size =
        snprintf(text, sizeof(text), "POST %s HTTP/1.1\r\n" HOST "%sContent-Length: %zu\r\n\r\n%s",
                 target, headers, strlen(body), body);

    assert_true(size > 0 && (size_t)size < sizeof(text));
    client_send(c, text, (size_t)size);
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
