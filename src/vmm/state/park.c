#include "vmm/state/park.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/fd.h"
#include "vmm/common/kvm_ioctl.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/vcpu.h"
#include "vmm/state/snapshot.h"

_Static_assert(sizeof(struct serial_registers) == SNAPSHOT_SERIAL_BYTES, "the state file's layout");

int park_prepare(struct park *p, struct machine *m, int state_fd, struct error *e)
{
    p->machine = m;
    p->state_fd = state_fd;
    p->state = snapshot_new(m->vcpu_count);
    p->bytes = malloc(SNAPSHOT_BYTES_MAX);
    if (p->state == NULL || p->bytes == NULL)
        return error_set(e, ERR_INTERNAL, "no memory for the snapshot's state");
    m->park = park;
    m->park_arg = p;
    return msr_list_get(VMM_KVM_FD, &p->msrs, e);
}

/* The guest's time stops with its last vCPU, not when its state is read. */
static int stop_time(struct machine *m, struct snapshot *s, struct error *e)
{
    for (uint32_t i = 0; i < s->vcpus; i++) {
        if (vcpu_tsc_offset_get(m->vcpus[i].fd, m->kind, &s->vcpu[i].time.tsc, e) != 0)
            return -1;
    }
    uint64_t host_tsc = __rdtsc();
    for (uint32_t i = 0; i < s->vcpus; i++)
        s->vcpu[i].time.tsc += host_tsc;
    if (kvm_ioctl(m->kvm.fd, KVM_GET_CLOCK, &s->clock) != 0)
        return error_errno(e, errno, "KVM_GET_CLOCK");
    return 0;
}

static int save_machine(struct park *p, struct snapshot *s, struct error *e)
{
    const struct machine *m = p->machine;

    for (uint32_t i = 0; i < s->vcpus; i++) {
        if (vcpu_state_save(m->vcpus[i].fd, &p->msrs, &s->vcpu[i], e) != 0)
            return -1;
    }
    for (uint32_t i = 0; i < SNAPSHOT_IRQCHIPS; i++) {
        s->irqchips[i].chip_id = i;
        if (kvm_ioctl(m->kvm.fd, KVM_GET_IRQCHIP, &s->irqchips[i]) != 0)
            return error_errno(e, errno, "KVM_GET_IRQCHIP");
    }
    return 0;
}

static int write_state(struct park *p, struct snapshot *s, struct error *e)
{
    struct machine *m = p->machine;
    struct wire_writer serial, devices;
    uint8_t *file = p->bytes;
    const size_t devices_max = SNAPSHOT_BYTES_MAX / 2;

    s->kind = m->kind;
    s->mem_mib = m->mem_mib;
    s->tsc_khz = m->kvm.tsc_khz;
    s->host = cpuid_host_get();
    s->cpuid = m->cpuid;
    wire_writer_init(&serial, s->serial, sizeof(s->serial));
    serial_save(&m->serial, &serial);
    /* The devices' bytes wait in the upper half until the file grows up to them. */
    wire_writer_init(&devices, file + devices_max, SNAPSHOT_BYTES_MAX - devices_max);
    devices_save(m->devices, &devices);
    s->devices = file + devices_max;
    s->devices_bytes = devices.used;
    assert(!serial.bad);
    size_t size = devices.bad ? 0 : snapshot_write(s, file, devices_max);
    if (size == 0)
        return error_set(e, ERR_INTERNAL, "the devices' state is too large for a snapshot");
    if (fd_pwrite_full(p->state_fd, file, size, 0) != 0)
        return error_errno(e, errno, "cannot write the snapshot's state");
    return 0;
}

_Noreturn void park(struct vcpu *self, void *arg)
{
    struct error e = ERROR_INIT;
    struct park *p = arg;
    struct machine *m = p->machine;

    vcpu_stop_others(self);
    if (stop_time(m, p->state, &e) != 0)
        control_gone_error(&m->control, VMM_GONE_KVM, &e);
    devices_freeze(m->devices);
    if (kvm_vm_settle(&m->kvm, &e) != 0 || save_machine(p, p->state, &e) != 0 ||
        write_state(p, p->state, &e) != 0)
        control_gone_error(&m->control, VMM_GONE_KVM, &e);
    control_report(&m->control, VMM_PARKED, 0);
    _exit(CONTROL_EXIT_OK);
}
