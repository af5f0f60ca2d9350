#include "vmm/x86/vcpu_state.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "vmm/common/kvm_ioctl.h"

#define MSR_TSC             0x10u
#define MSR_TSC_DEADLINE    0x6e0u
#define LAPIC_LVT_TIMER     0x320u
#define LAPIC_LINT0         0x350u
#define LAPIC_LINT1         0x360u
#define LAPIC_INITIAL_COUNT 0x380u
#define LVT_MODE_MASK       0x700u
#define LVT_MODE_NMI        0x400u
#define LVT_MODE_EXTINT     0x700u
#define LVT_TIMER_MODE_MASK 0x60000u
#define LVT_TIMER_DEADLINE  0x40000u

/*
 * Not put back: the two that are time and go by vcpu_time; writing to KVM's wall clock registers
 * makes KVM write the wall clock to guest memory (that is their only use, and a page copied); the
 * old alias of KVM's system time.
 */
static const uint32_t msrs_left_out[] = {MSR_TSC, MSR_TSC_DEADLINE, 0x11, 0x12, 0x4b564d00};

/* KVM knows these but does not list them: memory type ranges, which a kernel may program. */
static const struct {
    uint32_t first, last;
} msrs_unlisted[] = {
    {0x200, 0x20f}, {0x250, 0x250}, {0x258, 0x259}, {0x268, 0x26f}, {0x2ff, 0x2ff}};

struct part {
    const char *name;
    unsigned long get, set;
    size_t offset;
};

#define PART(what, get, set, field)                                                                \
    {                                                                                              \
        what, get, set, offsetof(struct vcpu_state, field)                                         \
    }

/*
 * Order of loading: special registers first, because they hold the APIC base and EFER on which the
 * local APIC and MSRs depend. The MSRs come after these, then the events and the run state, which
 * other calls may change. Saving starts with the run state, since to read it lets KVM take pending
 * INIT and SIPI signals.
 */
static const struct part parts_early[] = {
    PART("special registers", KVM_GET_SREGS2, KVM_SET_SREGS2, sregs),
    PART("registers", KVM_GET_REGS, KVM_SET_REGS, regs),
    PART("XSAVE area", KVM_GET_XSAVE, KVM_SET_XSAVE, xsave),
    PART("XCRs", KVM_GET_XCRS, KVM_SET_XCRS, xcrs),
    PART("debug registers", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, debugregs),
    PART("local APIC", KVM_GET_LAPIC, KVM_SET_LAPIC, lapic),
};
static const struct part parts_late[] = {
    PART("events", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, events),
    PART("run state", KVM_GET_MP_STATE, KVM_SET_MP_STATE, mp_state),
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void *part_of(struct vcpu_state *state, const struct part *part)
{
    return (char *)state + part->offset;
}

static int get_part(int vcpu_fd, const struct part *part, struct vcpu_state *state, struct error *e)
{
    if (kvm_ioctl(vcpu_fd, part->get, part_of(state, part)) < 0)
        return error_errno(e, errno, "cannot read a vCPU's %s", part->name);
    return 0;
}

static int set_part(int vcpu_fd, const struct part *part, const struct vcpu_state *state,
                    struct error *e)
{
    /* The kernel only reads here. */
    if (kvm_ioctl(vcpu_fd, part->set, (char *)(uintptr_t)state + part->offset) < 0) {
        (void)error_errno(e, errno, "KVM refuses a vCPU's %s", part->name);
        e->code = ERR_TEMPLATE_CORRUPT;
        return -1;
    }
    return 0;
}

static bool is_left_out(uint32_t index)
{
    for (size_t i = 0; i < COUNT(msrs_left_out); i++) {
        if (msrs_left_out[i] == index)
            return true;
    }
    return false;
}

int msr_list_get(int kvm_fd, struct msr_list *ret, struct error *e)
{
    uint32_t kept = 0;

    ret->count = MSR_COUNT_MAX - 64; /* room for the unlisted ones */
    if (kvm_ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, ret) != 0)
        return error_errno(e, errno, "KVM_GET_MSR_INDEX_LIST");
    for (uint32_t i = 0; i < ret->count; i++) {
        if (!is_left_out(ret->indices[i]))
            ret->indices[kept++] = ret->indices[i];
    }
    for (size_t i = 0; i < COUNT(msrs_unlisted); i++) {
        for (uint32_t msr = msrs_unlisted[i].first; msr <= msrs_unlisted[i].last; msr++)
            ret->indices[kept++] = msr;
    }
    ret->count = kept;
    return 0;
}

static int get_msr(int vcpu_fd, uint32_t index, uint64_t *ret)
{
    struct {
        uint32_t count, padding;
        struct kvm_msr_entry entry;
    } one = {.count = 1, .entry = {.index = index}};

    if (kvm_ioctl(vcpu_fd, KVM_GET_MSRS, &one) != 1)
        return -1;
    *ret = one.entry.data;
    return 0;
}

static int set_msr(int vcpu_fd, uint32_t index, uint64_t value)
{
    struct {
        uint32_t count, padding;
        struct kvm_msr_entry entry;
    } one = {.count = 1, .entry = {.index = index, .data = value}};

    return kvm_ioctl(vcpu_fd, KVM_SET_MSRS, &one) == 1 ? 0 : -1;
}

static void save_msrs(int vcpu_fd, const struct msr_list *list, struct msr_table *ret)
{
    *ret = (struct msr_table){0};
    for (uint32_t i = 0; i < list->count; i++) {
        uint64_t value;

        if (get_msr(vcpu_fd, list->indices[i], &value) != 0 ||
            set_msr(vcpu_fd, list->indices[i], value) != 0)
            continue;
        ret->entries[ret->count++] =
            (struct kvm_msr_entry){.index = list->indices[i], .data = value};
    }
}

/* The distance of the guest's TSC from the host's. */
static int tsc_offset(int vcpu_fd, unsigned long request, uint64_t *offset, struct error *e)
{
    struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL,
                                   .attr = KVM_VCPU_TSC_OFFSET,
                                   .addr = (uint64_t)(uintptr_t)offset};

    if (kvm_ioctl(vcpu_fd, request, &attr) != 0)
        return error_errno(e, errno, "cannot read or set a vCPU's TSC offset");
    return 0;
}

int vcpu_tsc_offset_get(int vcpu_fd, enum kvm_kind kind, uint64_t *ret_offset, struct error *e)
{
    *ret_offset = 0;
    return kind == KVM_KIND_HARDWARE ? tsc_offset(vcpu_fd, KVM_GET_DEVICE_ATTR, ret_offset, e) : 0;
}

int vcpu_state_save(int vcpu_fd, const struct msr_list *msrs, struct vcpu_state *ret,
                    struct error *e)
{
    for (size_t i = COUNT(parts_late); i > 0; i--) {
        if (get_part(vcpu_fd, &parts_late[i - 1], ret, e) != 0)
            return -1;
    }
    for (size_t i = 0; i < COUNT(parts_early); i++) {
        if (get_part(vcpu_fd, &parts_early[i], ret, e) != 0)
            return -1;
    }
    save_msrs(vcpu_fd, msrs, &ret->msrs);
    if (get_msr(vcpu_fd, MSR_TSC_DEADLINE, &ret->time.tsc_deadline) != 0)
        return error_set(e, ERR_INTERNAL, "cannot read a vCPU's TSC deadline");
    return 0;
}

static int check_msrs(const struct msr_list *list, const struct msr_table *msrs, struct error *e)
{
    uint32_t at = 0;

    /* Both are in KVM's order, so one walk finds each. */
    for (uint32_t i = 0; i < msrs->count; i++) {
        while (at < list->count && list->indices[at] != msrs->entries[i].index)
            at++;
        if (at == list->count)
            return error_set(e, ERR_TEMPLATE_CORRUPT,
                             "the snapshot has MSR %#x, which this host's KVM does not list there",
                             msrs->entries[i].index);
        at++;
    }
    return 0;
}

int vcpu_state_load(int vcpu_fd, const struct msr_list *msrs, const struct vcpu_state *state,
                    struct error *e)
{
    if (check_msrs(msrs, &state->msrs, e) != 0)
        return -1;
    for (size_t i = 0; i < COUNT(parts_early); i++) {
        if (set_part(vcpu_fd, &parts_early[i], state, e) != 0)
            return -1;
    }
    int done = kvm_ioctl(vcpu_fd, KVM_SET_MSRS, (void *)(uintptr_t)&state->msrs);
    if (done < 0)
        return error_errno(e, errno, "KVM_SET_MSRS");
    if ((uint32_t)done < state->msrs.count)
        return error_set(e, ERR_TEMPLATE_CORRUPT, "KVM refuses the value %#llx of MSR %#x",
                         (unsigned long long)state->msrs.entries[done].data,
                         state->msrs.entries[done].index);
    for (size_t i = 0; i < COUNT(parts_late); i++) {
        if (set_part(vcpu_fd, &parts_late[i], state, e) != 0)
            return -1;
    }
    return 0;
}

int vcpu_time_load(int vcpu_fd, const struct vcpu_time *time, const struct kvm_lapic_state *lapic,
                   enum kvm_kind kind, uint64_t host_tsc, uint32_t tsc_khz, struct error *e)
{
    uint64_t offset = time->tsc - host_tsc;
    uint64_t grace = (uint64_t)VCPU_TIMER_GRACE_MS * tsc_khz;
    uint64_t deadline = time->tsc_deadline;

    if (kind == KVM_KIND_HARDWARE && tsc_offset(vcpu_fd, KVM_SET_DEVICE_ATTR, &offset, e) != 0)
        return -1;
    if (lapic != NULL && kvm_ioctl(vcpu_fd, KVM_SET_LAPIC, (void *)(uintptr_t)lapic) != 0)
        return error_errno(e, errno, "KVM_SET_LAPIC");
    if (deadline == 0)
        return 0;
    if (deadline < time->tsc + grace)
        deadline = time->tsc + grace;
    if (kind == KVM_KIND_SOFTWARE)
        deadline -= offset;
    if (set_msr(vcpu_fd, MSR_TSC_DEADLINE, deadline) != 0)
        return error_set(e, ERR_INTERNAL, "KVM refuses a vCPU's TSC deadline");
    return 0;
}

static uint32_t lapic_register(const struct kvm_lapic_state *lapic, size_t offset)
{
    uint32_t value;

    memcpy(&value, lapic->regs + offset, sizeof(value));
    return value;
}

int lapic_timer_is_counting(const struct kvm_lapic_state *lapic)
{
    uint32_t mode = lapic_register(lapic, LAPIC_LVT_TIMER) & LVT_TIMER_MODE_MASK;

    return mode != LVT_TIMER_DEADLINE && lapic_register(lapic, LAPIC_INITIAL_COUNT) != 0;
}

void lapic_set_boot_pins(struct kvm_lapic_state *lapic)
{
    static const struct {
        size_t offset;
        uint32_t mode;
    } pins[] = {{LAPIC_LINT0, LVT_MODE_EXTINT}, {LAPIC_LINT1, LVT_MODE_NMI}};

    for (size_t i = 0; i < COUNT(pins); i++) {
        uint32_t value = (lapic_register(lapic, pins[i].offset) & ~LVT_MODE_MASK) | pins[i].mode;

        memcpy(lapic->regs + pins[i].offset, &value, sizeof(value));
    }
}
