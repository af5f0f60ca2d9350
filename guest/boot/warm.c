#include "guest/boot/warm.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "guest/boot/boot.h"
#include "guest/exec/spawn.h"

#define WAIT_NS  (60 * NS_PER_S)
#define PAUSE_NS (20 * NS_PER_MS)

static struct spawn_plan plan;

/* Waits for the process; false where it does not end in time. */
static bool wait_for_end(pid_t pid, int *ret_status)
{
    uint64_t end_ns = clock_mono_ns() + WAIT_NS;
    struct timespec pause = {.tv_nsec = PAUSE_NS};

    while (clock_mono_ns() < end_ns) {
        if (waitpid(pid, ret_status, WNOHANG) == pid)
            return true;
        (void)nanosleep(&pause, NULL);
    }
    return false;
}

static void run(const char *name, char *const *argv)
{
    static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    static char home[] = "HOME=/root";
    static char *const envp[] = {path, home, NULL};
    char text[128];
    int status = 0;

    plan = (struct spawn_plan){.argv = argv,
                               .envp = envp,
                               .search_path = "",
                               .cwd = "/",
                               .stdio_fds = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO},
                               .cgroup_fd = -1};
    pid_t pid = spawn_process(&plan);
    if (pid < 0)
        (void)snprintf(text, sizeof(text), "warm-up: %s: %s", name, strerror(plan.error));
    else if (!wait_for_end(pid, &status))
        (void)snprintf(text, sizeof(text), "warm-up: %s takes too long", name);
    else if (status != 0)
        (void)snprintf(text, sizeof(text), "warm-up: %s failed (wait status %#x)", name,
                       (unsigned)status);
    else
        return;
    boot_report(text);
}

void warm_up(void)
{
    static char shell[] = "/bin/sh", dash_c[] = "-c", nothing[] = ":", script[] = WARM_UP_SCRIPT;
    static char *const start_shell[] = {shell, dash_c, nothing, NULL};
    static char *const start_script[] = {shell, script, NULL};

    if (access(shell, X_OK) == 0)
        run("the shell", start_shell);
    if (access(script, R_OK) == 0)
        run(script, start_script);
    /* From PID 1 this reaches every process but itself. */
    (void)kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        continue;
}
