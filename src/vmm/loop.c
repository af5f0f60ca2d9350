#include "vmm/loop.h"

#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/state/park.h"
#include "vmm/vmm.h"

#define STACK_BYTES (256 * KIB)
#define EVENTS_MAX  8

/* What an epoll event is about; values below are the virtio slots. */
enum { SOURCE_CONTROL = GUEST_VIRTIO_COUNT, SOURCE_CHANNEL, SOURCE_PARK };

static int watch(struct loop *l, int operation, int fd, uint32_t events, uint32_t source,
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

static void notify(struct vmm *vmm, enum guest_virtio_slot slot)
{
    clear(vmm->kvm.notify_fds[slot]);
    devices_notify(vmm->devices, slot);
}

static void serve_channel(struct vmm *vmm, uint32_t events)
{
    /* A hang-up is reported even while the devices wait for nothing: without this the loop would
     * spin on a channel that is gone. */
    if (devices_channel_io(vmm->devices, events) != 0 || (events & (EPOLLHUP | EPOLLERR)) != 0)
        control_gone(&vmm->control, VMM_GONE_PROTOCOL, 0, "the daemon closed the agent channel");
}

static void serve(struct vmm *vmm, const struct epoll_event *event)
{
    switch (event->data.u32) {
    case SOURCE_CONTROL:
        control_refuse(&vmm->control);
    case SOURCE_CHANNEL:
        serve_channel(vmm, event->events);
        return;
    case SOURCE_PARK:
        park(vmm);
    default:
        notify(vmm, (enum guest_virtio_slot)event->data.u32);
    }
}

/* What the channel waits for changes with every queue that is processed. */
static void update_channel(struct vmm *vmm)
{
    struct error e = ERROR_INIT;
    uint32_t events = devices_channel_events(vmm->devices);

    if (events == vmm->loop.channel_events)
        return;
    vmm->loop.channel_events = events;
    if (watch(&vmm->loop, EPOLL_CTL_MOD, vmm->fds[VMM_FD_CHANNEL], events, SOURCE_CHANNEL, &e) != 0)
        control_gone_error(&vmm->control, VMM_GONE_PROTOCOL, &e);
}

static void *thread_main(void *arg)
{
    struct vmm *vmm = arg;
    struct epoll_event events[EVENTS_MAX];

    vcpu_gate_arrive(&vmm->gate);
    for (;;) {
        int count = epoll_wait(vmm->loop.epoll_fd, events, EVENTS_MAX, -1);

        /* EINTR aside, it cannot fail on descriptors of our own. */
        for (int i = 0; i < count; i++)
            serve(vmm, &events[i]);
        if (count > 0)
            update_channel(vmm);
    }
    return NULL;
}

int loop_init(struct vmm *vmm, struct error *e)
{
    struct loop *l = &vmm->loop;
    pthread_attr_t attr;
    pthread_t thread;

    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll_fd < 0)
        return error_errno(e, errno, "epoll_create1");
    l->park_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->park_fd < 0)
        return error_errno(e, errno, "eventfd");
    if (watch(l, EPOLL_CTL_ADD, l->park_fd, EPOLLIN, SOURCE_PARK, e) != 0)
        return -1;
    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        if (watch(l, EPOLL_CTL_ADD, vmm->kvm.notify_fds[slot], EPOLLIN, slot, e) != 0)
            return -1;
    }
    if (pthread_attr_init(&attr) != 0 || pthread_attr_setstacksize(&attr, STACK_BYTES) != 0)
        return error_set(e, ERR_INTERNAL, "cannot set a thread's stack size");
    int err = pthread_create(&thread, &attr, thread_main, vmm);
    (void)pthread_attr_destroy(&attr);
    return err == 0 ? 0 : error_errno(e, err, "cannot make the loop thread");
}

int loop_start(struct vmm *vmm, struct error *e)
{
    struct loop *l = &vmm->loop;

    l->channel_events = devices_channel_events(vmm->devices);
    if (watch(l, EPOLL_CTL_ADD, vmm->fds[VMM_FD_CHANNEL], l->channel_events, SOURCE_CHANNEL, e) !=
        0)
        return -1;
    return watch(l, EPOLL_CTL_ADD, vmm->control.fd, EPOLLIN | EPOLLRDHUP, SOURCE_CONTROL, e);
}

void loop_wake_to_park(struct loop *l)
{
    const uint64_t one = 1;

    if (write(l->park_fd, &one, sizeof(one)) < 0)
        return; /* EAGAIN: it is full, so the loop is being woken already */
}
