/*
 * Removing what a crash left in an instance's cgroups. A process is killed through a pidfd and only
 * when it is still listed after that was opened, so that a number which meanwhile belongs to
 * somebody else is never signalled.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cloche/limits.h"
#include "priv/cgroup.h"

#define PURGE_PAUSE_US 5000u
#define PROCS_MAX      64u /* listed at once; a monitor is one process, so this is already ample */

static unsigned read_procs(int dir_fd, pid_t ret_pids[PROCS_MAX])
{
    char text[PROCS_MAX * 11];
    unsigned count = 0;
    FD_AUTO int fd = openat(dir_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? fd_read_full(fd, text, sizeof(text) - 1) : -1;

    if (n <= 0)
        return 0;
    text[n] = '\0';
    for (char *p = text; *p != '\0' && count < PROCS_MAX;) {
        char *end;
        long pid = strtol(p, &end, 10);

        if (end == p)
            break;
        if (*end == '\n' && pid > 0 && pid <= INT32_MAX)
            ret_pids[count++] = (pid_t)pid;
        p = *end == '\n' ? end + 1 : end;
    }
    return count;
}

static bool is_listed(int dir_fd, pid_t pid)
{
    pid_t pids[PROCS_MAX];
    unsigned count = read_procs(dir_fd, pids);

    for (unsigned i = 0; i < count; i++)
        if (pids[i] == pid)
            return true;
    return false;
}

static void kill_all_in(int dir_fd)
{
    pid_t pids[PROCS_MAX];
    unsigned count = read_procs(dir_fd, pids);

    for (unsigned i = 0; i < count; i++) {
        FD_AUTO int pidfd = (int)syscall(SYS_pidfd_open, pids[i], 0);

        if (pidfd >= 0 && is_listed(dir_fd, pids[i]))
            (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    }
}

/* One pass over a branch: removes what can be removed. Returns how many cgroups are left. */
static int purge_branch(const struct cgroup_branch *b, int *removed)
{
    int left = 0;
    int fd = openat(b->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (dir == NULL) {
        fd_close(&fd);
        return 0;
    }
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        if (d->d_name[0] < '0' || d->d_name[0] > '9')
            continue;
        FD_AUTO int child = openat(b->dir_fd, d->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (child < 0)
            continue;
        kill_all_in(child);
        if (unlinkat(b->dir_fd, d->d_name, AT_REMOVEDIR) == 0)
            (*removed)++;
        else
            left++;
    }
    (void)closedir(dir);
    return left;
}

int cgroup_purge(struct cgroup_tree *t, unsigned timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + timeout_ms * NS_PER_MS;
    int removed = 0;

    for (;;) {
        int left = 0;

        for (unsigned i = 0; i < t->count; i++)
            left += purge_branch(&t->branches[i], &removed);
        if (left == 0)
            return removed;
        if (clock_mono_ns() >= end_ns)
            return -1;
        (void)usleep(PURGE_PAUSE_US);
    }
}
