/*
 * Makes the monitor's seccomp programs (see jail.h) and prints them as C arrays. A tool of the
 * build: it uses libseccomp, so that the monitor need not.
 *
 * One row is one allowed form of a system call, in the stages that need it, with the reason. What
 * has no row kills the process. Rows of one call are alternatives. Requests and flags are compared
 * in their low 32 bits, which is what the kernel looks at.
 *
 * Stages stack: a call in `boot` or `restore` has to pass `build` as well, so those stages are
 * always given together with BUILD.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/kvm.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUILD   1u
#define BOOT    2u /* the guest runs, then parks */
#define RESTORE 4u /* the guest runs */
#define RUN     (BUILD | BOOT | RESTORE)
#define PARK    (BUILD | BOOT)

#define ARGS_MAX 2u
#define LOW32    UINT64_C(0xffffffff)

/* Argument `arg`, under `mask`, must equal `value`. */
struct match {
    unsigned arg;
    uint64_t mask;
    uint64_t value;
    int used;
};

struct rule {
    unsigned stages;
    int call;
    int fail_with; /* 0: allow; else the call fails with this errno */
    struct match match[ARGS_MAX];
};

#define ANY(stages, call)                                                                          \
    {                                                                                              \
        stages, SCMP_SYS(call), 0,                                                                 \
        {                                                                                          \
            {                                                                                      \
                0                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }
#define IS(arg, value)                                                                             \
    {                                                                                              \
        arg, LOW32, (uint32_t)(value), 1                                                           \
    }
#define NO_BITS(arg, bits)                                                                         \
    {                                                                                              \
        arg, bits, 0, 1                                                                            \
    }
#define ONLY_BITS(arg, bits)                                                                       \
    {                                                                                              \
        arg, LOW32 & ~(uint64_t)(bits), 0, 1                                                       \
    }
#define ONE(stages, call, m)                                                                       \
    {                                                                                              \
        stages, SCMP_SYS(call), 0,                                                                 \
        {                                                                                          \
            m                                                                                      \
        }                                                                                          \
    }
#define TWO(stages, call, ...)                                                                     \
    {                                                                                              \
        stages, SCMP_SYS(call), 0,                                                                 \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define THREAD_FLAGS (CLONE_VM | CLONE_THREAD | CLONE_SIGHAND)
#define NAMESPACE_FLAGS                                                                            \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |  \
     CLONE_NEWNET)
#define THREAD_ONLY                                                                                \
    {                                                                                              \
        0, THREAD_FLAGS | NAMESPACE_FLAGS, THREAD_FLAGS, 1                                         \
    }
#define KVM(stages, request) ONE(stages, ioctl, IS(1, request))

static const struct rule rules[] = {
    /* clang-format off */
    /* What a running guest needs, the most frequent first. */
    KVM(RUN, KVM_RUN),                        /* vCPU threads live in it */
    ANY(RUN, epoll_pwait),                    /* the threads that serve devices wait */
    ANY(RUN, epoll_wait),                     /* the same, in other C libraries */
    ANY(RUN, write),                          /* eventfds: interrupts, notified queues */
    ANY(RUN, read),                           /* eventfds: notified queues */
    ANY(RUN, preadv),                         /* disks */
    ANY(RUN, pwritev),                        /* the scratch disk */
    ANY(RUN, fdatasync),                      /* the scratch disk: flush */
    ONE(RUN, fallocate, IS(1, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)), /* ... : discard */
    ANY(RUN, recvmsg),                        /* the daemon's messages; the agent channel */
    ANY(RUN, sendmsg),                        /* the same */
    ONE(RUN, getrandom, IS(2, 0)),            /* the entropy device */
    ONE(RUN, epoll_ctl, IS(1, EPOLL_CTL_MOD)),/* what a device waits for */
    ONE(RUN, epoll_ctl, IS(1, EPOLL_CTL_ADD)),/* START: the daemon's socket, and what devices have */
    ONE(RUN, futex, IS(1, FUTEX_WAIT_PRIVATE)), /* locks; gates between threads */
    ONE(RUN, futex, IS(1, FUTEX_WAKE_PRIVATE)), /* the same */
    ONE(RUN, futex, IS(1, FUTEX_WAIT)),       /* locks of a C library that does not care */
    ONE(RUN, futex, IS(1, FUTEX_WAKE)),       /* the same */
    ANY(RUN, clock_gettime),                  /* times of events, where the vDSO cannot tell */
    ANY(RUN, restart_syscall),                /* after the process was stopped and continued */
    ANY(RUN, exit_group),                     /* the end */
    KVM(RUN, KVM_GET_REGS),                   /* rip, for the text of GONE; to park */
    KVM(RUN, KVM_SET_MSRS),                   /* START: the TSC deadline; to park */
    KVM(RUN, KVM_SET_LAPIC),                  /* START: the local APIC's timer */
    KVM(RUN, KVM_SET_DEVICE_ATTR),            /* START: the TSC's offset */
    KVM(RUN, KVM_SET_CLOCK),                  /* START: KVM's clock */

    /* To park: stop the vCPUs, read everything out, write it. */
    ONE(PARK, tgkill, IS(2, SIGUSR1)),        /* kicks a vCPU out of KVM_RUN */
    ANY(PARK, getpid),                        /* whose threads to kick */
    ANY(PARK, rt_sigreturn),                  /* a kicked thread goes on */
    KVM(PARK, KVM_IRQFD),                     /* waits until all interrupts have arrived */
    KVM(PARK, KVM_GET_MP_STATE),
    KVM(PARK, KVM_GET_SREGS2),
    KVM(PARK, KVM_GET_XSAVE),
    KVM(PARK, KVM_GET_XCRS),
    KVM(PARK, KVM_GET_DEBUGREGS),
    KVM(PARK, KVM_GET_LAPIC),
    KVM(PARK, KVM_GET_VCPU_EVENTS),
    KVM(PARK, KVM_GET_MSRS),
    KVM(PARK, KVM_GET_DEVICE_ATTR),
    KVM(PARK, KVM_GET_IRQCHIP),
    KVM(PARK, KVM_GET_CLOCK),
    ANY(PARK, pwrite64),                      /* the state file */

    /* Building the machine. */
    TWO(BUILD, prlimit64, IS(0, 0), IS(1, RLIMIT_FSIZE)), /* the scratch disk's size */
    KVM(BUILD, KVM_GET_API_VERSION),
    KVM(BUILD, KVM_CHECK_EXTENSION),
    KVM(BUILD, KVM_GET_VCPU_MMAP_SIZE),
    KVM(BUILD, KVM_GET_SUPPORTED_CPUID),
    KVM(BUILD, KVM_GET_MSR_INDEX_LIST),
    KVM(BUILD, KVM_CREATE_VM),
    KVM(BUILD, KVM_SET_TSS_ADDR),
    KVM(BUILD, KVM_SET_IDENTITY_MAP_ADDR),
    KVM(BUILD, KVM_SET_USER_MEMORY_REGION),
    KVM(BUILD, KVM_CREATE_IRQCHIP),
    KVM(BUILD, KVM_CREATE_VCPU),
    KVM(BUILD, KVM_SET_CPUID2),
    KVM(BUILD, KVM_GET_TSC_KHZ),
    KVM(BUILD, KVM_IOEVENTFD),
    KVM(BUILD, KVM_SET_SREGS2),
    KVM(BUILD, KVM_SET_REGS),
    KVM(BUILD, KVM_SET_FPU),
    KVM(BUILD, KVM_SET_XSAVE),
    KVM(BUILD, KVM_SET_XCRS),
    KVM(BUILD, KVM_SET_DEBUGREGS),
    KVM(BUILD, KVM_SET_VCPU_EVENTS),
    KVM(BUILD, KVM_SET_MP_STATE),
    KVM(BUILD, KVM_SET_IRQCHIP),
    ONE(BUILD, mmap, NO_BITS(2, PROT_EXEC)),  /* guest memory, vCPUs, the kernel, stacks, heap */
    ONE(BUILD, mprotect, NO_BITS(2, PROT_EXEC)), /* a stack beside its guard page */
    ANY(BUILD, munmap),                       /* the kernel's image; free() */
    ANY(BUILD, mremap),                       /* realloc() */
    ANY(BUILD, brk),                          /* malloc() */
    ONE(BUILD, madvise, IS(2, MADV_DONTNEED)),/* free() in some C libraries */
    ONE(BUILD, madvise, IS(2, MADV_NOHUGEPAGE)), /* guest memory */
    ANY(BUILD, fstat),                        /* sizes of what came with CONFIG */
    ANY(BUILD, newfstatat),                   /* the same, in other C libraries */
    ANY(BUILD, lseek),                        /* sizes of the disks, holes of the snapshot */
    ANY(BUILD, pread64),                      /* the initramfs; the state file */
    ANY(BUILD, close),                        /* what the guest does not need */
    ONE(BUILD, fcntl, IS(1, F_GET_SEALS)),    /* is the template's memory sealed? */
    ONE(BUILD, fcntl, IS(1, F_GETFL)),        /* the channel, and how a disk was opened */
    TWO(BUILD, fcntl, IS(1, F_SETFL), NO_BITS(2, O_ASYNC)), /* the channel becomes non-blocking */
    ONE(BUILD, eventfd2, IS(1, EFD_CLOEXEC | EFD_NONBLOCK)), /* interrupts, notified queues */
    ONE(BUILD, epoll_create1, IS(0, EPOLL_CLOEXEC)),
    ONE(BUILD, clone, THREAD_ONLY),           /* threads */
    ANY(BUILD, gettid),                       /* a thread learns whom to kick */
    ANY(BUILD, rt_sigprocmask),               /* pthread_create() */
    ONE(BUILD, rt_sigaction, IS(0, SIGUSR1)), /* the kick */
    ONE(BUILD, rt_sigaction, IS(0, 33)),      /* pthread_create() in glibc: its SIGSETXID */
    ANY(BUILD, set_robust_list),              /* a new thread in some C libraries */
    ANY(BUILD, rseq),                         /* the same */
    TWO(BUILD, seccomp, IS(0, SECCOMP_SET_MODE_FILTER),
        IS(1, SECCOMP_FILTER_FLAG_TSYNC)),    /* the next stage */
    /* clang-format on */

    /* Its flags lie in memory, where no filter sees them: pthread_create() falls back on clone. */
    {BUILD, SCMP_SYS(clone3), ENOSYS, {{0}}},
};

static void fail(const char *what, int error)
{
    errno = error < 0 ? -error : error;
    perror(what);
    exit(1);
}

static void add_rule(scmp_filter_ctx filter, const struct rule *rule)
{
    struct scmp_arg_cmp compare[ARGS_MAX];
    unsigned count = 0;

    for (unsigned i = 0; i < ARGS_MAX; i++) {
        const struct match *m = &rule->match[i];

        if (m->used)
            compare[count++] =
                SCMP_CMP64(m->arg, SCMP_CMP_MASKED_EQ, (scmp_datum_t)m->mask, m->value);
    }
    uint32_t action =
        rule->fail_with == 0 ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO((uint16_t)rule->fail_with);
    int err = seccomp_rule_add_array(filter, action, rule->call, count, compare);
    if (err != 0)
        fail("seccomp_rule_add", err);
}

static void print_program(const char *name, const struct sock_filter *program, size_t count)
{
    printf("static const struct sock_filter seccomp_%s[] = {\n", name);
    for (size_t i = 0; i < count; i++)
        printf("    {0x%02x, %u, %u, 0x%08x},\n", program[i].code, program[i].jt, program[i].jf,
               program[i].k);
    printf("};\n");
}

static void make_program(const char *name, unsigned stage)
{
    static struct sock_filter program[4096];
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int fd = memfd_create("filter", MFD_CLOEXEC);
    int err;

    if (filter == NULL || fd < 0)
        fail("seccomp_init", ENOMEM);
    err = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (err != 0)
        fail("seccomp_attr_set", err);
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        assert((rules[i].stages & BUILD) != 0);
        if ((rules[i].stages & stage) != 0)
            add_rule(filter, &rules[i]);
    }
    err = seccomp_export_bpf(filter, fd);
    if (err != 0)
        fail("seccomp_export_bpf", err);
    ssize_t size = pread(fd, program, sizeof(program), 0);
    if (size <= 0 || (size_t)size >= sizeof(program) || (size_t)size % sizeof(program[0]) != 0)
        fail("a filter's size", EIO);
    print_program(name, program, (size_t)size / sizeof(program[0]));
    (void)close(fd);
    seccomp_release(filter);
}

int main(void)
{
    printf("/* Made by src/vmm/seccomp_gen.c from its table. */\n#pragma once\n\n");
    make_program("build", BUILD);
    make_program("boot", BOOT);
    make_program("restore", RESTORE);
    return 0;
}
