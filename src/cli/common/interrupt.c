#include "cli/common/interrupt.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

#define SIGNAL_COUNT (sizeof(signals) / sizeof(signals[0]))

static volatile sig_atomic_t received;
static volatile sig_atomic_t ignoring;
static sigset_t unblocked; /* the mask this process was started with */

static void on_signal(int number)
{
    if (!ignoring)
        received = number;
}

void interrupt_init(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct sigaction old;
    sigset_t blocked;

    (void)sigemptyset(&blocked);
    for (size_t i = 0; i < SIGNAL_COUNT; i++) {
        (void)sigaddset(&blocked, signals[i]);
        /* What the parent had ignored (nohup) stays ignored. */
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            (void)sigaction(signals[i], &action, NULL);
    }
    (void)sigprocmask(SIG_BLOCK, &blocked, &unblocked);
    (void)sigaction(SIGPIPE, &ignore, NULL);
}

int interrupt_signal(void)
{
    return received;
}

int interrupt_wait(struct pollfd *fds, nfds_t count, int timeout_ms, struct error *e)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * NS_PER_MS;

    for (;;) {
        uint64_t now_ns = clock_mono_ns();
        uint64_t left_ns = now_ns < end_ns ? end_ns - now_ns : 0;
        struct timespec left = {.tv_sec = (time_t)(left_ns / NS_PER_S),
                                .tv_nsec = (long)(left_ns % NS_PER_S)};
        bool stop = received != 0 && !ignoring;
        int n = stop ? -1 : ppoll(fds, count, timeout_ms < 0 ? NULL : &left, &unblocked);
        if (n >= 0)
            return n;
        if (stop)
            return error_set(e, ERR_INTERNAL, "interrupted by signal %d", (int)received);
        if (errno != EINTR)
            return error_errno(e, errno, "poll");
    }
}

int interrupt_write(int fd, const void *data, size_t size, struct error *e)
{
    const char *at = data;

    while (size > 0) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        if (interrupt_wait(&p, 1, -1, e) < 0)
            return -1;
        /* A pipe that is writable takes so much without blocking, and no more is promised. */
        ssize_t n = write(fd, at, size < PIPE_BUF ? size : PIPE_BUF);
        if (n >= 0) {
            at += n;
            size -= (size_t)n;
        } else if (errno == EPIPE) {
            return 1;
        } else if (errno != EINTR && errno != EAGAIN) {
            return error_errno(e, errno, "write");
        }
    }
    return 0;
}

void interrupt_ignore(void)
{
    ignoring = 1;
}

void interrupt_restore(void)
{
    struct sigaction normal = {.sa_handler = SIG_DFL};

    for (size_t i = 0; i < SIGNAL_COUNT; i++)
        (void)sigaction(signals[i], &normal, NULL);
    (void)sigaction(SIGPIPE, &normal, NULL);
    (void)sigprocmask(SIG_SETMASK, &unblocked, NULL);
}
