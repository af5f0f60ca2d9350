#include "guest/exec/spawn.h"

#include <errno.h>
#include <limits.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_STACK_BYTES 32768u
/* The kernel's own sigset_t: one bit per signal. */
#define KERNEL_SIGSET_BYTES 8u

/*
 * The child runs on a stack that the sanitizers know nothing about, in memory that it shares with
 * the agent; its functions must not be instrumented in the test build.
 */
#define CHILD_CODE __attribute__((noinline, no_sanitize("address"), no_sanitize("undefined")))

static uint8_t child_stack[CHILD_STACK_BYTES] __attribute__((aligned(16)));

CHILD_CODE __attribute__((noreturn)) static void child_fail(struct spawn_plan *plan,
                                                            enum spawn_step step, int error)
{
    plan->step = step;
    plan->error = error;
    for (;;)
        (void)syscall(SYS_exit_group, 127);
}

CHILD_CODE static void child_set_stdio(struct spawn_plan *plan)
{
    for (int i = 0; i < 3; i++) {
        if (syscall(SYS_dup2, plan->stdio_fds[i], i) < 0)
            child_fail(plan, SPAWN_STEP_STDIO, errno);
    }
}

/* Raw calls: the C library's would try to change the user of all threads, which are the agent's. */
CHILD_CODE static void child_set_user(struct spawn_plan *plan)
{
    if (syscall(SYS_setgroups, plan->group_count, plan->groups) < 0 ||
        syscall(SYS_setresgid, plan->gid, plan->gid, plan->gid) < 0 ||
        syscall(SYS_setresuid, plan->uid, plan->uid, plan->uid) < 0)
        child_fail(plan, SPAWN_STEP_USER, errno);
}

CHILD_CODE static void child_set_limits(struct spawn_plan *plan)
{
    if (plan->umask <= 0777)
        (void)syscall(SYS_umask, plan->umask);
    for (size_t i = 0; i < plan->rlimit_count; i++) {
        const uint64_t both[2] = {plan->rlimits[i].value, plan->rlimits[i].value};

        if (syscall(SYS_prlimit64, 0, plan->rlimits[i].resource, both, NULL) < 0)
            child_fail(plan, SPAWN_STEP_LIMIT, errno);
    }
}

/* Joins a directory of the search path and the program's name in plan->path. */
CHILD_CODE static bool child_join(struct spawn_plan *plan, const char *dir, size_t dir_length)
{
    const char *name = plan->argv[0];
    size_t used = 0;

    if (dir_length >= SPAWN_PATH_BYTES - 1)
        return false;
    for (; used < dir_length; used++)
        plan->path[used] = dir[used];
    if (used > 0)
        plan->path[used++] = '/';
    for (size_t i = 0;; i++) {
        if (used == SPAWN_PATH_BYTES)
            return false;
        plan->path[used++] = name[i];
        if (name[i] == '\0')
            return true;
    }
}

/* As execvp(3), but a script without "#!" stays an error. Returns errno. */
CHILD_CODE static int child_exec(struct spawn_plan *plan)
{
    int result = ENOENT;
    const char *at = plan->search_path;

    for (const char *c = plan->argv[0]; *c != '\0'; c++) {
        if (*c == '/') {
            (void)syscall(SYS_execve, plan->argv[0], plan->argv, plan->envp);
            return errno;
        }
    }
    for (;;) {
        const char *end = at;

        while (*end != '\0' && *end != ':')
            end++;
        if (!child_join(plan, at, (size_t)(end - at))) {
            result = ENAMETOOLONG;
        } else {
            (void)syscall(SYS_execve, plan->path, plan->argv, plan->envp);
            /* A file that may not be run is what the user wants to hear of, if no other is found.
             */
            if (errno == EACCES)
                result = EACCES;
            else if (errno != ENOENT && errno != ENOTDIR)
                return errno;
        }
        if (*end == '\0')
            return result;
        at = end + 1;
    }
}

CHILD_CODE __attribute__((noreturn)) static void child_main(struct spawn_plan *plan)
{
    static const uint64_t NO_SIGNALS = 0;

    (void)syscall(SYS_setsid);
    child_set_stdio(plan);
    if (plan->is_terminal && syscall(SYS_ioctl, STDIN_FILENO, TIOCSCTTY, 0) < 0)
        child_fail(plan, SPAWN_STEP_TERMINAL, errno);
    child_set_limits(plan);
    if (plan->change_user)
        child_set_user(plan);
    if (syscall(SYS_chdir, plan->cwd) < 0)
        child_fail(plan, SPAWN_STEP_CWD, errno);
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &NO_SIGNALS, NULL, KERNEL_SIGSET_BYTES);
    child_fail(plan, SPAWN_STEP_EXEC, child_exec(plan));
}

/*
 * clone3(2) by hand: a C function cannot return on another stack than the one it was called on, so
 * the child must go on in child_main without ever coming back here. Registers are the same in the
 * child, except for rax (0) and rsp (the new stack, empty).
 */
static long clone_onto_stack(struct clone_args *args, struct spawn_plan *plan)
{
    long result;

    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "mov %[plan], %%rdi\n\t"
                     "call *%[child]\n\t"
                     "ud2\n"
                     "1:"
                     : "=a"(result)
                     : "0"((long)SYS_clone3), "D"(args),
                       "S"(sizeof(*args)), [child] "r"(child_main), [plan] "r"(plan)
                     : "rcx", "r11", "memory", "cc");
    return result;
}

pid_t spawn_process(struct spawn_plan *plan)
{
    struct clone_args args = {
        .flags = CLONE_VM | CLONE_VFORK,
        .exit_signal = SIGCHLD,
        .stack = (uint64_t)(uintptr_t)child_stack,
        .stack_size = sizeof(child_stack),
    };
    int status;

    if (plan->cgroup_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)plan->cgroup_fd;
    }
    plan->error = 0;
    long pid = clone_onto_stack(&args, plan);
    if (pid < 0) {
        plan->step = SPAWN_STEP_CLONE;
        plan->error = (int)-pid;
        return -1;
    }
    if (plan->error == 0)
        return (pid_t)pid;
    while (waitpid((pid_t)pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return -1;
}
