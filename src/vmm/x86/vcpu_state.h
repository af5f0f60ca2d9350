/*
 * Everything that makes up one vCPU in KVM, and how it is read and put back (Documentation/virt/
 * kvm/api.rst of Linux). Guest time is kept apart: it is only put back when the guest starts.
 */
#pragma once

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "vmm/x86/cpuid.h"

#define MSR_COUNT_MAX 512u

/* As struct kvm_msrs, with room. */
struct msr_table {
    uint32_t count;
    uint32_t padding;
    struct kvm_msr_entry entries[MSR_COUNT_MAX];
};

_Static_assert(offsetof(struct msr_table, entries) == sizeof(struct kvm_msrs), "KVM's layout");

/* The MSRs that this host's KVM can save, in KVM's order. */
struct msr_list {
    uint32_t count;
    uint32_t indices[MSR_COUNT_MAX];
};

/* The part that depends on when it is loaded. */
struct vcpu_time {
    uint64_t tsc;          /* as the guest would have read it when it was stopped */
    uint64_t tsc_deadline; /* IA32_TSC_DEADLINE; 0: not armed */
};

/* As struct kvm_xsave; 4 KiB hold all but AMX, which no guest gets (x86/cpuid.c). */
struct xsave_area {
    uint32_t region[1024];
};

_Static_assert(sizeof(struct xsave_area) == sizeof(struct kvm_xsave), "KVM's layout");

struct vcpu_state {
    struct kvm_mp_state mp_state;
    struct kvm_regs regs;
    struct kvm_sregs2 sregs;
    struct xsave_area xsave;
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_lapic_state lapic;
    struct kvm_vcpu_events events;
    struct vcpu_time time;
    struct msr_table msrs;
};

/* Asks KVM for the MSRs it knows and drops those that must not be put back blindly. */
int msr_list_get(int kvm_fd, struct msr_list *ret, struct error *e)
    __attribute__((warn_unused_result));

/*
 * Guest time. On hardware a vCPU's TSC has an offset from the host's, which is set so that the TSC
 * goes on where it was.
 *
 * On software KVM the guest's TSC *is* the host's, whatever offset is set: it jumps at a restore,
 * backwards where the host has been rebooted. Linux keeps time by KVM's clock there (x86/boot.c);
 * only a TSC deadline must be moved along, or the guest's timer would be silent for days.
 *
 * The offset is read from all vCPUs, and the host's TSC once after that, so that vCPUs which are in
 * step stay so. The order matters on hosts whose TSC is unreliable: KVM stops a guest's TSC there
 * whenever its vCPU is not in use, by a new offset each time, and it must not seem to go back.
 */
int vcpu_tsc_offset_get(int vcpu_fd, enum kvm_kind kind, uint64_t *ret_offset, struct error *e)
    __attribute__((warn_unused_result));

/* Reads all of a vCPU but time.tsc. It is not running and has no exit to complete. MSRs that KVM
 * lists but does not give, or would not take back, are left out. */
int vcpu_state_save(int vcpu_fd, const struct msr_list *msrs, struct vcpu_state *ret,
                    struct error *e) __attribute__((warn_unused_result));

/* Puts all but the time back. MSRs that are not in `msrs` are refused. */
int vcpu_state_load(int vcpu_fd, const struct msr_list *msrs, const struct vcpu_state *state,
                    struct error *e) __attribute__((warn_unused_result));

/* A timer that is due sooner than this when a guest goes on is put off until then: it is hardly
 * later than in a guest that had to wait for a CPU, and the guest's kernel, slow where it is
 * interpreted, does not get between the restore and the agent. */
#define VCPU_TIMER_GRACE_MS 10u

/* Lets a vCPU's time go on from where it was; the guest's TSC runs at `tsc_khz`. `host_tsc` is one
 * reading of the host's for all vCPUs. `lapic` is NULL, or the saved local APIC where its own timer
 * (not the TSC deadline) was counting, which then starts anew from the saved count. */
int vcpu_time_load(int vcpu_fd, const struct vcpu_time *time, const struct kvm_lapic_state *lapic,
                   enum kvm_kind kind, uint64_t host_tsc, uint32_t tsc_khz, struct error *e)
    __attribute__((warn_unused_result));

/* Whether the local APIC's own timer is counting (Intel SDM volume 3, 11.5.4). */
int lapic_timer_is_counting(const struct kvm_lapic_state *lapic);

/* Local interrupt pins of a first vCPU as firmware leaves them: LINT0 ExtINT, LINT1 NMI. */
void lapic_set_boot_pins(struct kvm_lapic_state *lapic);
