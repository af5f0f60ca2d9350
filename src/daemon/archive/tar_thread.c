#include "daemon/archive/tar_thread.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "cloche/limits.h"
#include "daemon/archive/tar_work.h"

struct tar_thread {
    uv_thread_t thread;
    uv_poll_t poll;
    uv_async_t ended; /* the thread's last word */
    unsigned open_handles;
    int fd;     /* the loop's end */
    int events; /* what `poll` waits for */
    bool is_paused;
    bool is_short; /* a send took less than it was given */
    bool is_out;   /* all that came out was taken: the thread has closed its end */
    bool is_joined;
    bool is_abandoned;
    struct tar_thread_calls calls;
    void *arg;

    /* The thread's, until it is joined; `skipped` see tar_thread_skipped(). */
    enum tar_direction direction;
    int thread_fd;
    struct tar_work work;
};

static unsigned running; /* of this process; the loop's thread alone counts */

static void thread_main(void *arg)
{
    struct tar_thread *t = arg;
    sigset_t all;

    /* Signals are the loop's. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, NULL);
    int result = t->direction == TAR_UNPACK ? tar_unpack(t->thread_fd, &t->work)
                                            : tar_pack(t->thread_fd, &t->work);
    assert((result != 0) == (t->work.error.code != ERR_NONE));
    fd_close(&t->thread_fd);
    (void)uv_async_send(&t->ended);
}

static void on_closed(uv_handle_t *handle)
{
    struct tar_thread *t = handle->data;

    if (--t->open_handles == 0)
        free(t);
}

static void close_poll(struct tar_thread *t)
{
    uv_close((uv_handle_t *)&t->poll, on_closed);
    (void)shutdown(t->fd, SHUT_RDWR);
    fd_close(&t->fd);
}

/* Both have been seen, the end of what comes out and that of the thread. */
static void finish(struct tar_thread *t)
{
    if (!t->is_joined || !t->is_out)
        return;
    close_poll(t);
    uv_close((uv_handle_t *)&t->ended, on_closed);
    t->calls.on_end(t->arg, t->work.error.code != ERR_NONE ? &t->work.error : NULL);
}

/* The thread has nothing left to do but to return: joining it takes no time. */
static void on_thread_ended(uv_async_t *async)
{
    struct tar_thread *t = async->data;

    (void)uv_thread_join(&t->thread);
    t->is_joined = true;
    running--;
    if (t->is_abandoned)
        uv_close((uv_handle_t *)&t->ended, on_closed);
    else
        finish(t);
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void watch(struct tar_thread *t)
{
    int events = (t->is_paused || t->is_out ? 0 : UV_READABLE) |
                 (t->is_short && !t->is_out ? UV_WRITABLE : 0);

    if (events == t->events)
        return;
    t->events = events;
    int rc = events != 0 ? uv_poll_start(&t->poll, events, on_poll) : uv_poll_stop(&t->poll);
    assert(rc == 0); /* it fails for a closing handle only */
}

static void read_some(struct tar_thread *t)
{
    uint8_t bytes[TAR_THREAD_PIECE_MAX];
    ssize_t n = recv(t->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n > 0) {
        t->calls.on_data(t->arg, bytes, (size_t)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        t->is_out = true;
        finish(t);
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct tar_thread *t = poll->data;

    /* libuv stops on an error, which is that of a thread that has ended without reading all: it
     * takes the rest as well, and what it wrote before is still to be read, when we want to. */
    if (status != 0) {
        t->events = 0;
        events = UV_READABLE | UV_WRITABLE;
    }
    if ((events & UV_READABLE) != 0 && !t->is_paused)
        read_some(t);
    if (uv_is_closing((uv_handle_t *)poll))
        return;
    if ((events & UV_WRITABLE) != 0 && t->is_short) {
        t->is_short = false;
        t->calls.on_writable(t->arg);
    }
    if (!uv_is_closing((uv_handle_t *)poll))
        watch(t);
}

/* The handles of a thread that is yet to be started. */
static int open_handles(uv_loop_t *loop, struct tar_thread *t, struct error *e)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return error_errno(e, errno, "socketpair");
    t->fd = fds[0];
    t->thread_fd = fds[1];
    int rc = uv_async_init(loop, &t->ended, on_thread_ended);
    if (rc == 0) {
        t->open_handles = 1;
        rc = uv_poll_init(loop, &t->poll, t->fd);
    }
    if (rc != 0)
        return error_errno(e, -rc, "cannot wait for a thread");
    t->open_handles = 2;
    t->ended.data = t->poll.data = t;
    return 0;
}

/* What open_handles() made, whole or in part. */
static void undo(struct tar_thread *t)
{
    unsigned count = t->open_handles;

    fd_close(&t->thread_fd);
    t->ended.data = t->poll.data = t;
    if (count == 2)
        uv_close((uv_handle_t *)&t->poll, on_closed);
    if (count >= 1)
        uv_close((uv_handle_t *)&t->ended, on_closed);
    fd_close(&t->fd);
    if (count == 0)
        free(t);
}

int tar_thread_new(uv_loop_t *loop, enum tar_direction direction,
                   const struct tar_thread_calls *calls, void *arg, struct tar_thread **ret_thread,
                   struct error *e)
{
    const uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE,
                                         .stack_size = TAR_STACK_BYTES};

    if (running >= TAR_THREADS_MAX) {
        (void)error_set(e, ERR_NO_CAPACITY, "%u trees are on their way already", running);
        return error_remedy(e, "Wait until one of them has arrived.");
    }
    struct tar_thread *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for a tree's transfer");
    t->fd = t->thread_fd = -1;
    t->direction = direction;
    t->calls = *calls;
    t->arg = arg;
    int rc = open_handles(loop, t, e);
    if (rc == 0 && (rc = uv_thread_create_ex(&t->thread, &options, thread_main, t)) != 0)
        (void)error_errno(e, -rc, "cannot start a thread for a tree's transfer");
    if (rc != 0) {
        undo(t);
        return -1;
    }
    running++;
    watch(t);
    *ret_thread = t;
    return 0;
}

size_t tar_thread_send(struct tar_thread *t, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    size_t taken = 0;

    while (taken < size) {
        ssize_t n = send(t->fd, bytes + taken, size - taken, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            return size; /* it has closed its end, and tells why */
        if (n < 0)
            break;
        taken += (size_t)n;
    }
    t->is_short = taken < size;
    watch(t);
    return taken;
}

void tar_thread_finish(struct tar_thread *t)
{
    (void)shutdown(t->fd, SHUT_WR);
}

void tar_thread_pause(struct tar_thread *t)
{
    t->is_paused = true;
    watch(t);
}

void tar_thread_resume(struct tar_thread *t)
{
    t->is_paused = false;
    watch(t);
}

uint64_t tar_thread_skipped(struct tar_thread *t)
{
    return __atomic_load_n(&t->work.skipped, __ATOMIC_ACQUIRE);
}

void tar_thread_abandon(struct tar_thread *t)
{
    if (t == NULL || t->is_abandoned)
        return;
    t->is_abandoned = true;
    close_poll(t);
    if (t->is_joined)
        uv_close((uv_handle_t *)&t->ended, on_closed);
}
