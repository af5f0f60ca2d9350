#include "vmm/machine/kvm.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/common/kvm_ioctl.h"
#include "vmm/common/serial.h"

/* Where KVM on Intel keeps pages of its own: inside the MMIO gap, below the local APIC. */
#define TSS_GPA          UINT64_C(0xfffbd000)
#define IDENTITY_MAP_GPA UINT64_C(0xfffbc000)

#define QUEUE_NOTIFY_OFFSET UINT64_C(0x50) /* virtio 1.2, 4.2.2 */

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
    int capability;
    const char *name;
} needed[] = {
    {KVM_CAP_IRQCHIP, "irqchip"},
    {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
    {KVM_CAP_XSAVE, "xsave"},
    {KVM_CAP_XCRS, "xcrs"},
    {KVM_CAP_SREGS2, "sregs2"},
    {KVM_CAP_DEBUGREGS, "debugregs"},
    {KVM_CAP_VCPU_EVENTS, "vcpu events"},
    {KVM_CAP_VCPU_ATTRIBUTES, "vcpu attributes (the TSC offset)"},
    {KVM_CAP_ADJUST_CLOCK, "clock"},
    {KVM_CAP_TSC_DEADLINE_TIMER, "TSC deadline timer"},
    {KVM_CAP_IRQFD, "irqfd"},
    {KVM_CAP_IOEVENTFD, "ioeventfd"},
};

/* For arguments that are numbers. */
static int kvm_ioctl_number(int fd, unsigned long request, unsigned long number)
{
    return (int)syscall(SYS_ioctl, fd, request, number);
}

static int add_ram(struct kvm_vm *vm, uint32_t slot, uint64_t gpa, uint64_t bytes,
                   const struct guest_mem *mem, struct error *e)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .guest_phys_addr = gpa,
        .memory_size = bytes,
        .userspace_addr = (uint64_t)(uintptr_t)guest_mem_at(mem, gpa, bytes),
    };

    if (bytes > 0 && kvm_ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) != 0)
        return error_errno(e, errno, "KVM_SET_USER_MEMORY_REGION");
    return 0;
}

int kvm_vm_init(struct kvm_vm *vm, int kvm_fd, const struct guest_mem *mem, struct error *e)
{
    uint64_t identity_map = IDENTITY_MAP_GPA;

    *vm = (struct kvm_vm){.fd = -1};
    if (kvm_ioctl_number(kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return error_set(e, ERR_KVM_UNAVAILABLE, "/dev/kvm has another version than %d",
                         KVM_API_VERSION);
    for (size_t i = 0; i < COUNT(needed); i++) {
        if (kvm_ioctl_number(kvm_fd, KVM_CHECK_EXTENSION, (unsigned long)needed[i].capability) <= 0)
            return error_set(e, ERR_KVM_UNAVAILABLE, "this host's KVM lacks %s", needed[i].name);
    }
    int run_bytes = kvm_ioctl_number(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_bytes < (int)sizeof(struct kvm_run))
        return error_set(e, ERR_KVM_UNAVAILABLE, "KVM_GET_VCPU_MMAP_SIZE gives %d", run_bytes);
    vm->run_bytes = (size_t)run_bytes;
    do {
        vm->fd = kvm_ioctl_number(kvm_fd, KVM_CREATE_VM, 0);
    } while (vm->fd < 0 && errno == EINTR);
    if (vm->fd < 0)
        return error_errno(e, errno, "KVM_CREATE_VM");
    if (kvm_ioctl_number(vm->fd, KVM_SET_TSS_ADDR, TSS_GPA) != 0 ||
        kvm_ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) != 0)
        return error_errno(e, errno, "KVM_SET_TSS_ADDR");
    if (add_ram(vm, 0, 0, mem->low_bytes, mem, e) != 0 ||
        add_ram(vm, 1, GUEST_HIGH_RAM_GPA, mem->high_bytes, mem, e) != 0)
        return -1;
    if (kvm_ioctl_number(vm->fd, KVM_CREATE_IRQCHIP, 0) != 0)
        return error_errno(e, errno, "KVM_CREATE_IRQCHIP");
    return 0;
}

int kvm_vcpu_make(struct kvm_vm *vm, uint32_t index, const struct cpuid_table *cpuid, int *ret_fd,
                  struct kvm_run **ret_run, struct error *e)
{
    int fd = kvm_ioctl_number(vm->fd, KVM_CREATE_VCPU, index);

    if (fd < 0)
        return error_errno(e, errno, "KVM_CREATE_VCPU");
    void *run = mmap(NULL, vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (run == MAP_FAILED) {
        (void)error_errno(e, errno, "cannot map a vCPU");
        (void)close(fd);
        return -1;
    }
    if (kvm_ioctl(fd, KVM_SET_CPUID2, (void *)(uintptr_t)cpuid) != 0) {
        (void)error_errno(e, errno, "KVM_SET_CPUID2");
        (void)munmap(run, vm->run_bytes);
        (void)close(fd);
        return -1;
    }
    if (index == 0) {
        int khz = kvm_ioctl_number(fd, KVM_GET_TSC_KHZ, 0);
        vm->tsc_khz = khz > 0 ? (uint32_t)khz : 0;
    }
    *ret_fd = fd;
    *ret_run = run;
    return 0;
}

static int make_event_fd(int *ret, struct error *e)
{
    *ret = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return *ret >= 0 ? 0 : error_errno(e, errno, "eventfd");
}

static int wire_irq(struct kvm_vm *vm, uint32_t gsi, int event_fd, uint32_t flags, struct error *e)
{
    struct kvm_irqfd irqfd = {.fd = (uint32_t)event_fd, .gsi = gsi, .flags = flags};

    if (kvm_ioctl(vm->fd, KVM_IRQFD, &irqfd) != 0)
        return error_errno(e, errno, "KVM_IRQFD");
    return 0;
}

/* A length of 0 matches a store of any width and spares KVM its decoding where it can. */
static int wire_notify(struct kvm_vm *vm, unsigned slot, struct error *e)
{
    struct kvm_ioeventfd notify = {
        .addr = GUEST_VIRTIO_GPA(slot) + QUEUE_NOTIFY_OFFSET,
        .len = 0,
        .fd = vm->notify_fds[slot],
    };

    if (kvm_ioctl(vm->fd, KVM_IOEVENTFD, &notify) == 0)
        return 0;
    notify.len = 4;
    if (kvm_ioctl(vm->fd, KVM_IOEVENTFD, &notify) != 0)
        return error_errno(e, errno, "KVM_IOEVENTFD");
    return 0;
}

int kvm_vm_wire(struct kvm_vm *vm, struct error *e)
{
    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        if (make_event_fd(&vm->notify_fds[slot], e) != 0 ||
            make_event_fd(&vm->irq_fds[slot], e) != 0 || wire_notify(vm, slot, e) != 0 ||
            wire_irq(vm, GUEST_VIRTIO_IRQ(slot), vm->irq_fds[slot], 0, e) != 0)
            return -1;
    }
    if (make_event_fd(&vm->serial_irq_fd, e) != 0)
        return -1;
    return wire_irq(vm, SERIAL_IRQ, vm->serial_irq_fd, 0, e);
}

int kvm_vm_settle(struct kvm_vm *vm, struct error *e)
{
    /* To take an irqfd away waits for injections that the kernel has put off to a worker. */
    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        if (wire_irq(vm, GUEST_VIRTIO_IRQ(slot), vm->irq_fds[slot], KVM_IRQFD_FLAG_DEASSIGN, e) !=
            0)
            return -1;
    }
    return wire_irq(vm, SERIAL_IRQ, vm->serial_irq_fd, KVM_IRQFD_FLAG_DEASSIGN, e);
}
