#include "vmm/state/restore.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <x86intrin.h>

#include "base/fd.h"
#include "vmm/common/kvm_ioctl.h"
#include "vmm/machine/machine.h"
#include "vmm/state/snapshot.h"

int restore_read(int fd, struct snapshot **ret_snapshot, uint8_t **ret_bytes, struct error *e)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return error_errno(e, errno, "cannot read the snapshot's state");
    if (st.st_size <= 0 || (uint64_t)st.st_size > SNAPSHOT_BYTES_MAX)
        return error_set(e, ERR_TEMPLATE_CORRUPT,
                         "the snapshot's state is corrupt: its size is impossible");
    size_t size = (size_t)st.st_size;
    uint8_t *bytes = malloc(size);
    if (bytes == NULL)
        return error_set(e, ERR_INTERNAL, "no memory for the snapshot's state");
    if (fd_pread_full(fd, bytes, size, 0) != (ssize_t)size) {
        free(bytes);
        return error_set(e, ERR_TEMPLATE_CORRUPT, "the snapshot's state cannot be read");
    }
    if (snapshot_parse(bytes, size, ret_snapshot, e) != 0) {
        free(bytes);
        return -1;
    }
    *ret_bytes = bytes;
    return 0;
}

static int load_vcpus(struct machine *m, const struct snapshot *s, struct error *e)
{
    struct msr_list *msrs = calloc(1, sizeof(*msrs));
    int result;

    if (msrs == NULL)
        return error_set(e, ERR_INTERNAL, "no memory for the list of MSRs");
    result = msr_list_get(VMM_KVM_FD, msrs, e);
    for (uint32_t i = 0; i < s->vcpus && result == 0; i++) {
        struct vcpu *v = &m->vcpus[i];

        result = vcpu_state_load(v->fd, msrs, &s->vcpu[i], e);
        if (result != 0) {
            (void)error_wrap(e, "vCPU %u", i);
            break;
        }
        v->time = s->vcpu[i].time;
        v->has_lapic = lapic_timer_is_counting(&s->vcpu[i].lapic) != 0;
        if (v->has_lapic)
            v->lapic = s->vcpu[i].lapic;
    }
    free(msrs);
    return result;
}

int restore_load(struct machine *m, const struct snapshot *s, struct error *e)
{
    const struct snapshot_place here = {.kind = m->kind,
                                        .host = cpuid_host_get(),
                                        .vcpus = m->vcpu_count,
                                        .mem_mib = m->mem_mib,
                                        .tsc_khz = m->kvm.tsc_khz,
                                        .cpuid = &m->cpuid};
    struct wire_reader serial, devices;

    if (snapshot_check_place(s, &here, e) != 0)
        return -1;
    for (uint32_t i = 0; i < SNAPSHOT_IRQCHIPS; i++) {
        struct kvm_irqchip chip = s->irqchips[i];

        if (kvm_ioctl(m->kvm.fd, KVM_SET_IRQCHIP, &chip) != 0)
            return error_errno(e, errno, "KVM refuses the state of an interrupt controller");
    }
    if (load_vcpus(m, s, e) != 0)
        return -1;
    wire_reader_init(&serial, s->serial, sizeof(s->serial));
    serial_load(&m->serial, &serial);
    wire_reader_init(&devices, s->devices, s->devices_bytes);
    if (devices_load(m->devices, &devices, e) != 0)
        return error_wrap(e, "devices");
    m->clock_ns = s->clock.clock;
    return 0;
}

int restore_start(struct machine *m, const struct identity_page *identity, struct error *e)
{
    struct kvm_clock_data clock = {.clock = m->clock_ns};
    void *page = guest_mem_at(&m->mem, GUEST_IDENTITY_GPA, sizeof(*identity));

    if (page == NULL)
        return error_set(e, ERR_INTERNAL, "the guest's memory has no identity page");
    memcpy(page, identity, sizeof(*identity));
    uint64_t host_tsc = __rdtsc();
    for (uint32_t i = 0; i < m->vcpu_count; i++) {
        const struct vcpu *v = &m->vcpus[i];

        if (vcpu_time_load(v->fd, &v->time, v->has_lapic ? &v->lapic : NULL, m->kind, host_tsc,
                           m->kvm.tsc_khz, e) != 0)
            return -1;
    }
    if (kvm_ioctl(m->kvm.fd, KVM_SET_CLOCK, &clock) != 0)
        return error_errno(e, errno, "KVM_SET_CLOCK");
    return 0;
}
