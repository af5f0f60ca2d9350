/*
 * The guest's machine: what its parts share. There is one of it, in static storage, so that nothing
 * is allocated once a guest runs. Who may touch what while the guest runs: `control`, `serial`,
 * `doorbell` and `devices` any thread, each has its own locks inside; the rest does not change.
 */
#pragma once

#include <linux/kvm.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cloche/limits.h"
#include "vmm/common/control.h"
#include "vmm/common/doorbell.h"
#include "vmm/common/gate.h"
#include "vmm/common/guest_mem.h"
#include "vmm/common/serial.h"
#include "vmm/machine/kvm.h"
#include "vmm/virtio/devices.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/vcpu_state.h"

struct machine;

struct vcpu {
    struct machine *machine;
    uint32_t index;
    int fd;
    struct kvm_run *run;
    _Atomic int tid;              /* 0 until its thread runs */
    struct vcpu_time time;        /* RESTORE: loaded at START */
    bool has_lapic;               /* its local APIC's own timer was counting */
    struct kvm_lapic_state lapic; /* then: the saved one */
};

struct machine {
    struct control control;
    uint32_t mem_mib;
    enum kvm_kind kind;
    struct cpuid_table cpuid; /* as vCPU 0 has it */
    struct guest_mem mem;
    struct kvm_vm kvm;
    struct serial serial;
    struct doorbell doorbell;
    struct devices *devices;
    uint64_t clock_ns; /* RESTORE: KVM's clock when the guest was stopped */
    uint32_t vcpu_count;
    struct vcpu vcpus[SANDBOX_VCPUS_MAX];

    struct gate started; /* every thread but the first, in its own code */
    struct gate opened;  /* once, at START: the vCPUs may run */
    _Atomic bool stop;   /* every vCPU shall leave KVM_RUN for good ... */
    struct gate stopped; /* ... and those that have, but for the one that asked for it */
    /* BOOT: what the vCPU does whose guest has rung DOORBELL_PARK, right behind that store. */
    void (*park)(struct vcpu *self, void *arg);
    void *park_arg;
};
