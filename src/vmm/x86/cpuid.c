#include "vmm/x86/cpuid.h"

#include <assert.h>
#include <cpuid.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ANY_INDEX UINT32_MAX
#define BIT(n)    (UINT32_C(1) << (n))
#define ALL       UINT32_MAX

enum reg { EAX, EBX, ECX, EDX };

#define HW   BIT(KVM_KIND_HARDWARE)
#define SW   BIT(KVM_KIND_SOFTWARE)
#define BOTH (HW | SW)

/*
 * Both kinds: no nested virtualisation, no performance counters, no TSX, no SGX, no processor trace
 * and no AMX (attack surface, side channels, or state that a snapshot would have to carry). OSXSAVE
 * is the guest's to set. Of the paravirtual features, asynchronous page faults and stolen time go:
 * both write to guest memory behind the guest's back, and each page so touched is copied.
 *
 * Software kind: the table does not hide a feature from user mode there, but the guest's kernel,
 * which is interpreted, believes it. What the interpreter cannot execute must go; the kernel's
 * command line switches off what goes by another way (x86/boot.c).
 */
static const struct {
    uint32_t kinds;
    uint32_t function;
    uint32_t index;
    enum reg reg;
    uint32_t clear;
    uint32_t set;
} rules[] = {
    /* monitor, vmx, smx, tm2, pdcm, osxsave; hypervisor and tsc-deadline are there */
    {BOTH, 1, ANY_INDEX, ECX, BIT(3) | BIT(5) | BIT(6) | BIT(8) | BIT(15) | BIT(27),
     BIT(31) | BIT(24)},
    {BOTH, 1, ANY_INDEX, EDX, BIT(21) /* debug store */, BIT(9) /* apic */},
    {BOTH, 7, 0, EBX, BIT(2) | BIT(4) | BIT(11) | BIT(25) /* sgx, hle, rtm, processor trace */, 0},
    {BOTH, 7, 0, ECX, BIT(5) | BIT(30) /* waitpkg, sgx launch control */, 0},
    {BOTH, 7, 0, EDX, BIT(22) | BIT(24) | BIT(25) /* amx */, 0},
    {BOTH, 0xa, ANY_INDEX, EAX, ALL, 0},
    {BOTH, 0xa, ANY_INDEX, EBX, ALL, 0},
    {BOTH, 0xa, ANY_INDEX, ECX, ALL, 0},
    {BOTH, 0xa, ANY_INDEX, EDX, ALL, 0},
    {BOTH, 0x80000001, ANY_INDEX, ECX, BIT(2) | BIT(10) | BIT(23) | BIT(24), 0}, /* svm, ibs, pmu */
    {BOTH, 0x80000022, ANY_INDEX, EAX, ALL, 0}, /* AMD's newer counters */
    {BOTH, 0x40000001, ANY_INDEX, EAX, BIT(4) | BIT(5) | BIT(10) | BIT(14), 0},

    /* pclmulqdq, fma, cx16, pcid, movbe, popcnt, aes, xsave, avx, f16c, rdrand */
    {SW, 1, ANY_INDEX, ECX,
     BIT(1) | BIT(12) | BIT(13) | BIT(17) | BIT(22) | BIT(23) | BIT(25) | BIT(26) | BIT(28) |
         BIT(29) | BIT(30),
     0},
    {SW, 7, 0, EAX, ALL, 0},
    /* Of leaf 7's first word remain bmi1, bmi2, adx, clflushopt, clwb and what is harmless. */
    {SW, 7, 0, EBX,
     BIT(0) | BIT(5) | BIT(7) | BIT(10) | BIT(16) | BIT(17) | BIT(18) | BIT(20) | BIT(21) |
         BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31),
     0},
    {SW, 7, 0, ECX, ALL, 0},
    {SW, 7, 0, EDX, ALL, 0},
};

/* Leaves of the software kind that are zeroed whole: 7's further ones, and all of XSAVE's. */
static bool is_zeroed(const struct kvm_cpuid_entry2 *entry, enum kvm_kind kind)
{
    return kind == KVM_KIND_SOFTWARE &&
           (entry->function == 0xd || (entry->function == 7 && entry->index > 0));
}

enum kvm_kind cpuid_kvm_kind(void)
{
    unsigned a, b, c, d;

    if (__get_cpuid(1, &a, &b, &c, &d) != 0 && (c & BIT(5)) != 0)
        return KVM_KIND_HARDWARE;
    if (__get_cpuid(0x80000001, &a, &b, &c, &d) != 0 && (c & BIT(2)) != 0)
        return KVM_KIND_HARDWARE;
    return KVM_KIND_SOFTWARE;
}

struct cpuid_host cpuid_host_get(void)
{
    struct cpuid_host host = {0};
    unsigned a, b, c, d;

    if (__get_cpuid(0, &a, &b, &c, &d) != 0) {
        memcpy(host.vendor, &b, 4);
        memcpy(host.vendor + 4, &d, 4);
        memcpy(host.vendor + 8, &c, 4);
    }
    if (__get_cpuid(1, &a, &b, &c, &d) != 0)
        host.signature = a;
    return host;
}

static uint32_t *entry_reg(struct kvm_cpuid_entry2 *entry, enum reg reg)
{
    switch (reg) {
    case EAX:
        return &entry->eax;
    case EBX:
        return &entry->ebx;
    case ECX:
        return &entry->ecx;
    case EDX:
        break;
    }
    return &entry->edx;
}

void cpuid_table_mask(struct cpuid_table *t, enum kvm_kind kind)
{
    for (uint32_t i = 0; i < t->count; i++) {
        struct kvm_cpuid_entry2 *entry = &t->entries[i];

        if (is_zeroed(entry, kind))
            entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
        for (size_t k = 0; k < sizeof(rules) / sizeof(rules[0]); k++) {
            if ((rules[k].kinds & BIT(kind)) == 0 || rules[k].function != entry->function ||
                (rules[k].index != ANY_INDEX && rules[k].index != entry->index))
                continue;
            uint32_t *reg = entry_reg(entry, rules[k].reg);
            *reg = (*reg & ~rules[k].clear) | rules[k].set;
        }
    }
}

/* Leaves that describe the topology; what KVM offers there is that of the host's CPU we run on. */
static bool is_topology(uint32_t function)
{
    return function == 0xb || function == 0x1f || function == 0x80000026;
}

static void remove_topology(struct cpuid_table *t)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < t->count; i++) {
        if (!is_topology(t->entries[i].function))
            t->entries[kept++] = t->entries[i];
    }
    t->count = kept;
}

/* Bits of an APIC id that number the vCPUs. */
static uint32_t id_bits(uint32_t vcpus)
{
    return vcpus <= 1 ? 0 : 32 - (uint32_t)__builtin_clz(vcpus - 1);
}

/* Intel SDM volume 2A, CPUID: leaf 0xb has an SMT level of one thread and a core level. */
static void add_leaf_b(struct cpuid_table *t, uint32_t vcpu, uint32_t vcpus)
{
    assert(t->count + 2 <= CPUID_ENTRIES_MAX);
    for (uint32_t level = 0; level < 2; level++) {
        t->entries[t->count++] = (struct kvm_cpuid_entry2){
            .function = 0xb,
            .index = level,
            .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            .eax = level == 0 ? 0 : id_bits(vcpus),
            .ebx = level == 0 ? 1 : vcpus,
            .ecx = level | (level + 1) << 8, /* level type: 1 SMT, 2 core */
            .edx = vcpu,
        };
    }
}

void cpuid_table_set_vcpu(struct cpuid_table *t, uint32_t vcpu, uint32_t vcpus)
{
    uint32_t bits = id_bits(vcpus);
    uint32_t ids = BIT(bits);
    uint32_t max_leaf = 0;

    remove_topology(t);
    for (uint32_t i = 0; i < t->count; i++) {
        struct kvm_cpuid_entry2 *entry = &t->entries[i];

        switch (entry->function) {
        case 0:
            max_leaf = entry->eax;
            break;
        case 1:
            entry->ebx = (entry->ebx & 0xffff) | ids << 16 | vcpu << 24;
            entry->edx = (entry->edx & ~BIT(28)) | (vcpus > 1 ? BIT(28) : 0);
            break;
        case 4: /* cores in the package, and how many share the cache: all of them from level 3 */
            if ((entry->eax & 0x1f) != 0) {
                bool shared = (entry->eax >> 5 & 7) >= 3;
                entry->eax =
                    (entry->eax & 0x3fff) | (shared ? (ids - 1) << 14 : 0) | (ids - 1) << 26;
            }
            break;
        case 0x80000008: /* AMD APM volume 3, E.4.7: APIC id size and cores */
            entry->ecx = (entry->ecx & ~UINT32_C(0xf0ff)) | bits << 12 | (vcpus - 1);
            break;
        case 0x8000001d:
            if ((entry->eax & 0x1f) != 0) {
                bool shared = (entry->eax >> 5 & 7) >= 3;
                entry->eax = (entry->eax & 0x3fff) | (shared ? (ids - 1) << 14 : 0);
            }
            break;
        case 0x8000001e: /* extended APIC id, core id, one thread each, node 0 of 1 */
            entry->eax = vcpu;
            entry->ebx = vcpu;
            entry->ecx = 0;
            break;
        default:
            break;
        }
    }
    if (max_leaf >= 0xb)
        add_leaf_b(t, vcpu, vcpus);
}

int cpuid_table_make(int kvm_fd, enum kvm_kind kind, uint32_t vcpus, struct cpuid_table *ret,
                     struct error *e)
{
    ret->count = CPUID_ENTRIES_MAX - 2; /* leaf 0xb may grow by two */
    ret->padding = 0;
    if (syscall(SYS_ioctl, kvm_fd, KVM_GET_SUPPORTED_CPUID, ret) != 0)
        return error_errno(e, errno, "KVM_GET_SUPPORTED_CPUID");
    cpuid_table_mask(ret, kind);
    cpuid_table_set_vcpu(ret, 0, vcpus);
    return 0;
}

int cpuid_table_compare(const struct cpuid_table *saved, const struct cpuid_table *here,
                        struct error *e)
{
    uint32_t common = saved->count < here->count ? saved->count : here->count;

    for (uint32_t i = 0; i < common; i++) {
        const struct kvm_cpuid_entry2 *a = &saved->entries[i];
        const struct kvm_cpuid_entry2 *b = &here->entries[i];

        if (memcmp(a, b, sizeof(*a)) != 0)
            return error_set(e, ERR_TEMPLATE_CORRUPT,
                             "the snapshot is of another processor: CPUID leaf %#x.%u was "
                             "%08x %08x %08x %08x, here leaf %#x.%u is %08x %08x %08x %08x",
                             a->function, a->index, a->eax, a->ebx, a->ecx, a->edx, b->function,
                             b->index, b->eax, b->ebx, b->ecx, b->edx);
    }
    if (saved->count != here->count)
        return error_set(e, ERR_TEMPLATE_CORRUPT,
                         "the snapshot is of another processor: its CPUID table has %u entries, "
                         "here it has %u",
                         saved->count, here->count);
    return 0;
}
