#include "daemon/machine/priv_link.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "cloche/priv_proto.h"
#include "ipc/ipc.h"

/*
 * Requests that the socket did not take at once wait in a ring. A slot has at most a SPAWN, a LIMIT
 * and a KILL under way, and there is one TOTAL, so the ring cannot overflow.
 */
#define QUEUE_MAX (SANDBOX_COUNT_MAX * 4)

struct queued {
    struct priv_request request;
    int fd; /* -1 where none goes along */
};

struct slot {
    bool used;
    bool killed;
    struct priv_owner owner;
};

struct priv_link {
    uv_poll_t poll;
    int fd;
    bool closing;
    void (*lost)(void *context);
    void *context;
    unsigned count;
    uint32_t next_slot; /* where the search for a free one starts: slots are reused late */
    unsigned queue_head;
    unsigned queue_size;
    struct slot slots[SANDBOX_COUNT_MAX];
    struct queued queue[QUEUE_MAX];
};

static void on_poll(uv_poll_t *poll, int status, int events);

static void on_closed(uv_handle_t *handle)
{
    struct priv_link *p = handle->data;

    fd_close(&p->fd);
    free(p);
}

void priv_link_close(struct priv_link *p)
{
    if (p == NULL || p->closing)
        return;
    p->closing = true;
    for (unsigned i = 0; i < p->queue_size; i++)
        fd_close(&p->queue[(p->queue_head + i) % QUEUE_MAX].fd);
    p->queue_size = 0;
    (void)shutdown(p->fd, SHUT_RDWR);
    uv_close((uv_handle_t *)&p->poll, on_closed);
}

static void lose(struct priv_link *p)
{
    priv_link_close(p);
    p->lost(p->context);
}

struct priv_link *priv_link_new(uv_loop_t *loop, int fd, void (*lost)(void *context), void *context,
                                struct error *e)
{
    struct priv_link *p = calloc(1, sizeof(*p));

    if (p == NULL || fd_set_nonblocking(fd, 1) != 0 || uv_poll_init(loop, &p->poll, fd) != 0) {
        (void)error_errno(e, errno, "cannot watch the socket to priv");
        free(p);
        (void)close(fd);
        return NULL;
    }
    p->fd = fd;
    p->lost = lost;
    p->context = context;
    p->poll.data = p;
    (void)uv_poll_start(&p->poll, UV_READABLE, on_poll);
    return p;
}

/* Sends what waits until the socket is full again. */
static void flush(struct priv_link *p)
{
    struct error e = ERROR_INIT;

    while (p->queue_size > 0) {
        struct queued *q = &p->queue[p->queue_head];

        if (ipc_send(p->fd, &q->request, sizeof(q->request), &q->fd, q->fd >= 0, &e) != 0) {
            if (errno == EAGAIN)
                return;
            log_failure(&e, "priv");
            lose(p);
            return;
        }
        fd_close(&q->fd);
        p->queue_head = (p->queue_head + 1) % QUEUE_MAX;
        p->queue_size--;
    }
    (void)uv_poll_start(&p->poll, UV_READABLE, on_poll);
}

static int send_request(struct priv_link *p, const struct priv_request *request, int fd)
{
    struct error e = ERROR_INIT;

    if (p->closing)
        return -1;
    if (p->queue_size == 0) {
        if (ipc_send(p->fd, request, sizeof(*request), &fd, fd >= 0, &e) == 0)
            return 0;
        if (errno != EAGAIN) {
            log_failure(&e, "priv");
            return -1;
        }
    }
    int copy = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (fd >= 0 && copy < 0)
        return -1;
    assert(p->queue_size < QUEUE_MAX);
    p->queue[(p->queue_head + p->queue_size) % QUEUE_MAX] =
        (struct queued){.request = *request, .fd = copy};
    p->queue_size++;
    (void)uv_poll_start(&p->poll, UV_READABLE | UV_WRITABLE, on_poll);
    return 0;
}

static void on_event(struct priv_link *p, struct priv_event *event)
{
    if (event->slot >= SANDBOX_COUNT_MAX || !p->slots[event->slot].used) {
        log_error("priv: event %u for slot %u, which is not in use", event->type, event->slot);
        return;
    }
    struct slot *s = &p->slots[event->slot];
    event->text[sizeof(event->text) - 1] = '\0';
    if (event->type == PRIV_SPAWNED) {
        s->owner.spawned(s->owner.context, event->pid);
    } else if (event->type == PRIV_EXITED) {
        struct priv_owner owner = s->owner;

        *s = (struct slot){0};
        p->count--;
        owner.exited(owner.context, event->wait_status, event->text);
    } else {
        log_error("priv: unknown event %u", event->type);
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct priv_link *p = poll->data;

    if (status == 0 && (events & UV_WRITABLE) != 0)
        flush(p);
    while (!p->closing) {
        struct error e = ERROR_INIT;
        struct priv_event event;
        int n = ipc_recv(p->fd, &event, sizeof(event), NULL, 0, NULL, &e);

        if (n < 0 && errno == EAGAIN)
            return;
        if (n != (int)sizeof(event)) {
            lose(p);
            return;
        }
        on_event(p, &event);
    }
}

static bool find_slot(struct priv_link *p, uint32_t *ret_slot)
{
    for (uint32_t i = 0; i < SANDBOX_COUNT_MAX; i++) {
        uint32_t slot = (p->next_slot + i) % SANDBOX_COUNT_MAX;

        if (!p->slots[slot].used) {
            *ret_slot = slot;
            return true;
        }
    }
    return false;
}

static void fill_caps(struct priv_request *r, const struct priv_caps *caps)
{
    r->mem_max_mib = caps->mem_max_mib;
    r->cpu_quota_percent = caps->cpu_quota_percent;
    r->pids_max = caps->pids_max;
}

void priv_link_total(struct priv_link *p, uint32_t mem_max_mib)
{
    const struct priv_request request = {.type = PRIV_TOTAL, .mem_max_mib = mem_max_mib};

    (void)send_request(p, &request, -1);
}

int priv_link_spawn(struct priv_link *p, const struct priv_caps *caps, int control_fd,
                    const struct priv_owner *owner, uint32_t *ret_slot, struct error *e)
{
    struct priv_request request = {.type = PRIV_SPAWN};

    if (!find_slot(p, &request.slot))
        return error_set(e, ERR_NO_CAPACITY, "all %u guests that one daemon can run are in use",
                         SANDBOX_COUNT_MAX);
    fill_caps(&request, caps);
    if (send_request(p, &request, control_fd) != 0)
        return error_set(e, ERR_INTERNAL, "priv, which starts monitors, cannot be reached");
    p->slots[request.slot] = (struct slot){.used = true, .owner = *owner};
    p->count++;
    p->next_slot = request.slot + 1;
    *ret_slot = request.slot;
    return 0;
}

void priv_link_limit(struct priv_link *p, uint32_t slot, const struct priv_caps *caps)
{
    struct priv_request request = {.type = PRIV_LIMIT, .slot = slot};

    assert(slot < SANDBOX_COUNT_MAX && p->slots[slot].used);
    fill_caps(&request, caps);
    (void)send_request(p, &request, -1);
}

void priv_link_kill(struct priv_link *p, uint32_t slot)
{
    struct priv_request request = {.type = PRIV_KILL, .slot = slot};

    assert(slot < SANDBOX_COUNT_MAX && p->slots[slot].used);
    if (p->slots[slot].killed)
        return;
    p->slots[slot].killed = true;
    (void)send_request(p, &request, -1);
}

unsigned priv_link_count(const struct priv_link *p)
{
    return p->count;
}
