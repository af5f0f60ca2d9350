#include "vmm/machine/vcpu.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/common/kvm_ioctl.h"
#include "vmm/machine/exits.h"
#include "vmm/machine/machine.h"

#define STACK_BYTES (64 * KIB)
#define KICK_SIGNAL SIGUSR1

static void set_immediate_exit(struct vcpu *v)
{
    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_RELEASE);
}

/* This vCPU has left the guest for good; the one that parks it goes on from here. */
static _Noreturn void stay_stopped(struct vcpu *v)
{
    struct gate never = {0};

    gate_arrive(&v->machine->stopped);
    for (;;)
        gate_wait(&never, 1);
}

static _Noreturn void run(struct vcpu *v)
{
    struct machine *m = v->machine;
    bool parks = false;

    for (;;) {
        if (kvm_ioctl(v->fd, KVM_RUN, NULL) == 0) {
            if (exits_handle(v) == EXIT_PARK) { /* of one vCPU only: see doorbell.h */
                parks = true;
                set_immediate_exit(v);
                atomic_store(&m->stop, true);
            }
            continue;
        }
        int err = errno;
        if (err != EINTR && err != EAGAIN)
            control_gone(&m->control, VMM_GONE_KVM, 0, "KVM_RUN failed on vCPU %u: %s", v->index,
                         strerror(err));
        /* With immediate_exit set, EINTR says that the last exit is complete. */
        if (err == EINTR && atomic_load(&m->stop) && v->run->immediate_exit != 0) {
            if (parks)
                m->park(v, m->park_arg);
            stay_stopped(v);
        }
    }
}

static void *thread_main(void *arg)
{
    struct vcpu *v = arg;

    atomic_store(&v->tid, (int)syscall(SYS_gettid));
    gate_arrive(&v->machine->started);
    gate_wait(&v->machine->opened, 1);
    run(v);
}

/* The signal only has to interrupt KVM_RUN. */
static void on_kick(int number)
{
    (void)number;
}

int vcpu_make_threads(struct machine *m, struct error *e)
{
    struct sigaction action = {.sa_handler = on_kick};
    pthread_attr_t attr;
    pthread_t thread;
    int err = 0;

    if (sigaction(KICK_SIGNAL, &action, NULL) != 0)
        return error_errno(e, errno, "sigaction");
    atomic_store(&m->vcpus[0].tid, (int)syscall(SYS_gettid));
    if (pthread_attr_init(&attr) != 0 || pthread_attr_setstacksize(&attr, STACK_BYTES) != 0)
        return error_set(e, ERR_INTERNAL, "cannot set a thread's stack size");
    for (uint32_t i = 1; i < m->vcpu_count && err == 0; i++)
        err = pthread_create(&thread, &attr, thread_main, &m->vcpus[i]);
    (void)pthread_attr_destroy(&attr);
    return err == 0 ? 0 : error_errno(e, err, "cannot make a vCPU's thread");
}

void vcpu_run_all(struct machine *m)
{
    if (m->vcpu_count > 1) /* else nobody waits */
        gate_arrive(&m->opened);
    run(&m->vcpus[0]);
}

void vcpu_stop_others(struct vcpu *self)
{
    struct machine *m = self->machine;

    for (uint32_t i = 0; i < m->vcpu_count; i++) {
        if (i == self->index)
            continue;
        set_immediate_exit(&m->vcpus[i]);
        int tid = atomic_load(&m->vcpus[i].tid);
        (void)syscall(SYS_tgkill, getpid(), tid, KICK_SIGNAL);
    }
    gate_wait(&m->stopped, m->vcpu_count - 1);
}
