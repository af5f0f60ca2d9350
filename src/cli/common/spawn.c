#include "cli/common/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/common/interrupt.h"

/* In the child, between fork and exec: system calls only. */
static void become(const char *const *argv, int stdin_fd, int null_fd, int stderr_fd)
{
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM); /* holds until the user is changed */
    interrupt_restore();
    if (dup2(stdin_fd, STDIN_FILENO) < 0 || dup2(null_fd, STDOUT_FILENO) < 0 ||
        dup2(stderr_fd, STDERR_FILENO) < 0)
        return;
    closefrom(STDERR_FILENO + 1);
    /* exec takes its strings as not const for history's sake; it changes none. */
    (void)execv("/proc/self/exe", (char *const *)(void *)(uintptr_t)argv);
}

pid_t spawn_self(const char *const *argv, int stdin_fd, int stderr_fd, struct error *e)
{
    FD_AUTO int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0)
        return error_errno(e, errno, "/dev/null");

    pid_t pid = fork();
    if (pid < 0)
        return error_errno(e, errno, "fork");
    if (pid == 0) {
        become(argv, stdin_fd >= 0 ? stdin_fd : null_fd, null_fd, stderr_fd);
        _exit(127);
    }
    return pid;
}
