#include "priv/child.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "cloche/limits.h"
#include "cloche/vmm_proto.h"

#define OOM_SCORE_ADJ "500" /* of 1000; the roles have what they were started with, commonly 0 */

#define NAMESPACES (CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

/* Five to start with, seven of CONFIG, one per vCPU, and the event descriptors of the devices. */
#define MONITOR_FDS_MAX 128u

/* The largest file is a scratch disk; the state of a snapshot is small against it. */
#define MONITOR_FILE_BYTES_MAX (SANDBOX_DISK_MIB_MAX * MIB)

static const struct {
    __rlimit_resource_t resource;
    rlim_t value;
} limits[] = {
    {RLIMIT_CORE, 0}, /* guest memory must not reach the host's disk */
    {RLIMIT_NOFILE, MONITOR_FDS_MAX},
    {RLIMIT_FSIZE, MONITOR_FILE_BYTES_MAX},
    {RLIMIT_MEMLOCK, 0}, /* KVM pins nothing on our account */
    {RLIMIT_MSGQUEUE, 0},
    {RLIMIT_SIGPENDING, 64},
    {RLIMIT_NICE, 0},
    {RLIMIT_RTPRIO, 0},
};
#define LIMIT_COUNT (sizeof(limits) / sizeof(limits[0]))

/* The child's way out when a step fails: says which one, and ends. */
static void fail(int report_fd, const char *what) __attribute__((noreturn, cold));
static void fail(int report_fd, const char *what)
{
    struct child_report report = {.error = errno};

    (void)snprintf(report.what, sizeof(report.what), "%s", what);
    (void)!write(report_fd, &report, sizeof(report));
    _exit(127);
}

/*
 * v1: writing "0" to a tasks file moves the calling thread. Unlike any other form this takes no
 * lock on all thread groups of the host, whose first taker waits for an RCU grace period (5 to 20
 * ms).
 */
static void enter_cgroups(const struct child_plan *plan, int report_fd)
{
    for (unsigned i = 0; i < plan->cgroups->count; i++)
        if (write(plan->cgroups->tasks_fds[i], "0", 1) != 1)
            fail(report_fd, "cannot enter a cgroup");
}

static void set_limits(const struct child_plan *plan, int report_fd)
{
    struct rlimit threads = {.rlim_cur = plan->processes_max, .rlim_max = plan->processes_max};

    for (size_t i = 0; i < LIMIT_COUNT; i++) {
        struct rlimit r = {.rlim_cur = limits[i].value, .rlim_max = limits[i].value};

        if (setrlimit(limits[i].resource, &r) != 0)
            fail(report_fd, "cannot set a resource limit");
    }
    if (setrlimit(RLIMIT_NPROC, &threads) != 0)
        fail(report_fd, "cannot limit the number of threads");
}

/* When the host runs out of memory, the kernel is to take a guest: the sandbox ends with a reason.
 * Without the daemon or priv all sandboxes would end. */
static void offer_to_oom_killer(const struct child_plan *plan, int report_fd)
{
    FD_AUTO int fd = openat(plan->proc_fd, "self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, OOM_SCORE_ADJ, strlen(OOM_SCORE_ADJ)) < 0)
        fail(report_fd, "cannot set the OOM score");
}

/* priv ignores and blocks signals that a monitor must have as a fresh process has them. */
static void reset_signals(int report_fd)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int s = 1; s < SIGRTMIN; s++)
        if (s != SIGKILL && s != SIGSTOP)
            (void)sigaction(s, &action, NULL);
    (void)sigemptyset(&none);
    if (sigprocmask(SIG_SETMASK, &none, NULL) != 0)
        fail(report_fd, "cannot unblock signals");
}

static void place_fds(const struct child_plan *plan, int report_fd)
{
    const int sources[] = {plan->null_fd, plan->null_fd, plan->null_fd, plan->control_fd,
                           plan->kvm_fd};

    _Static_assert(VMM_CONTROL_FD == 3 && VMM_KVM_FD == 4, "the order of `sources`");
    for (int i = 0; i <= VMM_KVM_FD; i++)
        if (dup2(sources[i], i) < 0)
            fail(report_fd, "cannot place a descriptor");
    /* The rest is needed up to the exec, which closes it. */
    if (syscall(SYS_close_range, VMM_KVM_FD + 1, ~0u, CLOSE_RANGE_CLOEXEC) != 0)
        fail(report_fd, "cannot mark descriptors for closing (Linux 5.11 or later is needed)");
}

static void drop_rights(const struct child_plan *plan, int report_fd)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};

    if (setgroups(0, NULL) != 0 || setresgid(plan->uid, plan->uid, plan->uid) != 0 ||
        setresuid(plan->uid, plan->uid, plan->uid) != 0)
        fail(report_fd, "cannot change the user");
    /* The bounding set was emptied by priv for itself and all its children. */
    if (syscall(SYS_capset, &header, none) != 0)
        fail(report_fd, "cannot drop capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        fail(report_fd, "cannot set no_new_privs");
}

/*
 * The kernel forgets the parent-death signal when the user changes, so it is set behind that. If
 * priv had ended before, no signal would come any more: hence the look at its pidfd. getppid() says
 * nothing here: the parent is outside of this pid namespace.
 */
static void tie_to_parent(const struct child_plan *plan, int report_fd)
{
    struct pollfd parent = {.fd = plan->parent_pidfd, .events = POLLIN};

    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        fail(report_fd, "cannot ask for the signal of the parent's death");
    if (poll(&parent, 1, 0) != 0)
        _exit(127);
}

static void child_run(const struct child_plan *plan, int report_fd) __attribute__((noreturn));
static void child_run(const struct child_plan *plan, int report_fd)
{
    static char name[] = "cloche-vmm";
    char *const arguments[] = {name, NULL};
    char *const environment[] = {NULL};

    enter_cgroups(plan, report_fd);
    (void)umask(0777);
    if (setsid() < 0)
        fail(report_fd, "cannot make a session");
    reset_signals(report_fd);
    set_limits(plan, report_fd);
    offer_to_oom_killer(plan, report_fd);
    place_fds(plan, report_fd);
    drop_rights(plan, report_fd);
    tie_to_parent(plan, report_fd);
    (void)syscall(SYS_execveat, plan->program_fd, "", arguments, environment, AT_EMPTY_PATH);
    fail(report_fd, "cannot execute the monitor");
}

/*
 * The child is a copy of priv, not a vfork: measured, sharing the memory saves 0.1 ms of 0.9, but
 * priv would stand still until the exec, and a slip in the child would be a slip in priv's own
 * memory. priv is small and stays so, which is what makes the copy cheap.
 */
int child_start(const struct child_plan *plan, int *ret_pidfd, pid_t *ret_pid, int *ret_report_fd,
                struct error *e)
{
    int pidfd = -1;
    int pipe_fds[2];
    struct clone_args args = {.flags = CLONE_PIDFD | NAMESPACES,
                              .pidfd = (uint64_t)(uintptr_t)&pidfd,
                              .exit_signal = SIGCHLD};

    assert(plan->control_fd > VMM_KVM_FD && plan->kvm_fd > VMM_KVM_FD &&
           plan->null_fd > VMM_KVM_FD && plan->program_fd > VMM_KVM_FD &&
           plan->proc_fd > VMM_KVM_FD && plan->parent_pidfd > VMM_KVM_FD);
    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_errno(e, errno, "cannot make a pipe");
    FD_AUTO int read_fd = pipe_fds[0];
    FD_AUTO int write_fd = pipe_fds[1];
    assert(write_fd > VMM_KVM_FD);
    if (plan->cgroups->v2_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)plan->cgroups->v2_fd;
    }
    long pid = syscall(SYS_clone3, &args, sizeof(args));
    if (pid == 0)
        child_run(plan, write_fd);
    if (pid < 0)
        return error_errno(e, errno, "cannot start a monitor's process");
    *ret_pidfd = pidfd;
    *ret_pid = (pid_t)pid;
    *ret_report_fd = fd_take(&read_fd);
    return 0;
}
