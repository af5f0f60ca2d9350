/*
 * One virtual machine in KVM: RAM, interrupt controllers, vCPUs and the event descriptors that tie
 * the virtio slots to them. See Linux, Documentation/virt/kvm/api.rst.
 *
 * The order of making things is part of the contract, because it decides whether a restore takes
 * one millisecond or ten: RAM first, then interrupt controllers, vCPUs, and only then the I/O event
 * descriptors. A change of RAM after an I/O bus change waits for a grace period in the kernel; so
 * does closing such a machine. There is no PIT: it alone makes closing take 16 ms.
 */
#pragma once

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cloche/guest_abi.h"
#include "vmm/common/guest_mem.h"
#include "vmm/x86/cpuid.h"

struct kvm_vm {
    int fd;
    size_t run_bytes;  /* size of a vCPU's struct kvm_run mapping */
    uint32_t tsc_khz;  /* of guests on this host */
    int serial_irq_fd; /* eventfds; a write of 1 raises the interrupt */
    int irq_fds[GUEST_VIRTIO_COUNT];
    int notify_fds[GUEST_VIRTIO_COUNT]; /* eventfds; readable when a queue was notified */
};

/* Checks that KVM has what we need, makes the machine, its RAM and its interrupt controllers. */
int kvm_vm_init(struct kvm_vm *vm, int kvm_fd, const struct guest_mem *mem, struct error *e)
    __attribute__((warn_unused_result));

/* Makes vCPU `index`; all of them are made before kvm_vm_wire. */
int kvm_vcpu_make(struct kvm_vm *vm, uint32_t index, const struct cpuid_table *cpuid, int *ret_fd,
                  struct kvm_run **ret_run, struct error *e) __attribute__((warn_unused_result));

/* Ties every virtio slot's QueueNotify register and interrupt, and the serial port's, to eventfds.
 */
int kvm_vm_wire(struct kvm_vm *vm, struct error *e) __attribute__((warn_unused_result));

/* Unties the interrupts. When it returns, every interrupt that was raised has arrived in the
 * interrupt controllers, which are then worth saving. */
int kvm_vm_settle(struct kvm_vm *vm, struct error *e) __attribute__((warn_unused_result));
