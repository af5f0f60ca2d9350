#include "daemon/server/server.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "cloche/limits.h"
#include "daemon/server/server_private.h"
#include "http/write.h"
#include "json/json_write.h"

#define ACCEPTS_PER_TURN 32u
/* Clients that were turned away, on top of connections_max, while they read why. */
#define TURNED_AWAY_MAX 64u
#define REFUSAL_MAX     4096u
#define ACCEPT_RETRY_MS 100u

static void on_handle_closed(uv_handle_t *handle);

static void check_stopped(struct server *s)
{
    /* Nobody left to wait for. */
    if (s->stopping && s->connection_count == 0 && !uv_is_closing((uv_handle_t *)&s->timer))
        uv_close((uv_handle_t *)&s->timer, on_handle_closed);
    if (s->stopping && s->handles == 0 && s->connection_count == 0 && s->on_stopped != NULL) {
        void (*on_stopped)(void *) = s->on_stopped;

        s->on_stopped = NULL;
        on_stopped(s->options.context);
    }
}

void server_connection_gone(struct server *s)
{
    assert(s->connection_count > 0);
    s->connection_count--;
    check_stopped(s);
}

static int write_refusal(struct server *s, struct buffer *out)
{
    struct buffer body = BUFFER_INIT(REFUSAL_MAX);
    struct error e = ERROR_INIT;
    struct json_writer w;
    int result = -1;

    error_set(&e, ERR_NO_CAPACITY, "more than %u connections at once", s->options.connections_max);
    json_writer_init(&w, &body);
    json_put_error(&w, &e, NULL);
    if (!w.failed && http_response_start(out, 503) == 0 &&
        http_header_put(out, "Content-Type", "application/json") == 0 &&
        http_header_put(out, "Content-Length", "%zu", body.size) == 0 &&
        http_header_put(out, "Retry-After", "1") == 0 &&
        http_header_put(out, "Connection", "close") == 0 && http_head_end(out) == 0)
        result = buffer_append(out, buffer_bytes(&body), body.size);
    buffer_fini(&body);
    return result;
}

/* Tells one client too many so, whatever it wants. */
static void turn_away(struct server *s, int fd)
{
    struct buffer out = BUFFER_INIT(REFUSAL_MAX);

    if (write_refusal(s, &out) == 0)
        (void)!send(fd, buffer_bytes(&out), out.size, MSG_NOSIGNAL | MSG_DONTWAIT);
    buffer_fini(&out);
    if (s->connection_count >= s->options.connections_max + TURNED_AWAY_MAX) {
        (void)close(fd);
        return;
    }
    (void)shutdown(fd, SHUT_WR);
    (void)connection_new(s, fd, CONNECTION_LINGER);
}

static void on_listener(uv_poll_t *poll, int status, int events);

static void on_accept_again(uv_timer_t *timer)
{
    struct server *s = timer->data;

    (void)uv_poll_start(&s->listener, UV_READABLE, on_listener);
}

/* Out of descriptors: a client that stays in the queue would wake us again and again, so the one
 * kept in reserve serves to turn it away. Where even that fails, wait a little. */
static void accept_without_descriptors(struct server *s)
{
    fd_close(&s->reserve_fd);
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        struct buffer out = BUFFER_INIT(REFUSAL_MAX);

        if (write_refusal(s, &out) == 0)
            (void)!send(fd, buffer_bytes(&out), out.size, MSG_NOSIGNAL | MSG_DONTWAIT);
        buffer_fini(&out);
        (void)close(fd);
    } else {
        (void)uv_poll_stop(&s->listener);
        (void)uv_timer_start(&s->timer, on_accept_again, ACCEPT_RETRY_MS, 0);
    }
    s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_listener(uv_poll_t *poll, int status, int events)
{
    struct server *s = poll->data;

    (void)status;
    (void)events;
    for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE)
                accept_without_descriptors(s);
            return;
        }
        if (s->connection_count >= s->options.connections_max)
            turn_away(s, fd);
        else
            (void)connection_new(s, fd, CONNECTION_HEAD);
    }
}

static void on_keys_timer(uv_timer_t *timer)
{
    server_watch_keys(timer->data);
}

void server_watch_keys(struct server *s)
{
    uint64_t now_ms = uv_now(s->options.loop);
    uint64_t due_ms = idempotency_expire(s->keys, now_ms);

    if (due_ms != 0 && !s->stopping)
        (void)uv_timer_start(&s->keys_timer, on_keys_timer, due_ms - now_ms, 0);
}

static void set_defaults(struct server_options *o)
{
    const struct {
        uint32_t *value;
        uint32_t normal;
    } defaults[] = {
        {&o->connections_max, HTTP_CONNECTIONS_MAX},
        {&o->head_timeout_ms, HTTP_HEAD_TIMEOUT_MS},
        {&o->idle_timeout_ms, HTTP_IDLE_TIMEOUT_MS},
        {&o->stall_timeout_ms, HTTP_BODY_STALL_MS},
        {&o->linger_ms, HTTP_LINGER_MS},
    };

    for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++) {
        if (*defaults[i].value == 0)
            *defaults[i].value = defaults[i].normal;
    }
}

int server_new(const struct server_options *options, int listen_fd, struct server **ret_server,
               struct error *e)
{
    struct server *s = calloc(1, sizeof(*s));

    if (s == NULL) {
        (void)close(listen_fd);
        return error_errno(e, ENOMEM, "cannot start the API server");
    }
    s->options = *options;
    set_defaults(&s->options);
    LIST_INIT(&s->connections);
    s->listen_fd = listen_fd;
    if (idempotency_table_new(&s->keys, e) != 0) {
        (void)close(listen_fd);
        free(s);
        return -1;
    }
    s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int result = uv_poll_init(options->loop, &s->listener, listen_fd);
    if (result != 0) {
        fd_close(&s->listen_fd);
        fd_close(&s->reserve_fd);
        idempotency_table_free(s->keys);
        free(s);
        return error_set(e, ERR_INTERNAL, "cannot watch the API's socket: %s", uv_strerror(result));
    }
    (void)uv_timer_init(options->loop, &s->timer);
    (void)uv_timer_init(options->loop, &s->keys_timer);
    s->listener.data = s;
    s->timer.data = s;
    s->keys_timer.data = s;
    s->handles = 3;
    result = uv_poll_start(&s->listener, UV_READABLE, on_listener);
    assert(result == 0);
    *ret_server = s;
    return 0;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct server *s = handle->data;

    s->handles--;
    check_stopped(s);
}

static void on_grace_over(uv_timer_t *timer)
{
    struct server *s = timer->data;
    struct connection *c;

    LIST_FOREACH (c, &s->connections, entry) {
        if (c->phase == CONNECTION_EXCHANGE)
            connection_break(c);
        else if (c->phase != CONNECTION_CLOSED)
            connection_close(c);
    }
    check_stopped(s);
}

void server_stop(struct server *s, uint32_t grace_ms, void (*on_stopped)(void *context))
{
    struct connection *c;

    s->on_stopped = on_stopped;
    if (s->stopping) {
        if (!uv_is_closing((uv_handle_t *)&s->timer) && uv_timer_get_due_in(&s->timer) > grace_ms)
            (void)uv_timer_start(&s->timer, on_grace_over, grace_ms, 0);
        return;
    }
    s->stopping = true;
    uv_close((uv_handle_t *)&s->listener, on_handle_closed);
    uv_close((uv_handle_t *)&s->keys_timer, on_handle_closed);
    fd_close(&s->listen_fd);
    fd_close(&s->reserve_fd);
    LIST_FOREACH (c, &s->connections, entry) {
        if (c->phase == CONNECTION_HEAD || c->phase == CONNECTION_SKIP)
            connection_close(c);
    }
    (void)uv_timer_start(&s->timer, on_grace_over, grace_ms, 0);
    check_stopped(s);
}

void server_free(struct server *s)
{
    if (s == NULL)
        return;
    assert(s->stopping && s->handles == 0 && s->connection_count == 0);
    idempotency_table_free(s->keys);
    free(s);
}

size_t server_connection_count(const struct server *s)
{
    return s->connection_count;
}
