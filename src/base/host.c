#include "base/host.h"

#include <cpuid.h>

#define CPUID_1_ECX_VMX        (1u << 5)
#define CPUID_80000001_ECX_SVM (1u << 2)

enum host_kvm_kind host_kvm_kind(void)
{
    unsigned a, b, c, d;

    if (__get_cpuid(1, &a, &b, &c, &d) != 0 && (c & CPUID_1_ECX_VMX) != 0)
        return HOST_KVM_HARDWARE;
    if (__get_cpuid(0x80000001u, &a, &b, &c, &d) != 0 && (c & CPUID_80000001_ECX_SVM) != 0)
        return HOST_KVM_HARDWARE;
    return HOST_KVM_SOFTWARE;
}
