#include "daemon/server/server.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "cloche/limits.h"
#include "daemon/server/conversation.h"
#include "daemon/server/exchange_key.h"
#include "daemon/server/service.h"
#include "http/write.h"
#include "json/json_write.h"

#define ACCEPTS_PER_TURN 32u
/* Clients that were turned away, on top of connections_max, while they read why. */
#define TURNED_AWAY_MAX 64u
#define REFUSAL_MAX     4096u
#define ACCEPT_RETRY_MS 100u

struct server {
    struct service service;
    uint32_t connections_max;
    uv_poll_t listener;
    uv_timer_t timer; /* the grace of a stop; before that, a pause in accepting */
    int listen_fd;
    int reserve_fd; /* given up to be able to refuse a client when descriptors run out */
    unsigned parts; /* handles, and the keys, that are not closed */
    void (*on_stopped)(void *arg);
    void *arg;
};

static void on_part_closed(void *arg);
static void on_handle_closed(uv_handle_t *handle);

static void check_stopped(struct server *s)
{
    if (!s->service.stopping || s->service.conversation_count > 0)
        return;
    /* Nobody left to wait for. */
    if (!uv_is_closing((uv_handle_t *)&s->timer)) {
        uv_close((uv_handle_t *)&s->timer, on_handle_closed);
        exchange_keys_free(s->service.keys, on_part_closed, s);
    }
    if (s->parts == 0 && s->on_stopped != NULL) {
        void (*on_stopped)(void *arg) = s->on_stopped;

        s->on_stopped = NULL;
        on_stopped(s->arg);
    }
}

static void on_part_closed(void *arg)
{
    struct server *s = arg;

    s->parts--;
    check_stopped(s);
}

static void on_handle_closed(uv_handle_t *handle)
{
    on_part_closed(handle->data);
}

/* The service is embedded. */
static void on_conversation_ended(struct service *service)
{
    check_stopped((struct server *)((char *)service - offsetof(struct server, service)));
}

static int write_refusal(struct server *s, struct buffer *out)
{
    struct buffer body = BUFFER_INIT(REFUSAL_MAX);
    struct error e = ERROR_INIT;
    struct json_writer w;
    int result = -1;

    error_set(&e, ERR_NO_CAPACITY, "more than %u connections at once", s->connections_max);
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
    if (s->service.conversation_count >= s->connections_max + TURNED_AWAY_MAX) {
        (void)close(fd);
        return;
    }
    (void)shutdown(fd, SHUT_WR);
    conversation_begin_farewell(&s->service, fd);
}

static void on_listener(uv_poll_t *poll, int status, int events);

static void on_accept_again(uv_timer_t *timer)
{
    struct server *s = timer->data;

    (void)uv_poll_start(&s->listener, UV_READABLE, on_listener);
}

/* A client that cannot be accepted stays in the queue, and would wake us again and again. */
static void pause_accepting(struct server *s)
{
    (void)uv_poll_stop(&s->listener);
    (void)uv_timer_start(&s->timer, on_accept_again, ACCEPT_RETRY_MS, 0);
}

/* Out of descriptors: the one kept in reserve serves to turn the client away. */
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
        pause_accepting(s);
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
            else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
                pause_accepting(s);
            return;
        }
        if (s->service.conversation_count >= s->connections_max)
            turn_away(s, fd);
        else
            conversation_begin(&s->service, fd);
    }
}

static uint32_t or_default(uint32_t value, uint32_t normal)
{
    return value != 0 ? value : normal;
}

static void set_up(struct server *s, const struct server_options *o)
{
    s->service = (struct service){
        .loop = o->loop,
        .routes = o->routes,
        .route_count = o->route_count,
        .context = o->context,
        .budget = o->budget,
        .head_timeout_ms = or_default(o->head_timeout_ms, HTTP_HEAD_TIMEOUT_MS),
        .idle_timeout_ms = or_default(o->idle_timeout_ms, HTTP_IDLE_TIMEOUT_MS),
        .stall_timeout_ms = or_default(o->stall_timeout_ms, HTTP_BODY_STALL_MS),
        .linger_ms = or_default(o->linger_ms, HTTP_LINGER_MS),
        .on_ended = on_conversation_ended,
    };
    LIST_INIT(&s->service.conversations);
    s->connections_max = or_default(o->connections_max, HTTP_CONNECTIONS_MAX);
}

int server_new(const struct server_options *options, int listen_fd, struct server **ret_server,
               struct error *e)
{
    FD_AUTO int fd = listen_fd;
    struct server *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return error_errno(e, ENOMEM, "cannot start the API server");
    set_up(s, options);
    if (exchange_keys_new(options->loop, &s->service.keys, e) != 0) {
        free(s);
        return -1;
    }
    int result = uv_poll_init(options->loop, &s->listener, fd);
    if (result != 0) {
        exchange_keys_free(s->service.keys, NULL, NULL);
        free(s);
        return error_set(e, ERR_INTERNAL, "cannot watch the API's socket: %s", uv_strerror(result));
    }
    (void)uv_timer_init(options->loop, &s->timer);
    s->listener.data = s;
    s->timer.data = s;
    s->parts = 3;
    s->listen_fd = fd_take(&fd);
    s->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    result = uv_poll_start(&s->listener, UV_READABLE, on_listener);
    assert(result == 0);
    *ret_server = s;
    return 0;
}

static void on_grace_over(uv_timer_t *timer)
{
    struct server *s = timer->data;

    conversation_cut_all(&s->service);
    check_stopped(s);
}

void server_stop(struct server *s, uint32_t grace_ms, void (*on_stopped)(void *arg), void *arg)
{
    s->on_stopped = on_stopped;
    s->arg = arg;
    if (s->service.stopping) {
        if (!uv_is_closing((uv_handle_t *)&s->timer) && uv_timer_get_due_in(&s->timer) > grace_ms)
            (void)uv_timer_start(&s->timer, on_grace_over, grace_ms, 0);
        return;
    }
    s->service.stopping = true;
    uv_close((uv_handle_t *)&s->listener, on_handle_closed);
    fd_close(&s->listen_fd);
    fd_close(&s->reserve_fd);
    conversation_end_idle(&s->service);
    (void)uv_timer_start(&s->timer, on_grace_over, grace_ms, 0);
    check_stopped(s);
}

void server_free(struct server *s)
{
    if (s == NULL)
        return;
    assert(s->service.stopping && s->parts == 0 && s->service.conversation_count == 0);
    free(s);
}
