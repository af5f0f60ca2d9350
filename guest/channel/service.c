#include "guest/channel/service.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
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
/* Made before the snapshot; more are made when so many commands run at once. */
#define GROUPS_READY 4u
#define TAG_BITS     8

int service_watch(struct service *v, uint32_t stream, enum service_tag tag, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events,
                                .data.u64 = (uint64_t)stream << TAG_BITS | (uint64_t)tag};

    return epoll_ctl(v->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

int service_init(struct service *v, int port_fd, const char *cgroup_path,
                 const struct layers *layers, struct error *e)
{
    sigset_t child, all;

    memset(v, 0, sizeof(*v));
    v->layers = *layers;
    v->epoll_fd = v->signal_fd = v->null_fd = v->groups.root_fd = -1;
    (void)umask(022);
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);

    if (port_init(&v->port, port_fd, e) < 0 || stagings_init(&v->stagings, e) < 0)
        return -1;
    v->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    v->signal_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    v->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (v->epoll_fd < 0 || v->signal_fd < 0 || v->null_fd < 0)
        return error_errno(e, errno, "epoll, signalfd or /dev/null");
    v->port_events = EPOLLIN;
    if (service_watch(v, 0, SERVICE_TAG_PORT, port_fd, v->port_events) < 0 ||
        service_watch(v, 0, SERVICE_TAG_SIGNAL, v->signal_fd, EPOLLIN) < 0)
        return error_errno(e, errno, "epoll");
    execgroups_init(&v->groups, cgroup_path, GROUPS_READY);
    command_warm_up();
    return 0;
}

void service_fini(struct service *v)
{
    streams_fini(v);
    execgroups_fini(&v->groups);
    stagings_fini(&v->stagings);
    port_fini(&v->port);
    fd_close(&v->epoll_fd);
    fd_close(&v->signal_fd);
    fd_close(&v->null_fd);
}

/* As PID 1 the agent inherits every orphan; those belong to no stream. */
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
        for (unsigned i = 0; i < v->streams.used_count; i++) {
            struct stream *s = &v->streams.slots[i];
            if (s->id != 0 && s->op == &command_op && s->command.pid == pid && !s->command.exited) {
                command_exited(v, s, status, &usage);
                break;
            }
        }
    }
}

static void dispatch(struct service *v, const struct epoll_event *event)
{
    uint32_t id = (uint32_t)(event->data.u64 >> TAG_BITS);
    enum service_tag tag = (enum service_tag)(event->data.u64 & ((1u << TAG_BITS) - 1));

    if (id != 0) {
        /* An event of the same batch may have ended the stream. */
        struct stream *s = streams_find(&v->streams, id);
        if (s != NULL && tag == SERVICE_TAG_WATCH)
            file_watch_event(s);
        else if (s != NULL)
            command_event(v, s, tag, event->events);
    } else if (tag == SERVICE_TAG_SIGNAL) {
        reap_children(v);
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
        int result = streams_frame(v, &h, payload, e);
        port_drop(&v->port, &h);
        if (result < 0)
            return -1;
    }
    return 1;
}

/* Tells epoll what the port is waited for. */
static int watch_port(struct service *v, struct error *e)
{
    struct epoll_event event = {.data.u64 = SERVICE_TAG_PORT};

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

/* Milliseconds until a command's grace ends, rounded up; -1 where none is running out. */
static int next_timeout_ms(struct service *v)
{
    uint64_t deadline_ns = UINT64_MAX;

    for (unsigned i = 0; i < v->streams.used_count; i++) {
        struct stream *s = &v->streams.slots[i];
        if (s->id != 0 && s->op == &command_op && s->command.kill_at_ns != 0 &&
            s->command.kill_at_ns < deadline_ns)
            deadline_ns = s->command.kill_at_ns;
    }
    if (deadline_ns == UINT64_MAX)
        return -1;
    uint64_t now_ns = clock_mono_ns();
    return deadline_ns <= now_ns ? 0 : (int)((deadline_ns - now_ns) / NS_PER_MS + 1);
}

static void handle_deadlines(struct service *v)
{
    uint64_t now_ns = 0;

    for (unsigned i = 0; i < v->streams.used_count; i++) {
        struct stream *s = &v->streams.slots[i];
        if (s->id == 0 || s->op != &command_op || s->command.kill_at_ns == 0)
            continue;
        if (now_ns == 0)
            now_ns = clock_mono_ns();
        if (s->command.kill_at_ns <= now_ns)
            command_grace_over(v, s);
    }
}

/* Handles what epoll has said, then sends what can be sent; true where more can be at once. */
static int step(struct service *v, const struct epoll_event *events, int count, bool *ret_more,
                struct error *e)
{
    for (int i = 0; i < count; i++) {
        if (events[i].data.u64 == SERVICE_TAG_PORT) {
            if ((events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && port_fill(&v->port, e) < 0)
                return -1;
        } else {
            dispatch(v, &events[i]);
        }
    }
    int frames_left = handle_frames(v, e);
    if (frames_left < 0)
        return -1;
    handle_deadlines(v);
    bool more = streams_pump(v);
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

        if (timeout_ms < 0)
            execgroups_tidy(&v->groups);
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
