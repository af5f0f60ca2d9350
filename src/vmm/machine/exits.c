#include "vmm/machine/exits.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/common/kvm_ioctl.h"
#include "vmm/machine/machine.h"

#define RESET_PORT    0x64u /* the keyboard controller's command port; it drives the reset line */
#define RESET_COMMAND 0xfeu

#define VIRTIO_FIRST GUEST_VIRTIO_GPA(0)
#define VIRTIO_END   GUEST_VIRTIO_GPA(GUEST_VIRTIO_COUNT)

static uint64_t read_rip(const struct vcpu *v)
{
    struct kvm_regs regs;

    return kvm_ioctl(v->fd, KVM_GET_REGS, &regs) == 0 ? regs.rip : 0;
}

/* One element of a port access; what is not there reads as ones. */
static void access_port(struct vcpu *v, uint32_t port, uint8_t *data, uint32_t size, bool is_write)
{
    if (!is_write)
        memset(data, 0xff, size);
    if (port - SERIAL_PORT < SERIAL_PORTS) {
        if (is_write)
            serial_write(&v->machine->serial, port - SERIAL_PORT, data[0]);
        else
            data[0] = serial_read(&v->machine->serial, port - SERIAL_PORT);
    } else if (port == RESET_PORT) {
        if (is_write && data[0] == RESET_COMMAND)
            control_gone(&v->machine->control, VMM_GONE_SHUTDOWN, 0, "the guest reset itself");
        if (!is_write)
            data[0] = 0; /* never busy */
    }
}

/* String instructions come as `count` elements; KVM bounds them by a page. */
static void handle_io(struct vcpu *v)
{
    struct kvm_run *run = v->run;
    uint32_t size = run->io.size;
    uint32_t count = run->io.count;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    bool is_write = run->io.direction == KVM_EXIT_IO_OUT;

    assert(run->io.data_offset + (uint64_t)size * count <= v->machine->kvm.run_bytes);
    for (uint32_t i = 0; i < count; i++, data += size)
        access_port(v, run->io.port, data, size, is_write);
}

static enum exit_verdict ring_doorbell(struct vcpu *v, uint32_t value)
{
    struct machine *m = v->machine;
    uint32_t failure = 0;

    switch (doorbell_ring(&m->doorbell, value, &failure)) {
    case DOORBELL_ACT_NONE:
        break;
    case DOORBELL_ACT_PARK:
        return EXIT_PARK;
    case DOORBELL_ACT_FIRST:
        control_report(&m->control, VMM_FIRST, 0);
        break;
    case DOORBELL_ACT_READY: {
        void *page = guest_mem_at(&m->mem, GUEST_IDENTITY_GPA, GUEST_PAGE_BYTES);

        assert(page != NULL);
        memset(page, 0, GUEST_PAGE_BYTES);
        control_report(&m->control, VMM_READY, 0);
        break;
    }
    case DOORBELL_ACT_FAILED:
        control_gone(&m->control, VMM_GONE_FAILED, failure, "the agent gave up, reason %u",
                     failure);
    }
    return EXIT_GO_ON;
}

static enum exit_verdict handle_mmio(struct vcpu *v)
{
    struct kvm_run *run = v->run;
    uint64_t gpa = run->mmio.phys_addr;
    uint32_t size = run->mmio.len;
    bool is_write = run->mmio.is_write != 0;

    assert(size <= sizeof(run->mmio.data));
    if (gpa >= VIRTIO_FIRST && gpa < VIRTIO_END) {
        devices_mmio(v->machine->devices, gpa, run->mmio.data, size, is_write);
        return EXIT_GO_ON;
    }
    if (!is_write) {
        memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
    } else if (gpa == GUEST_DOORBELL_GPA && size == sizeof(uint32_t)) {
        uint32_t value;

        memcpy(&value, run->mmio.data, sizeof(value));
        return ring_doorbell(v, value);
    }
    return EXIT_GO_ON;
}

static _Noreturn void internal_error(struct vcpu *v)
{
    const struct kvm_run *run = v->run;
    char bytes[3 * sizeof(run->emulation_failure.insn_bytes) + 1] = "";

    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && run->internal.ndata > 1 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0) {
        size_t count = run->emulation_failure.insn_size;

        if (count > sizeof(run->emulation_failure.insn_bytes))
            count = sizeof(run->emulation_failure.insn_bytes);
        for (size_t i = 0; i < count; i++)
            (void)snprintf(bytes + 3 * i, 4, " %02x", run->emulation_failure.insn_bytes[i]);
    }
    control_gone(&v->machine->control, VMM_GONE_KVM, run->exit_reason,
                 "KVM cannot go on with vCPU %u: internal error %u at rip %#llx%s%s", v->index,
                 run->internal.suberror, (unsigned long long)read_rip(v),
                 bytes[0] != '\0' ? ", instruction" : "", bytes);
}

enum exit_verdict exits_handle(struct vcpu *v)
{
    struct control *control = &v->machine->control;
    struct kvm_run *run = v->run;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        handle_io(v);
        return EXIT_GO_ON;
    case KVM_EXIT_MMIO:
        return handle_mmio(v);
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_SET_TPR:
        return EXIT_GO_ON;
    case KVM_EXIT_SHUTDOWN:
        control_gone(control, VMM_GONE_SHUTDOWN, run->exit_reason,
                     "the guest shut down (triple fault on vCPU %u at rip %#llx)", v->index,
                     (unsigned long long)read_rip(v));
    case KVM_EXIT_SYSTEM_EVENT:
        control_gone(control, VMM_GONE_SHUTDOWN, run->exit_reason,
                     "the guest shut down (system event %u)", run->system_event.type);
    case KVM_EXIT_INTERNAL_ERROR:
        internal_error(v);
    case KVM_EXIT_FAIL_ENTRY:
        control_gone(control, VMM_GONE_KVM, run->exit_reason,
                     "KVM cannot enter vCPU %u: hardware reason %#llx at rip %#llx", v->index,
                     (unsigned long long)run->fail_entry.hardware_entry_failure_reason,
                     (unsigned long long)read_rip(v));
    default:
        control_gone(control, VMM_GONE_KVM, run->exit_reason,
                     "vCPU %u left the guest for an unknown reason %u at rip %#llx", v->index,
                     run->exit_reason, (unsigned long long)read_rip(v));
    }
}
