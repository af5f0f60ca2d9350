#include "vmm/state/park.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/fd.h"
#include "vmm/state/snapshot.h"
#include "vmm/vmm.h"

_Static_assert(sizeof(struct serial_registers) == SNAPSHOT_SERIAL_BYTES, "the state file's layout");

int park_prepare(struct vmm *vmm, struct error *e)
{
    vmm->msrs = calloc(1, sizeof(*vmm->msrs));
    vmm->park_state = snapshot_new(vmm->config.vcpus);
    vmm->park_bytes = malloc(SNAPSHOT_BYTES_MAX);
    if (vmm->msrs == NULL || vmm->park_state == NULL || vmm->park_bytes == NULL)
        return error_set(e, ERR_INTERNAL, "no memory for the snapshot's state");
    return msr_list_get(VMM_KVM_FD, vmm->msrs, e);
}

/* Queues that were notified, and not yet looked at, before the vCPUs stopped. */
static void drain_devices(struct vmm *vmm)
{
    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        uint64_t count;

        if (read(vmm->kvm.notify_fds[slot], &count, sizeof(count)) == (ssize_t)sizeof(count))
            devices_notify(vmm->devices, (enum guest_virtio_slot)slot);
    }
}

/* The guest's time stops with its last vCPU, not when its state is read. */
static int stop_time(struct vmm *vmm, struct snapshot *s, struct error *e)
{
    for (uint32_t i = 0; i < s->vcpus; i++) {
        if (vcpu_tsc_offset_get(vmm->vcpus[i].fd, vmm->kind, &s->vcpu[i].time.tsc, e) != 0)
            return -1;
    }
    uint64_t host_tsc = __rdtsc();
    for (uint32_t i = 0; i < s->vcpus; i++)
        s->vcpu[i].time.tsc += host_tsc;
    if (kvm_ioctl(vmm->kvm.fd, KVM_GET_CLOCK, &s->clock) != 0)
        return error_errno(e, errno, "KVM_GET_CLOCK");
    return 0;
}

static int save_machine(struct vmm *vmm, struct snapshot *s, struct error *e)
{
    for (uint32_t i = 0; i < s->vcpus; i++) {
        if (vcpu_state_save(vmm->vcpus[i].fd, vmm->msrs, &s->vcpu[i], e) != 0)
            return -1;
    }
    for (uint32_t i = 0; i < SNAPSHOT_IRQCHIPS; i++) {
        s->irqchips[i].chip_id = i;
        if (kvm_ioctl(vmm->kvm.fd, KVM_GET_IRQCHIP, &s->irqchips[i]) != 0)
            return error_errno(e, errno, "KVM_GET_IRQCHIP");
    }
    return 0;
}

static int write_state(struct vmm *vmm, struct snapshot *s, struct error *e)
{
    struct wire_writer serial, devices;
    uint8_t *file = vmm->park_bytes;
    const size_t devices_max = SNAPSHOT_BYTES_MAX / 2;

    s->kind = vmm->kind;
    s->mem_mib = vmm->config.mem_mib;
    s->tsc_khz = vmm->kvm.tsc_khz;
    s->host = cpuid_host_get();
    s->cpuid = vmm->cpuid;
    wire_writer_init(&serial, s->serial, sizeof(s->serial));
    serial_save(&vmm->serial, &serial);
    /* The devices' bytes wait in the upper half until the file grows up to them. */
    wire_writer_init(&devices, file + devices_max, SNAPSHOT_BYTES_MAX - devices_max);
    devices_save(vmm->devices, &devices);
    s->devices = file + devices_max;
    s->devices_bytes = devices.used;
    assert(!serial.bad);
    size_t size = devices.bad ? 0 : snapshot_write(s, file, devices_max);
    if (size == 0)
        return error_set(e, ERR_INTERNAL, "the devices' state is too large for a snapshot");
    if (fd_pwrite_full(vmm->fds[VMM_FD_STATE], file, size, 0) != 0)
        return error_errno(e, errno, "cannot write the snapshot's state");
    return 0;
}

void park(struct vmm *vmm)
{
    struct error e = ERROR_INIT;
    struct snapshot *s = vmm->park_state;

    vcpu_wait_stopped(vmm);
    if (stop_time(vmm, s, &e) != 0)
        control_gone_error(&vmm->control, VMM_GONE_KVM, &e);
    drain_devices(vmm);
    if (kvm_vm_settle(&vmm->kvm, &e) != 0 || save_machine(vmm, s, &e) != 0 ||
        write_state(vmm, s, &e) != 0)
        control_gone_error(&vmm->control, VMM_GONE_KVM, &e);
    control_report(&vmm->control, VMM_PARKED, 0);
    _exit(CONTROL_EXIT_OK);
}
