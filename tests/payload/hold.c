#include "hold.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define POLL_US 1000

static void list_threads(struct hold *h)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)h->pid);
    DIR *dir = opendir(path);
    assert(dir != NULL);
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);

        if (tid == 0 || tid == h->pid)
            continue;
        assert(h->count < HOLD_THREADS_MAX);
        h->tids[h->count++] = tid;
    }
    (void)closedir(dir);
}

static bool is_the_call(const struct hold *h, pid_t tid)
{
    struct user_regs_struct regs;

    /* -ENOSYS: in front of the call, not behind it. */
    return ptrace(PTRACE_GETREGS, tid, NULL, &regs) == 0 && (long)regs.orig_rax == h->call &&
           (long)regs.rax == -ENOSYS;
}

/* Sees to one thread; false once it is no more. */
static bool step(struct hold *h, pid_t tid, pid_t *held)
{
    int status;
    pid_t found = waitpid(tid, &status, __WALL | WNOHANG);

    if (found == 0)
        return true;
    if (found < 0 || !WIFSTOPPED(status))
        return false;
    if (WSTOPSIG(status) == (SIGTRAP | 0x80) && !atomic_load(&h->held) && is_the_call(h, tid)) {
        *held = tid;
        atomic_store(&h->held, true);
        return true;
    }
    bool is_event = status >> 16 != 0 || WSTOPSIG(status) == (SIGTRAP | 0x80);
    (void)ptrace(PTRACE_SYSCALL, tid, NULL, is_event ? 0 : WSTOPSIG(status));
    return true;
}

static void *trace(void *arg)
{
    struct hold *h = arg;
    pid_t held = 0;

    for (unsigned i = 0; i < h->count; i++) {
        long result = ptrace(PTRACE_SEIZE, h->tids[i], NULL, PTRACE_O_TRACESYSGOOD);

        assert(result == 0);
        result = ptrace(PTRACE_INTERRUPT, h->tids[i], NULL, NULL);
        assert(result == 0);
    }
    atomic_store(&h->traces, true);
    while (h->count > 0) {
        for (unsigned i = 0; i < h->count;) {
            if (step(h, h->tids[i], &held))
                i++;
            else
                h->tids[i] = h->tids[--h->count];
        }
        if (held != 0 && atomic_load(&h->released)) {
            (void)ptrace(PTRACE_SYSCALL, held, NULL, 0);
            held = 0;
        }
        (void)usleep(POLL_US);
    }
    return NULL;
}

void hold_init(struct hold *h, pid_t pid, long call)
{
    *h = (struct hold){.pid = pid, .call = call};
    list_threads(h);
    int err = pthread_create(&h->tracer, NULL, trace, h);
    assert(err == 0);
    while (!atomic_load(&h->traces))
        (void)usleep(POLL_US);
}

void hold_wait(struct hold *h)
{
    while (!atomic_load(&h->held))
        (void)usleep(POLL_US);
}

void hold_release(struct hold *h)
{
    atomic_store(&h->released, true);
}

void hold_fini(struct hold *h)
{
    int err = pthread_join(h->tracer, NULL);

    assert(err == 0);
    h->pid = 0;
}
