/*
 * /dev/kvm, and which kind of it: with the CPU's own virtualisation the guest's kernel runs
 * natively; without (a host that is itself a guest, with a software KVM) its kernel mode is
 * interpreted, which works the same and is slower.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "base/host.h"
#include "cli/doctor/checks.h"

static const struct {
    int number;
    const char *name;
} capabilities[] = {
    {KVM_CAP_IRQCHIP, "in-kernel interrupt controllers"},
    {KVM_CAP_USER_MEMORY, "user memory slots"},
    {KVM_CAP_SET_TSS_ADDR, "TSS address"},
    {KVM_CAP_EXT_CPUID, "CPUID"},
    {KVM_CAP_MP_STATE, "vCPU run state"},
    {KVM_CAP_VCPU_EVENTS, "vCPU events"},
    {KVM_CAP_ADJUST_CLOCK, "guest clock"},
    {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
};

#define CAPABILITY_COUNT (sizeof(capabilities) / sizeof(capabilities[0]))

/* How to get a /dev/kvm depends on what the CPU offers. */
static void explain_missing(struct finding *f, bool hardware)
{
    finding_set(f, FINDING_FAIL, "/dev/kvm: %s", strerror(errno));
    if (errno == EACCES || errno == EPERM)
        finding_remedy(f, "run as root, or join the group that owns it: usermod -aG kvm NAME");
    else if (hardware)
        finding_remedy(f, "load its module: modprobe kvm_intel (or kvm_amd); in a container, pass "
                          "--device /dev/kvm");
    else
        finding_remedy(f, "switch virtualisation on in the firmware; in a cloud, take a machine "
                          "type with nested virtualisation, or a host with a software KVM");
}

void doctor_check_kvm(struct finding *f, const struct doctor_paths *paths)
{
    bool hardware = host_kvm_kind() == HOST_KVM_HARDWARE;

    (void)paths;
    FD_AUTO int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        explain_missing(f, hardware);
        return;
    }
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        finding_set(f, FINDING_FAIL, "/dev/kvm speaks version %d, cloche needs %d", version,
                    KVM_API_VERSION);
        finding_remedy(f, "use a Linux kernel of 5.11 or later");
        return;
    }
    for (size_t i = 0; i < CAPABILITY_COUNT; i++) {
        if (ioctl(fd, KVM_CHECK_EXTENSION, capabilities[i].number) <= 0) {
            finding_set(f, FINDING_FAIL, "/dev/kvm lacks %s", capabilities[i].name);
            finding_remedy(f, "use a newer kernel on this host");
            return;
        }
    }
    if (hardware)
        finding_set(f, FINDING_OK, "hardware (VT-x or SVM), API version %d: guests run natively",
                    version);
    else
        finding_set(f, FINDING_OK,
                    "software (no vmx or svm flag), API version %d: guests' kernel mode is "
                    "interpreted and slow, user mode is native",
                    version);
}
