/*
 * vCPUs: their threads and the loop around KVM_RUN. A guest can cause any exit at any rate, so
 * nothing in here allocates, logs or waits; what it cannot handle ends the guest with a reason.
 */
#pragma once

#include <linux/kvm.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "vmm/x86/vcpu_state.h"

struct vmm;

struct vcpu {
    struct vmm *vmm;
    uint32_t index;
    int fd;
    struct kvm_run *run;
    _Atomic int tid;              /* 0 until its thread runs */
    struct vcpu_time time;        /* RESTORE: loaded at START */
    bool has_lapic;               /* its local APIC's own timer was counting */
    struct kvm_lapic_state lapic; /* then: the saved one */
};

/* Where threads wait for each other: all new ones before the jail closes, the vCPUs before START,
 * and the loop thread for the vCPUs to stop. */
struct vcpu_gate {
    _Atomic uint32_t threads; /* futex: how many threads have started, the loop's among them */
    _Atomic uint32_t open;    /* futex: 1 from START on */
    _Atomic bool stop;        /* every vCPU shall leave KVM_RUN for good */
    _Atomic uint32_t stopped; /* futex: how many have */
};

/* Makes the threads of all vCPUs but the first; they wait at the gate. */
int vcpu_make_threads(struct vmm *vmm, struct error *e) __attribute__((warn_unused_result));

/* Each new thread says that it has started; the first thread waits for `count` of them, because a
 * thread that starts makes system calls which the jail no longer allows. */
void vcpu_gate_arrive(struct vcpu_gate *gate);
void vcpu_gate_wait_arrived(struct vcpu_gate *gate, uint32_t count);

/* Lets all of them run, and runs the first one in this thread. */
_Noreturn void vcpu_run_all(struct vmm *vmm);

/* Called on the vCPU's own thread: it and all others stop right behind the exit that is being
 * handled, which the next KVM_RUN completes without running the guest. */
void vcpu_request_stop(struct vcpu *self);

/* Called on the loop thread after that: kicks the others and returns when all have stopped. */
void vcpu_wait_stopped(struct vmm *vmm);
