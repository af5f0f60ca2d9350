#include "priv_probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cloche/vmm_proto.h"

static uint64_t all_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    uint64_t all = 0;

    if (syscall(SYS_capget, &header, data) != 0)
        return UINT64_MAX;
    for (unsigned i = 0; i < 2; i++)
        all |= (uint64_t)(data[i].permitted | data[i].effective | data[i].inheritable) << (32 * i);
    for (unsigned cap = 0; cap < 64; cap++)
        if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1)
            all |= UINT64_C(1) << cap;
    return all;
}

static int is_device(int fd, unsigned major_number, unsigned minor_number)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && major(st.st_rdev) == major_number &&
           minor(st.st_rdev) == minor_number;
}

static int count_root(void)
{
    DIR *dir = opendir("/");
    int count = 0;

    if (dir == NULL)
        return -1;
    for (struct dirent *d; (d = readdir(dir)) != NULL;)
        count += strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
    (void)closedir(dir);
    return count;
}

static int error_of_open(const char *path, int flags)
{
    int fd = open(path, flags, 0600);

    return fd < 0 ? errno : 0;
}

static uint64_t limit_of(int resource)
{
    struct rlimit r;

    return getrlimit(resource, &r) == 0 && r.rlim_cur == r.rlim_max ? r.rlim_max : UINT64_MAX;
}

static void look_at_signals(struct probe_report *r)
{
    sigset_t blocked;

    (void)sigprocmask(SIG_SETMASK, NULL, &blocked);
    for (int s = 1; s < 32; s++) {
        struct sigaction action;

        if (sigaction(s, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            r->signals_ignored |= UINT64_C(1) << s;
        if (sigismember(&blocked, s) == 1)
            r->signals_blocked |= UINT64_C(1) << s;
    }
}

static void look_at_fds(struct probe_report *r)
{
    struct stat st;

    for (int fd = 0; fd < PROBE_FDS_MAX; fd++)
        r->fd_count += fcntl(fd, F_GETFD) >= 0;
    r->fds_expected = is_device(0, 1, 3) && is_device(1, 1, 3) && is_device(2, 1, 3) &&
                      fstat(VMM_CONTROL_FD, &st) == 0 && S_ISSOCK(st.st_mode) &&
                      is_device(VMM_KVM_FD, 10, 232);
}

static void look(struct probe_report *r, int argc)
{
    (void)getresuid(&r->uids[0], &r->uids[1], &r->uids[2]);
    (void)getresgid(&r->gids[0], &r->gids[1], &r->gids[2]);
    r->group_count = getgroups(0, NULL);
    r->capabilities = all_capabilities();
    r->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    r->dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
    (void)prctl(PR_GET_PDEATHSIG, &r->death_signal, 0, 0, 0);
    r->seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
    r->pid = getpid();
    r->parent_pid = getppid();
    r->session = getsid(0);
    look_at_fds(r);
    r->root_entries = count_root();
    r->root_writable = error_of_open("/probe", O_WRONLY | O_CREAT);
    r->dev_kvm = error_of_open("/dev/kvm", O_RDWR);
    r->argument_count = argc;
    for (char **p = environ; *p != NULL; p++)
        r->environment_count++;
    look_at_signals(r);
    r->limit_files = limit_of(RLIMIT_NOFILE);
    r->limit_core = limit_of(RLIMIT_CORE);
    r->limit_file_bytes = limit_of(RLIMIT_FSIZE);
    r->limit_locked = limit_of(RLIMIT_MEMLOCK);
    r->limit_processes = limit_of(RLIMIT_NPROC);
}

/* Memory that is really there. */
static void eat(unsigned mib)
{
    for (unsigned count = 0; count < mib; count++) {
        char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
            _exit(8);
        for (size_t i = 0; i < 1 << 20; i += 4096)
            ((volatile char *)p)[i] = 1;
    }
}

static void make_threads(void)
{
    uint32_t count = 0;

    for (; count < 1000; count++) {
        long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

        if (pid == 0)
            for (;;)
                (void)pause();
        if (pid < 0)
            break;
    }
    (void)send(VMM_CONTROL_FD, &count, sizeof(count), 0);
}

int main(int argc, char **argv)
{
    static struct probe_report report;
    char command;

    (void)argv;
    look(&report, argc);
    if (send(VMM_CONTROL_FD, &report, sizeof(report), 0) != (ssize_t)sizeof(report))
        return 9;
    while (recv(VMM_CONTROL_FD, &command, 1, 0) == 1) {
        switch ((enum probe_command)command) {
        case PROBE_EXIT:
            return 7;
        case PROBE_EAT:
            eat(UINT32_MAX);
            break;
        case PROBE_HOLD:
            eat(56);
            break;
        case PROBE_MOUNT:
            (void)mount("none", "/", "tmpfs", 0, NULL);
            break;
        case PROBE_DEAF:
            for (;;)
                (void)pause();
        case PROBE_CRASH:
            abort();
        case PROBE_THREADS:
            make_threads();
            break;
        }
    }
    return 0;
}
