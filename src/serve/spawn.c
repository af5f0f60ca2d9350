#include "serve/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

#define ABOVE                                                                                      \
    64 /* every fixed descriptor is below; sources are moved above before they are placed */
#define MOVES_MAX 16

int spawn_own_program(struct error *e)
{
    int fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);

    if (fd < 0)
        return error_errno(e, errno, "cannot open this program");
    return fd;
}

/*
 * Puts the descriptors where they belong and marks all others for closing. In two steps, because a
 * source may stand where another one has to go. Nothing is undone on failure: the caller ends.
 */
static int place(const struct spawn_fd *fds, size_t count, int *program_fd)
{
    int moved[MOVES_MAX];
    int end = STDERR_FILENO + 1;

    assert(count <= MOVES_MAX);
    *program_fd = fcntl(*program_fd, F_DUPFD_CLOEXEC, ABOVE);
    if (*program_fd < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        assert(fds[i].to < ABOVE);
        moved[i] = fds[i].from < 0 ? -1 : fcntl(fds[i].from, F_DUPFD_CLOEXEC, ABOVE);
        if (fds[i].from >= 0 && moved[i] < 0)
            return -1;
    }
    for (size_t i = 0; i < count; i++) {
        if (fds[i].to >= end)
            end = fds[i].to + 1;
        if (moved[i] < 0)
            (void)close(fds[i].to);
        else if (dup2(moved[i], fds[i].to) < 0)
            return -1;
    }
    return (int)syscall(SYS_close_range, end, ~0u, CLOSE_RANGE_CLOEXEC);
}

/* Runs this binary in another role, with an empty environment. Returns on failure. */
static int exec_role(int program_fd, const char *role)
{
    char name[] = "cloche";
    char option[32];
    char *arguments[] = {name, option, NULL};
    char *environment[] = {NULL, NULL};

#ifdef __SANITIZE_ADDRESS__
    /* A test build is told by its caller what to make of leaks. */
    char asan[256];
    if (getenv("ASAN_OPTIONS") != NULL) {
        (void)snprintf(asan, sizeof(asan), "ASAN_OPTIONS=%s", getenv("ASAN_OPTIONS"));
        environment[0] = asan;
    }
#endif
    (void)snprintf(option, sizeof(option), "--role=%s", role);
    return (int)syscall(SYS_execveat, program_fd, "", arguments, environment, AT_EMPTY_PATH);
}

static void reset_signals(void)
{
    sigset_t none;

    for (int s = 1; s < SIGRTMIN; s++)
        if (s != SIGKILL && s != SIGSTOP)
            (void)signal(s, SIG_DFL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

int spawn_priv(int program_fd, const struct spawn_fd *fds, size_t count, pid_t *ret_pid,
               struct error *e)
{
    pid_t pid = fork();

    if (pid < 0)
        return error_errno(e, errno, "cannot start priv");
    if (pid == 0) {
        if (place(fds, count, &program_fd) == 0)
            (void)exec_role(program_fd, "priv");
        _exit(127);
    }
    *ret_pid = pid;
    return 0;
}

static int drop_rights(uint32_t uid, struct error *e)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};

    for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
            return error_errno(e, errno, "cannot empty the bounding set of capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return error_errno(e, errno, "cannot set no_new_privs");
    if (setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0)
        return error_errno(e, errno, "cannot become uid %u", uid);
    if (syscall(SYS_capset, &header, none) != 0)
        return error_errno(e, errno, "cannot drop capabilities");
    return 0;
}

int spawn_become_daemon(int program_fd, uint32_t uid, const struct spawn_fd *fds, size_t count,
                        struct error *e)
{
    if (place(fds, count, &program_fd) != 0)
        return error_errno(e, errno, "cannot place the daemon's descriptors");
    reset_signals();
    (void)umask(077);
    if (chdir("/") != 0)
        return error_errno(e, errno, "cannot leave the working directory");
    if (drop_rights(uid, e) != 0)
        return -1;
    (void)exec_role(program_fd, "daemon");
    (void)error_errno(e, errno, "cannot run this program as the daemon");
    return error_remedy(e, "uid %u must be able to execute it: chmod 755 the file", uid);
}
