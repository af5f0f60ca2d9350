#include "vmm/loop.h"

#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "vmm/machine/machine.h"

#define STACK_BYTES (64 * KIB) /* a disk's request and its chain take 5 of them */
#define EVENTS_MAX  8

/* What an epoll event is about: a slot's queues, or its descriptor (from SOURCE_FDS on). */
enum { SOURCE_FDS = GUEST_VIRTIO_COUNT, SOURCE_CONTROL = 2 * GUEST_VIRTIO_COUNT };

static int watch(const struct lane *l, int operation, int fd, uint32_t events, uint32_t source,
                 struct error *e)
{
    struct epoll_event event = {.events = events, .data.u32 = source};

    if (epoll_ctl(l->epoll_fd, operation, fd, &event) != 0)
        return error_errno(e, errno, "epoll_ctl");
    return 0;
}

/* Empties an eventfd; what matters is that it was written to. */
static void clear(int event_fd)
{
    uint64_t count;

    if (read(event_fd, &count, sizeof(count)) < 0)
        return; /* EAGAIN: another wake-up already took it */
}

static void serve(const struct lane *l, const struct epoll_event *event)
{
    struct machine *m = l->machine;
    struct error e = ERROR_INIT;
    uint32_t source = event->data.u32;

    if (source == SOURCE_CONTROL)
        control_refuse(&m->control);
    if (source < SOURCE_FDS) {
        clear(m->kvm.notify_fds[source]);
        devices_notify(m->devices, (enum guest_virtio_slot)source);
    } else if (devices_io(m->devices, (enum guest_virtio_slot)(source - SOURCE_FDS), event->events,
                          &e) != 0) {
        control_gone_error(&m->control, VMM_GONE_PROTOCOL, &e);
    }
}

/* What a device waits for changes with every queue that is processed. */
static void update(struct lane *l)
{
    struct machine *m = l->machine;
    struct error e = ERROR_INIT;

    for (uint32_t slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        int fd = devices_fd(m->devices, slot);

        if (devices_lane(slot) != l->number || fd < 0)
            continue;
        uint32_t events = devices_events(m->devices, slot);
        if (events == l->events[slot])
            continue;
        l->events[slot] = events;
        if (watch(l, EPOLL_CTL_MOD, fd, events, SOURCE_FDS + slot, &e) != 0)
            control_gone_error(&m->control, VMM_GONE_PROTOCOL, &e);
    }
}

static void *thread_main(void *arg)
{
    struct lane *l = arg;
    struct epoll_event events[EVENTS_MAX];

    gate_arrive(&l->machine->started);
    for (;;) {
        int count = epoll_wait(l->epoll_fd, events, EVENTS_MAX, -1);

        /* EINTR aside, it cannot fail on descriptors of our own. */
        for (int i = 0; i < count; i++)
            serve(l, &events[i]);
        if (count > 0)
            update(l);
    }
    return NULL;
}

static int make_lane(struct lane *l, const pthread_attr_t *attr, struct error *e)
{
    pthread_t thread;

    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll_fd < 0)
        return error_errno(e, errno, "epoll_create1");
    for (uint32_t slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        if (devices_lane(slot) == l->number &&
            watch(l, EPOLL_CTL_ADD, l->machine->kvm.notify_fds[slot], EPOLLIN, slot, e) != 0)
            return -1;
    }
    int err = pthread_create(&thread, attr, thread_main, l);
    return err == 0 ? 0 : error_errno(e, err, "cannot make a thread for devices");
}

int loop_init(struct loop *l, struct machine *m, struct error *e)
{
    pthread_attr_t attr;
    int result = 0;

    if (pthread_attr_init(&attr) != 0 || pthread_attr_setstacksize(&attr, STACK_BYTES) != 0)
        return error_set(e, ERR_INTERNAL, "cannot set a thread's stack size");
    for (unsigned i = 0; i < DEVICES_LANE_COUNT && result == 0; i++) {
        l->lanes[i] = (struct lane){.machine = m, .number = i};
        result = make_lane(&l->lanes[i], &attr, e);
    }
    (void)pthread_attr_destroy(&attr);
    return result;
}

int loop_start(struct loop *l, struct error *e)
{
    struct lane *fast = &l->lanes[DEVICES_LANE_FAST];
    struct machine *m = fast->machine;

    /* All of `events` before the first descriptor joins: from then on it is its lane's to change,
     * and without a vCPU running no lane finds a reason to, but for what has joined. */
    for (uint32_t slot = 0; slot < GUEST_VIRTIO_COUNT; slot++)
        l->lanes[devices_lane(slot)].events[slot] = devices_events(m->devices, slot);
    for (uint32_t slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        const struct lane *lane = &l->lanes[devices_lane(slot)];
        int fd = devices_fd(m->devices, slot);

        if (fd >= 0 &&
            watch(lane, EPOLL_CTL_ADD, fd, lane->events[slot], SOURCE_FDS + slot, e) != 0)
            return -1;
    }
    return watch(fast, EPOLL_CTL_ADD, m->control.fd, EPOLLIN | EPOLLRDHUP, SOURCE_CONTROL, e);
}
