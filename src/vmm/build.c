#include "vmm/build.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "vmm/common/kvm_ioctl.h"
#include "vmm/machine/vcpu.h"
#include "vmm/state/restore.h"
#include "vmm/state/snapshot.h"
#include "vmm/vmm.h"
#include "vmm/x86/boot.h"
#include "vmm/x86/mptable.h"

/* A template's memory must not change or shrink under its clones: a write would show in them, and a
 * truncation is a SIGBUS. */
#define MEMORY_SEALS (F_SEAL_WRITE | F_SEAL_SHRINK)
/* Smaller holes are mapped with what is around them: each mapping costs. */
#define HOLE_BYTES_MIN       ((off_t)(256 * KIB))
#define SNAPSHOT_EXTENTS_MAX 1024

/* Where data begins at or behind `from`: `bytes`, the file's end, where there is none; -1 on
 * failure.
 */
static off_t find_data(int fd, off_t from, off_t bytes)
{
    off_t at = lseek(fd, from, SEEK_DATA);

    return at < 0 && errno == ENXIO ? bytes : at;
}

/*
 * Lays what the snapshot holds over the guest's anonymous memory. Its large holes stay anonymous: a
 * page of a file's hole that is written takes memory twice, in the file and as the copy, and the
 * first would be charged to whichever monitor came first.
 */
static int map_snapshot(uint8_t *host, off_t bytes, int fd)
{
    off_t hole_min = bytes / SNAPSHOT_EXTENTS_MAX;
    off_t start = find_data(fd, 0, bytes);

    if (hole_min < HOLE_BYTES_MIN)
        hole_min = HOLE_BYTES_MIN;
    /* Huge pages would make each guest as large as its memory is scattered. */
    if (madvise(host, (size_t)bytes, MADV_NOHUGEPAGE) != 0 && errno != EINVAL)
        return -1;
    while (start >= 0 && start < bytes) {
        off_t end, next = start;

        do {
            end = lseek(fd, next, SEEK_HOLE);
            next = end < 0 ? -1 : find_data(fd, end, bytes);
        } while (next >= 0 && next < bytes && next - end < hole_min);
        if (next < 0 || mmap(host + start, (size_t)(end - start), PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, start) == MAP_FAILED)
            return -1;
        start = next;
    }
    return start < 0 ? -1 : 0;
}

static int map_memory(struct vmm *vmm, struct error *e)
{
    int fd = vmm->fds[VMM_FD_MEMORY];
    uint64_t bytes = vmm->config.mem_mib * MIB;
    bool restore = vmm->config.mode == VMM_MODE_RESTORE;
    struct stat st;

    if (fstat(fd, &st) != 0)
        return error_errno(e, errno, "the guest's memory");
    if ((uint64_t)st.st_size != bytes)
        return error_set(e, ERR_BAD_REQUEST, "the guest's memory has %lld bytes, not %u MiB",
                         (long long)st.st_size, vmm->config.mem_mib);
    if (restore) {
        int seals = fcntl(fd, F_GET_SEALS);

        if (seals < 0 || (seals & MEMORY_SEALS) != MEMORY_SEALS)
            return error_set(e, ERR_BAD_REQUEST, "the snapshot's memory is not sealed");
    }
    void *host = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      restore ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED,
                      restore ? -1 : fd, 0);
    if (host == MAP_FAILED || (restore && map_snapshot(host, (off_t)bytes, fd) != 0))
        return error_errno(e, errno, "cannot map the guest's memory");
    guest_mem_init(&vmm->machine.mem, host, bytes);
    return 0;
}

static int make_machine(struct machine *m, struct error *e)
{
    m->kind = cpuid_kvm_kind();
    if (kvm_vm_init(&m->kvm, VMM_KVM_FD, &m->mem, e) != 0 ||
        cpuid_table_make(VMM_KVM_FD, m->kind, m->vcpu_count, &m->cpuid, e) != 0)
        return -1;
    struct cpuid_table table = m->cpuid;
    for (uint32_t i = 0; i < m->vcpu_count; i++) {
        struct vcpu *v = &m->vcpus[i];

        v->machine = m;
        v->index = i;
        cpuid_table_set_vcpu(&table, i, m->vcpu_count);
        if (kvm_vcpu_make(&m->kvm, i, &table, &v->fd, &v->run, e) != 0)
            return -1;
    }
    return kvm_vm_wire(&m->kvm, e);
}

static int make_devices(struct vmm *vmm, struct error *e)
{
    struct machine *m = &vmm->machine;
    struct devices_config config = {.mem = &m->mem,
                                    .fds = {[GUEST_VIRTIO_ROOT] = vmm->fds[VMM_FD_ROOT],
                                            [GUEST_VIRTIO_SCRATCH] = vmm->fds[VMM_FD_SCRATCH],
                                            [GUEST_VIRTIO_CONSOLE] = vmm->fds[VMM_FD_CHANNEL],
                                            [GUEST_VIRTIO_RNG] = -1}};

    memcpy(config.irq_fds, m->kvm.irq_fds, sizeof(config.irq_fds));
    memcpy(config.notify_fds, m->kvm.notify_fds, sizeof(config.notify_fds));
    m->devices = devices_new(&config, e);
    return m->devices != NULL ? 0 : -1;
}

/* What is written through a descriptor from here on goes to the scratch disk, or is the state,
 * which is smaller: a monitor that was taken over must not fill the host's disk either. */
static int limit_file_size(struct vmm *vmm, struct error *e)
{
    struct rlimit limit;
    struct stat st;

    if (fstat(vmm->fds[VMM_FD_SCRATCH], &st) != 0)
        return error_errno(e, errno, "cannot read the size of the scratch disk");
    limit.rlim_cur = limit.rlim_max = (rlim_t)st.st_size;
    if (syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, &limit, NULL) != 0)
        return error_errno(e, errno, "cannot limit the size of files");
    return 0;
}

static int load_kernel(struct vmm *vmm, struct loaded_kernel *ret, struct error *e)
{
    struct stat st;

    if (fstat(vmm->fds[VMM_FD_KERNEL], &st) != 0 || st.st_size <= 0)
        return error_set(e, ERR_BAD_REQUEST, "the kernel cannot be read");
    size_t size = (size_t)st.st_size;
    void *image = mmap(NULL, size, PROT_READ, MAP_PRIVATE, vmm->fds[VMM_FD_KERNEL], 0);
    if (image == MAP_FAILED)
        return error_errno(e, errno, "the kernel cannot be read");
    int result = loader_load_kernel(&vmm->machine.mem, image, size, ret, e);
    (void)munmap(image, size);
    return result;
}

static int load_initrd(struct vmm *vmm, const struct loaded_kernel *kernel,
                       struct boot_config *boot, struct error *e)
{
    struct stat st;

    if (fstat(vmm->fds[VMM_FD_INITRD], &st) != 0 || st.st_size < 0)
        return error_set(e, ERR_BAD_REQUEST, "the initramfs cannot be read");
    boot->initrd_bytes = (uint64_t)st.st_size;
    if (boot->initrd_bytes == 0)
        return 0;
    if (loader_place_initrd(&vmm->machine.mem, kernel, boot->initrd_bytes, &boot->initrd_gpa, e) !=
        0)
        return -1;
    void *host = guest_mem_at(&vmm->machine.mem, boot->initrd_gpa, boot->initrd_bytes);
    if (host == NULL || fd_pread_full(vmm->fds[VMM_FD_INITRD], host, boot->initrd_bytes, 0) !=
                            (ssize_t)boot->initrd_bytes)
        return error_set(e, ERR_BAD_REQUEST, "the initramfs cannot be read");
    return 0;
}

static int set_first_vcpu(struct vmm *vmm, const struct loaded_kernel *kernel, struct error *e)
{
    int fd = vmm->machine.vcpus[0].fd;
    struct kvm_fpu fpu = {.fcw = 0x37f, .mxcsr = 0x1f80};
    struct kvm_lapic_state lapic;
    struct kvm_sregs2 sregs;
    struct kvm_regs regs;

    if (kvm_ioctl(fd, KVM_GET_SREGS2, &sregs) != 0 || kvm_ioctl(fd, KVM_GET_LAPIC, &lapic) != 0)
        return error_errno(e, errno, "cannot read the first vCPU");
    boot_set_registers(kernel, &regs, &sregs);
    lapic_set_boot_pins(&lapic);
    if (kvm_ioctl(fd, KVM_SET_SREGS2, &sregs) != 0 || kvm_ioctl(fd, KVM_SET_REGS, &regs) != 0 ||
        kvm_ioctl(fd, KVM_SET_FPU, &fpu) != 0 || kvm_ioctl(fd, KVM_SET_LAPIC, &lapic) != 0)
        return error_errno(e, errno, "cannot set the first vCPU");
    return 0;
}

static int prepare_boot(struct vmm *vmm, struct error *e)
{
    char cmdline[BOOT_CMDLINE_BYTES_MAX];
    struct loaded_kernel kernel;
    struct boot_config boot = {.kernel = &kernel, .cmdline = cmdline};

    doorbell_init(&vmm->machine.doorbell, DOORBELL_PHASE_BOOT);
    vmm->machine.control.boot_log = &vmm->machine.serial;
    if (boot_make_cmdline(vmm->machine.kind, vmm->config.cmdline_extra, cmdline, e) != 0 ||
        load_kernel(vmm, &kernel, e) != 0 || load_initrd(vmm, &kernel, &boot, e) != 0 ||
        boot_write(&vmm->machine.mem, &boot, e) != 0 ||
        mptable_write(&vmm->machine.mem, vmm->config.vcpus, e) != 0 ||
        set_first_vcpu(vmm, &kernel, e) != 0)
        return -1;
    return park_prepare(&vmm->park, &vmm->machine, vmm->fds[VMM_FD_STATE], e);
}

static int prepare_restore(struct vmm *vmm, struct error *e)
{
    struct snapshot *snapshot;
    uint8_t *bytes;

    doorbell_init(&vmm->machine.doorbell, DOORBELL_PHASE_RESTORED);
    if (restore_read(vmm->fds[VMM_FD_STATE], &snapshot, &bytes, e) != 0)
        return -1;
    int result = restore_load(&vmm->machine, snapshot, e);
    snapshot_free(snapshot);
    free(bytes);
    return result;
}

/* What a running guest's monitor has no use for it must not have. */
static void close_spare_fds(struct vmm *vmm)
{
    int kvm_fd = VMM_KVM_FD;

    fd_close(&kvm_fd);
    fd_close(&vmm->fds[VMM_FD_MEMORY]);
    if (vmm->config.mode == VMM_MODE_BOOT) {
        fd_close(&vmm->fds[VMM_FD_KERNEL]);
        fd_close(&vmm->fds[VMM_FD_INITRD]);
    } else {
        fd_close(&vmm->fds[VMM_FD_STATE]);
    }
}

int build_guest(struct vmm *vmm, enum vmm_gone_reason *ret_reason, struct error *e)
{
    bool restore = vmm->config.mode == VMM_MODE_RESTORE;
    struct machine *m = &vmm->machine;

    m->mem_mib = vmm->config.mem_mib;
    m->vcpu_count = vmm->config.vcpus;
    *ret_reason = VMM_GONE_CONFIG;
    if (map_memory(vmm, e) != 0 || make_machine(m, e) != 0)
        return -1;
    serial_init(&m->serial, m->kvm.serial_irq_fd);
    if (limit_file_size(vmm, e) != 0 || make_devices(vmm, e) != 0)
        return -1;
    if (restore) {
        *ret_reason = VMM_GONE_STATE;
        if (prepare_restore(vmm, e) != 0)
            return -1;
        *ret_reason = VMM_GONE_CONFIG;
    } else if (prepare_boot(vmm, e) != 0) {
        return -1;
    }
    if (vcpu_make_threads(m, e) != 0 || loop_init(&vmm->loop, m, e) != 0)
        return -1;
    /* A thread that starts makes system calls which the jail will no longer allow. */
    gate_wait(&m->started, m->vcpu_count - 1 + DEVICES_LANE_COUNT);
    close_spare_fds(vmm);
    return 0;
}
