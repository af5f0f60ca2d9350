#include "guest/channel/service.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

#define EVENTS_MAX 32

/* The service's own events; those of streams are STREAM_EVENT_MIN and above. */
enum event_source { EVENT_PORT, EVENT_SIGNAL };

static int watch(const struct service *v, enum event_source source, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = source};

    return epoll_ctl(v->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

int service_init(struct service *v, int port_fd, const struct stream_row *rows, size_t row_count,
                 struct error *e)
{
    sigset_t child, all;

    memset(v, 0, sizeof(*v));
    v->epoll_fd = v->signal_fd = -1;
    (void)umask(SERVICE_UMASK);
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);

    if (port_init(&v->port, port_fd, e) < 0)
        return -1;
    v->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    v->signal_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (v->epoll_fd < 0 || v->signal_fd < 0)
        return error_errno(e, errno, "epoll or signalfd");
    v->port_events = EPOLLIN;
    if (watch(v, EVENT_PORT, port_fd) < 0 || watch(v, EVENT_SIGNAL, v->signal_fd) < 0)
        return error_errno(e, errno, "epoll");
    return streams_init(&v->streams, &v->port, v->epoll_fd, rows, row_count, e);
}

void service_fini(struct service *v)
{
    streams_fini(&v->streams);
    port_fini(&v->port);
    fd_close(&v->epoll_fd);
    fd_close(&v->signal_fd);
}

void service_when_idle(struct service *v, void (*call)(void *owner), void *owner)
{
    v->when_idle = call;
    v->idle_owner = owner;
}

static void reap_children(struct service *v)
{
    struct signalfd_siginfo info;
    struct rusage usage;
    int status;

    while (read(v->signal_fd, &info, sizeof(info)) < 0 && errno == EINTR)
        continue;
    for (;;) {
        pid_t pid = wait4(-1, &status, WNOHANG, &usage);

        if (pid < 0 && errno == EINTR)
            continue;
        if (pid <= 0)
            return;
        streams_child(&v->streams, pid, status, &usage);
    }
}

/* While the host does not take what we have to say, no more of its frames is looked at; returns 1
 * where that leaves frames behind. */
static int handle_frames(struct service *v, struct error *e)
{
    while (port_has_room(&v->port)) {
        struct channel_header h;
        const uint8_t *payload;
        int got = port_next(&v->port, &h, &payload, e);

        if (got <= 0)
            return got;
        int result = streams_frame(&v->streams, &h, payload, e);
        port_drop(&v->port, &h);
        if (result < 0)
            return -1;
    }
    return 1;
}

/* Tells epoll what the port is waited for. */
static int watch_port(struct service *v, struct error *e)
{
    struct epoll_event event = {.data.u64 = EVENT_PORT};

    if (port_has_room(&v->port))
        event.events |= EPOLLIN;
    if (v->port.blocked)
        event.events |= EPOLLOUT;
    if (event.events == v->port_events)
        return 0;
    v->port_events = event.events;
    if (epoll_ctl(v->epoll_fd, EPOLL_CTL_MOD, v->port.fd, &event) < 0)
        return error_errno(e, errno, "epoll");
    return 0;
}

/* Milliseconds until a stream wants to be woken, rounded up; -1 where none does. */
static int next_timeout_ms(const struct service *v)
{
    uint64_t wake_ns = streams_next_wake_ns(&v->streams);

    if (wake_ns == UINT64_MAX)
        return -1;
    uint64_t now_ns = clock_mono_ns();
    return wake_ns <= now_ns ? 0 : (int)((wake_ns - now_ns) / NS_PER_MS + 1);
}

static int handle_event(struct service *v, const struct epoll_event *event, struct error *e)
{
    switch (event->data.u64) {
    case EVENT_PORT:
        return (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) ? port_fill(&v->port, e) : 0;
    case EVENT_SIGNAL:
        reap_children(v);
        return 0;
    default:
        streams_event(&v->streams, event->data.u64, event->events);
        return 0;
    }
}

/* Handles what epoll has said, then sends what can be sent; *ret_more: more can be, at once. */
static int step(struct service *v, const struct epoll_event *events, int count, bool *ret_more,
                struct error *e)
{
    for (int i = 0; i < count; i++) {
        if (handle_event(v, &events[i], e) < 0)
            return -1;
    }
    int frames_left = handle_frames(v, e);
    if (frames_left < 0)
        return -1;
    streams_wake(&v->streams);
    bool more = streams_pump(&v->streams);
    if (port_flush(&v->port, e) < 0)
        return -1;
    /* What had to wait for room may have it now; a port that takes nothing will call. */
    *ret_more = (more || frames_left > 0) && port_has_room(&v->port);
    return 0;
}

int service_run(struct service *v, struct error *e)
{
    struct epoll_event events[EVENTS_MAX];
    bool more = false;

    while (!v->port.closed) {
        int timeout_ms = more ? 0 : next_timeout_ms(v);

        if (timeout_ms < 0 && v->when_idle != NULL)
            v->when_idle(v->idle_owner);
        if (watch_port(v, e) < 0)
            return -1;
        int count = epoll_wait(v->epoll_fd, events, EVENTS_MAX, timeout_ms);
        if (count < 0 && errno != EINTR)
            return error_errno(e, errno, "epoll_wait");
        if (step(v, events, count, &more, e) < 0)
            return -1;
    }
    return 0;
}
