#include "vmm/machine/vcpu.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/machine/exits.h"
#include "vmm/vmm.h"

#define STACK_BYTES (64 * KIB)
#define KICK_SIGNAL SIGUSR1

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void set_immediate_exit(struct vcpu *v)
{
    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_RELEASE);
}

void vcpu_gate_arrive(struct vcpu_gate *gate)
{
    atomic_fetch_add(&gate->threads, 1);
    futex_wake(&gate->threads);
}

void vcpu_gate_wait_arrived(struct vcpu_gate *gate, uint32_t count)
{
    uint32_t arrived;

    while ((arrived = atomic_load(&gate->threads)) < count)
        futex_wait(&gate->threads, arrived);
}

/* This vCPU has left the guest for good; the loop thread goes on from here. */
static _Noreturn void stay_stopped(struct vcpu *v)
{
    struct vcpu_gate *gate = &v->vmm->gate;
    _Atomic uint32_t never;

    atomic_fetch_add(&gate->stopped, 1);
    futex_wake(&gate->stopped);
    atomic_init(&never, 0);
    for (;;)
        futex_wait(&never, 0);
}

static _Noreturn void run(struct vcpu *v)
{
    for (;;) {
        if (kvm_ioctl(v->fd, KVM_RUN, NULL) == 0) {
            exits_handle(v);
            continue;
        }
        int err = errno;
        if (err != EINTR && err != EAGAIN)
            control_gone(&v->vmm->control, VMM_GONE_KVM, 0, "KVM_RUN failed on vCPU %u: %s",
                         v->index, strerror(err));
        /* With immediate_exit set, EINTR says that the last exit is complete. */
        if (err == EINTR && atomic_load(&v->vmm->gate.stop) && v->run->immediate_exit != 0)
            stay_stopped(v);
    }
}

static void *thread_main(void *arg)
{
    struct vcpu *v = arg;

    atomic_store(&v->tid, (int)syscall(SYS_gettid));
    vcpu_gate_arrive(&v->vmm->gate);
    while (atomic_load(&v->vmm->gate.open) == 0)
        futex_wait(&v->vmm->gate.open, 0);
    run(v);
}

/* The signal only has to interrupt KVM_RUN. */
static void on_kick(int number)
{
    (void)number;
}

int vcpu_make_threads(struct vmm *vmm, struct error *e)
{
    struct sigaction action = {.sa_handler = on_kick};
    pthread_attr_t attr;
    pthread_t thread;
    int err = 0;

    if (sigaction(KICK_SIGNAL, &action, NULL) != 0)
        return error_errno(e, errno, "sigaction");
    atomic_store(&vmm->vcpus[0].tid, (int)syscall(SYS_gettid));
    if (pthread_attr_init(&attr) != 0 || pthread_attr_setstacksize(&attr, STACK_BYTES) != 0)
        return error_set(e, ERR_INTERNAL, "cannot set a thread's stack size");
    for (uint32_t i = 1; i < vmm->config.vcpus && err == 0; i++)
        err = pthread_create(&thread, &attr, thread_main, &vmm->vcpus[i]);
    (void)pthread_attr_destroy(&attr);
    return err == 0 ? 0 : error_errno(e, err, "cannot make a vCPU's thread");
}

void vcpu_run_all(struct vmm *vmm)
{
    atomic_store(&vmm->gate.open, 1);
    if (vmm->config.vcpus > 1)
        futex_wake(&vmm->gate.open);
    run(&vmm->vcpus[0]);
}

void vcpu_request_stop(struct vcpu *self)
{
    set_immediate_exit(self);
    atomic_store(&self->vmm->gate.stop, true);
}

void vcpu_wait_stopped(struct vmm *vmm)
{
    uint32_t stopped;

    for (uint32_t i = 0; i < vmm->config.vcpus; i++) {
        set_immediate_exit(&vmm->vcpus[i]);
        int tid = atomic_load(&vmm->vcpus[i].tid);
        (void)syscall(SYS_tgkill, getpid(), tid, KICK_SIGNAL);
    }
    while ((stopped = atomic_load(&vmm->gate.stopped)) < vmm->config.vcpus)
        futex_wait(&vmm->gate.stopped, stopped);
}
