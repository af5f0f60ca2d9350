/*
 * The monitor's seccomp filters, from inside: a child enters a stage and tries a call. What is not
 * in the table must end it with SIGSYS; a few that are must go through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cloche/vmm_proto.h"
#include "vmm/jail.h"
#include "vmm/machine/kvm.h"

enum stage { STAGE_BUILD, STAGE_BOOT, STAGE_RESTORE, STAGE_COUNT };
enum { B = 1u << STAGE_BUILD, P = 1u << STAGE_BOOT, R = 1u << STAGE_RESTORE };

#define SURVIVED 3

static const struct {
    const char *name;
    long call;
    long arg[3];
    unsigned allowed; /* in these stages */
} tries[] = {
    {"open", SYS_open, {0}, 0},
    {"openat", SYS_openat, {AT_FDCWD}, 0},
    {"openat2", SYS_openat2, {AT_FDCWD}, 0},
    {"socket", SYS_socket, {AF_INET, SOCK_STREAM}, 0},
    {"connect", SYS_connect, {3}, 0},
    {"execve", SYS_execve, {0}, 0},
    {"execveat", SYS_execveat, {3}, 0},
    {"fork", SYS_fork, {0}, 0},
    {"vfork", SYS_vfork, {0}, 0},
    {"clone without a thread", SYS_clone, {SIGCHLD}, 0},
    {"clone with a namespace",
     SYS_clone,
     {CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_NEWNET},
     0},
    {"ptrace", SYS_ptrace, {0}, 0},
    {"process_vm_readv", SYS_process_vm_readv, {1}, 0},
    {"process_vm_writev", SYS_process_vm_writev, {1}, 0},
    {"kill", SYS_kill, {0}, 0},
    {"prctl", SYS_prctl, {PR_SET_DUMPABLE, 1}, 0},
    {"bpf", SYS_bpf, {0}, 0},
    {"io_uring_setup", SYS_io_uring_setup, {1}, 0},
    {"userfaultfd", SYS_userfaultfd, {0}, 0},
    {"unshare", SYS_unshare, {0}, 0},
    {"mount", SYS_mount, {0}, 0},
    {"setuid", SYS_setuid, {0}, 0},
    {"dup", SYS_dup, {3}, 0},
    {"memfd_create", SYS_memfd_create, {0}, 0},
    {"sendto", SYS_sendto, {-1}, 0},
    {"an x32 call", 0x40000000 | SYS_getpid, {0}, 0},
    {"mmap executable", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC}, 0},
    {"mprotect executable", SYS_mprotect, {0, 0, PROT_EXEC}, 0},
    {"fcntl F_DUPFD", SYS_fcntl, {3, F_DUPFD, 0}, 0},
    {"fcntl F_SETOWN", SYS_fcntl, {3, F_SETOWN, 0}, 0},
    {"madvise", SYS_madvise, {0, 0, MADV_HUGEPAGE}, 0},
    {"futex requeue", SYS_futex, {0, FUTEX_CMP_REQUEUE, 0}, 0},
    {"ioctl of a terminal", SYS_ioctl, {-1, 0x5412}, 0},
    {"KVM_SET_GUEST_DEBUG", SYS_ioctl, {-1, (long)KVM_SET_GUEST_DEBUG}, 0},
    {"KVM_SET_SIGNAL_MASK", SYS_ioctl, {-1, (long)KVM_SET_SIGNAL_MASK}, 0},
    {"KVM_CREATE_DEVICE", SYS_ioctl, {-1, (long)KVM_CREATE_DEVICE}, 0},

    {"KVM_RUN", SYS_ioctl, {-1, KVM_RUN}, B | P | R},
    {"KVM_CREATE_VM", SYS_ioctl, {-1, KVM_CREATE_VM}, B},
    {"KVM_SET_USER_MEMORY_REGION", SYS_ioctl, {-1, (long)KVM_SET_USER_MEMORY_REGION}, B},
    {"KVM_GET_MSRS", SYS_ioctl, {-1, (long)KVM_GET_MSRS}, B | P},
    {"KVM_SET_MSRS", SYS_ioctl, {-1, (long)KVM_SET_MSRS}, B | P | R},
    {"mmap", SYS_mmap, {0, 0, PROT_READ}, B},
    {"brk", SYS_brk, {0}, B},
    {"close", SYS_close, {-1}, B},
    {"fcntl F_GET_SEALS", SYS_fcntl, {-1, F_GET_SEALS}, B},
    {"pread64", SYS_pread64, {-1}, B},
    {"pwrite64", SYS_pwrite64, {-1}, B | P},
    {"tgkill", SYS_tgkill, {-1, -1, SIGUSR1}, B | P},
    {"tgkill with SIGKILL", SYS_tgkill, {-1, -1, SIGKILL}, 0},
    {"clone3", SYS_clone3, {0}, B}, /* fails, but does not kill */
    {"read", SYS_read, {-1}, B | P | R},
    {"write", SYS_write, {-1}, B | P | R},
    {"preadv", SYS_preadv, {-1}, B | P | R},
    {"pwritev", SYS_pwritev, {-1}, B | P | R},
    {"fdatasync", SYS_fdatasync, {-1}, B | P | R},
    {"gettid", SYS_gettid, {0}, B},
    {"epoll_ctl to add", SYS_epoll_ctl, {-1, EPOLL_CTL_ADD}, B | P | R},
    {"epoll_ctl to remove", SYS_epoll_ctl, {-1, EPOLL_CTL_DEL}, 0},
    {"fallocate to grow", SYS_fallocate, {-1, 0}, 0},
    {"futex wake", SYS_futex, {0, FUTEX_WAKE_PRIVATE}, B | P | R},
};

static int enter(enum stage stage)
{
    struct error e = ERROR_INIT;

    /* jail_enter_build closes descriptors that the test's own output may go to. */
    if (jail_enter_build(&e) != 0)
        return -1;
    if (stage == STAGE_BUILD)
        return 0;
    return jail_enter_run(stage == STAGE_BOOT ? VMM_MODE_BOOT : VMM_MODE_RESTORE, &e);
}

static int status_of(enum stage stage, long call, const long arg[3])
{
    pid_t pid = fork();

    if (pid == 0) {
        if (enter(stage) != 0)
            (void)syscall(SYS_exit_group, 1);
        (void)syscall(call, arg[0], arg[1], arg[2], 0, 0, 0);
        (void)syscall(SYS_exit_group, SURVIVED);
    }
    int status = 0;
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void test_tries(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
        for (int stage = 0; stage < STAGE_COUNT; stage++) {
            int status = status_of((enum stage)stage, tries[i].call, tries[i].arg);
            bool allowed = (tries[i].allowed & (1u << stage)) != 0;
            bool good = allowed ? WIFEXITED(status) && WEXITSTATUS(status) == SURVIVED
                                : WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;

            if (!good)
                print_message("%s in stage %d: wait status %#x\n", tries[i].name, stage, status);
            assert_true(good);
        }
    }
}

/* Every other ioctl number with KVM's letter is refused once the guest runs. */
static void test_kvm_ioctls_while_running(void **state)
{
    unsigned survived = 0;

    (void)state;
    for (long number = 0; number < 256; number++) {
        const long arg[3] = {-1, KVMIO << 8 | number, 0};
        int status = status_of(STAGE_RESTORE, SYS_ioctl, arg);

        survived += WIFEXITED(status) && WEXITSTATUS(status) == SURVIVED;
    }
    assert_int_equal(survived, 1); /* KVM_RUN; the others that are allowed carry a size */
}

static void test_no_new_privileges(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        struct error e = ERROR_INIT;
        int before = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);

        if (jail_enter_build(&e) != 0 || before != 0)
            (void)syscall(SYS_exit_group, 1);
        /* The second stage cannot be entered twice: there is no seccomp(2) in it. */
        if (jail_enter_run(VMM_MODE_RESTORE, &e) != 0)
            (void)syscall(SYS_exit_group, 1);
        int again = jail_enter_run(VMM_MODE_RESTORE, &e);
        (void)syscall(SYS_exit_group, SURVIVED + again);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

static atomic_bool jailed;

/* Waits without a system call, then makes one that only the build stage allows. */
static void *other_thread(void *arg)
{
    (void)arg;
    while (!atomic_load(&jailed))
        ;
    (void)syscall(SYS_gettid);
    (void)syscall(SYS_exit_group, SURVIVED);
    return NULL;
}

/* vCPUs, and whoever serves devices, are there before the second stage is: it is for them, too. */
static void test_all_threads(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, other_thread, NULL) != 0 || enter(STAGE_RESTORE) != 0)
            (void)syscall(SYS_exit_group, 1);
        atomic_store(&jailed, true);
        for (;;)
            ;
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tries),
        cmocka_unit_test(test_kvm_ioctls_while_running),
        cmocka_unit_test(test_no_new_privileges),
        cmocka_unit_test(test_all_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
