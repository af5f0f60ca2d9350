/*
 * The monitor's one guest: what its parts share. There is one of it, in static storage, so that
 * nothing is allocated once a guest runs.
 *
 * Threads. The first thread builds everything, waits for START and then runs vCPU 0: the message
 * that starts a guest wakes the very thread that enters it. The loop thread serves devices and
 * watches the daemon (loop.c). Every other vCPU has its own thread, made before the jail closes and
 * held at a gate until START.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cloche/vmm_proto.h"
#include "vmm/common/control.h"
#include "vmm/common/doorbell.h"
#include "vmm/common/guest_mem.h"
#include "vmm/common/serial.h"
#include "vmm/loop.h"
#include "vmm/machine/kvm.h"
#include "vmm/machine/vcpu.h"
#include "vmm/virtio/devices.h"

struct snapshot;

struct vmm {
    struct control control;
    struct vmm_config config;
    int fds[VMM_FD_COUNT_BOOT]; /* -1 once closed */
    enum kvm_kind kind;
    struct cpuid_table cpuid; /* as vCPU 0 has it */
    struct guest_mem mem;
    struct kvm_vm kvm;
    struct vcpu vcpus[SANDBOX_VCPUS_MAX];
    struct vcpu_gate gate;
    struct serial serial;
    struct doorbell doorbell;
    struct devices *devices;
    struct loop loop;
    uint64_t clock_ns;           /* RESTORE: KVM's clock when the guest was stopped */
    struct msr_list *msrs;       /* BOOT: what park.c saves */
    struct snapshot *park_state; /* BOOT: room for it */
    uint8_t *park_bytes;         /* BOOT: room for the file, SNAPSHOT_BYTES_MAX */
};
