#include "vmm/state/snapshot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/wire.h"
#include "cloche/limits.h"

#define CRC_OFFSET     12u
#define TOTAL_OFFSET   16u
#define HEADER_BYTES   56u
#define MSR_WIRE_BYTES 12u /* index u32, data u64 */
#define TSC_PARTS_SAME 1000u

enum tag {
    TAG_CPUID = 1,
    TAG_IRQCHIP,
    TAG_CLOCK,
    TAG_SERIAL,
    TAG_REGS,
    TAG_SREGS,
    TAG_XSAVE,
    TAG_XCRS,
    TAG_DEBUGREGS,
    TAG_LAPIC,
    TAG_EVENTS,
    TAG_MP_STATE,
    TAG_TIME,
    TAG_MSRS,
    TAG_DEVICES,
};

/* A vCPU's sections of fixed size, in their order; MSRS follows. */
static const struct {
    enum tag tag;
    size_t offset;
    uint32_t size;
} vcpu_sections[] = {
#define ROW(tag, field)                                                                            \
    {                                                                                              \
        tag, offsetof(struct vcpu_state, field), sizeof(((struct vcpu_state *)0)->field)           \
    }
    ROW(TAG_REGS, regs),     ROW(TAG_SREGS, sregs),         ROW(TAG_XSAVE, xsave),
    ROW(TAG_XCRS, xcrs),     ROW(TAG_DEBUGREGS, debugregs), ROW(TAG_LAPIC, lapic),
    ROW(TAG_EVENTS, events), ROW(TAG_MP_STATE, mp_state),   ROW(TAG_TIME, time),
#undef ROW
};

#define VCPU_SECTIONS (sizeof(vcpu_sections) / sizeof(vcpu_sections[0]))

struct snapshot *snapshot_new(uint32_t vcpus)
{
    struct snapshot *s = calloc(1, sizeof(*s));

    assert(vcpus >= 1 && vcpus <= SANDBOX_VCPUS_MAX);
    if (s == NULL)
        return NULL;
    s->vcpus = vcpus;
    s->vcpu = calloc(vcpus, sizeof(*s->vcpu));
    if (s->vcpu == NULL) {
        free(s);
        return NULL;
    }
    return s;
}

void snapshot_free(struct snapshot *s)
{
    if (s == NULL)
        return;
    free(s->vcpu);
    free(s);
}

static int corrupt(struct error *e, const char *what)
{
    return error_set(e, ERR_TEMPLATE_CORRUPT, "the snapshot's state is corrupt: %s", what);
}

/* The checksum of a file whose crc field counts as zero. */
static uint32_t checksum(const uint8_t *bytes, size_t size)
{
    static const uint8_t zero[4];
    uint32_t crc = crc32c(0, bytes, CRC_OFFSET);

    crc = crc32c(crc, zero, sizeof(zero));
    return crc32c(crc, bytes + TOTAL_OFFSET, size - TOTAL_OFFSET);
}

static int parse_header(struct wire_reader *r, const uint8_t *bytes, size_t size,
                        struct snapshot *ret, struct error *e)
{
    uint64_t magic = wire_get_u64(r);
    uint32_t version = wire_get_u32(r);
    uint32_t crc = wire_get_u32(r);
    uint64_t total = wire_get_u64(r);

    ret->kind = (enum kvm_kind)wire_get_u32(r);
    ret->vcpus = wire_get_u32(r);
    ret->mem_mib = wire_get_u32(r);
    ret->tsc_khz = wire_get_u32(r);
    const uint8_t *vendor = wire_get_bytes(r, sizeof(ret->host.vendor));
    ret->host.signature = wire_get_u32(r);
    if (r->bad || vendor == NULL)
        return corrupt(e, "the header is cut off");
    memcpy(ret->host.vendor, vendor, sizeof(ret->host.vendor));
    if (magic != SNAPSHOT_MAGIC)
        return corrupt(e, "this is not a snapshot's state");
    if (version != SNAPSHOT_VERSION)
        return error_set(e, ERR_TEMPLATE_CORRUPT,
                         "the snapshot's state has format version %u, this monitor reads %u",
                         version, SNAPSHOT_VERSION);
    if (total != size)
        return corrupt(e, "its length is not what its header says");
    if (crc != checksum(bytes, size))
        return corrupt(e, "the checksum is wrong");
    if (ret->kind != KVM_KIND_HARDWARE && ret->kind != KVM_KIND_SOFTWARE)
        return corrupt(e, "unknown kind of KVM");
    if (ret->vcpus < 1 || ret->vcpus > SANDBOX_VCPUS_MAX)
        return corrupt(e, "impossible number of vCPUs");
    return 0;
}

/* The next section, which must be the one named; its content is left in `ret`. */
static int open_section(struct wire_reader *r, enum tag tag, uint32_t index,
                        struct wire_reader *ret, struct error *e)
{
    uint32_t found_tag = wire_get_u32(r);
    uint32_t found_index = wire_get_u32(r);
    uint32_t size = wire_get_u32(r);
    const uint8_t *content = wire_get_bytes(r, size);

    if (r->bad || (content == NULL && size != 0))
        return corrupt(e, "a section is cut off");
    if (found_tag != (uint32_t)tag || found_index != index)
        return error_set(e, ERR_TEMPLATE_CORRUPT,
                         "the snapshot's state is corrupt: section %u.%u where %u.%u belongs",
                         found_tag, found_index, (unsigned)tag, index);
    wire_reader_init(ret, content, size);
    return 0;
}

static int parse_fixed(struct wire_reader *r, enum tag tag, uint32_t index, void *ret, size_t size,
                       struct error *e)
{
    struct wire_reader section;

    if (open_section(r, tag, index, &section, e) != 0)
        return -1;
    if (section.left != size)
        return error_set(e, ERR_TEMPLATE_CORRUPT,
                         "the snapshot's state is corrupt: section %u.%u has %zu bytes, not %zu",
                         (unsigned)tag, index, section.left, size);
    memcpy(ret, section.at, size);
    return 0;
}

static int parse_cpuid(struct wire_reader *r, struct cpuid_table *ret, struct error *e)
{
    struct wire_reader section;

    if (open_section(r, TAG_CPUID, 0, &section, e) != 0)
        return -1;
    uint32_t count = wire_get_u32(&section);
    if (section.bad || count > CPUID_ENTRIES_MAX ||
        section.left != count * sizeof(struct kvm_cpuid_entry2))
        return corrupt(e, "its CPUID table has an impossible size");
    ret->count = count;
    memcpy(ret->entries, section.at, section.left);
    return 0;
}

static int parse_msrs(struct wire_reader *r, uint32_t vcpu, struct msr_table *ret, struct error *e)
{
    struct wire_reader section;

    if (open_section(r, TAG_MSRS, vcpu, &section, e) != 0)
        return -1;
    uint32_t count = wire_get_u32(&section);
    if (section.bad || count > MSR_COUNT_MAX || section.left != (size_t)count * MSR_WIRE_BYTES)
        return corrupt(e, "an MSR table has an impossible size");
    ret->count = count;
    for (uint32_t i = 0; i < count; i++) {
        ret->entries[i].index = wire_get_u32(&section);
        ret->entries[i].data = wire_get_u64(&section);
    }
    return 0;
}

static int parse_sections(struct wire_reader *r, struct snapshot *s, struct error *e)
{
    if (parse_cpuid(r, &s->cpuid, e) != 0)
        return -1;
    for (uint32_t i = 0; i < SNAPSHOT_IRQCHIPS; i++) {
        if (parse_fixed(r, TAG_IRQCHIP, i, &s->irqchips[i], sizeof(s->irqchips[i]), e) != 0)
            return -1;
        if (s->irqchips[i].chip_id != i)
            return corrupt(e, "an interrupt controller is misnamed");
    }
    if (parse_fixed(r, TAG_CLOCK, 0, &s->clock, sizeof(s->clock), e) != 0 ||
        parse_fixed(r, TAG_SERIAL, 0, s->serial, sizeof(s->serial), e) != 0)
        return -1;
    for (uint32_t i = 0; i < s->vcpus; i++) {
        for (size_t k = 0; k < VCPU_SECTIONS; k++) {
            if (parse_fixed(r, vcpu_sections[k].tag, i,
                            (char *)&s->vcpu[i] + vcpu_sections[k].offset, vcpu_sections[k].size,
                            e) != 0)
                return -1;
        }
        if (parse_msrs(r, i, &s->vcpu[i].msrs, e) != 0)
            return -1;
    }
    struct wire_reader devices;
    if (open_section(r, TAG_DEVICES, 0, &devices, e) != 0)
        return -1;
    s->devices = devices.at;
    s->devices_bytes = devices.left;
    if (r->left != 0)
        return corrupt(e, "there is more after its end");
    return 0;
}

int snapshot_parse(const uint8_t *bytes, size_t size, struct snapshot **ret_snapshot,
                   struct error *e)
{
    struct snapshot head = {0};
    struct wire_reader r;

    if (size < HEADER_BYTES || size > SNAPSHOT_BYTES_MAX)
        return corrupt(e, "its size is impossible");
    wire_reader_init(&r, bytes, size);
    if (parse_header(&r, bytes, size, &head, e) != 0)
        return -1;
    struct snapshot *s = snapshot_new(head.vcpus);
    if (s == NULL)
        return error_set(e, ERR_INTERNAL, "no memory for a snapshot's state");
    head.vcpu = s->vcpu;
    *s = head;
    if (parse_sections(&r, s, e) != 0) {
        snapshot_free(s);
        return -1;
    }
    *ret_snapshot = s;
    return 0;
}

static void put_section_head(struct wire_writer *w, enum tag tag, uint32_t index, size_t size)
{
    wire_put_u32(w, (uint32_t)tag);
    wire_put_u32(w, index);
    wire_put_u32(w, (uint32_t)size);
}

static void put_section(struct wire_writer *w, enum tag tag, uint32_t index, const void *content,
                        size_t size)
{
    put_section_head(w, tag, index, size);
    if (size > 0)
        wire_put_bytes(w, content, size);
}

static void put_msrs(struct wire_writer *w, uint32_t vcpu, const struct msr_table *msrs)
{
    put_section_head(w, TAG_MSRS, vcpu, 4 + (size_t)msrs->count * MSR_WIRE_BYTES);
    wire_put_u32(w, msrs->count);
    for (uint32_t i = 0; i < msrs->count; i++) {
        wire_put_u32(w, msrs->entries[i].index);
        wire_put_u64(w, msrs->entries[i].data);
    }
}

static void put_header(struct wire_writer *w, const struct snapshot *s)
{
    wire_put_u64(w, SNAPSHOT_MAGIC);
    wire_put_u32(w, SNAPSHOT_VERSION);
    wire_put_u32(w, 0); /* snapshot_seal */
    wire_put_u64(w, 0);
    wire_put_u32(w, (uint32_t)s->kind);
    wire_put_u32(w, s->vcpus);
    wire_put_u32(w, s->mem_mib);
    wire_put_u32(w, s->tsc_khz);
    wire_put_bytes(w, s->host.vendor, sizeof(s->host.vendor));
    wire_put_u32(w, s->host.signature);
}

size_t snapshot_write(const struct snapshot *s, uint8_t *ret_bytes, size_t size)
{
    struct wire_writer w;

    wire_writer_init(&w, ret_bytes, size);
    put_header(&w, s);
    assert(w.bad || w.used == HEADER_BYTES);
    size_t cpuid_bytes = s->cpuid.count * sizeof(struct kvm_cpuid_entry2);
    put_section_head(&w, TAG_CPUID, 0, 4 + cpuid_bytes);
    wire_put_u32(&w, s->cpuid.count);
    wire_put_bytes(&w, s->cpuid.entries, cpuid_bytes);
    for (uint32_t i = 0; i < SNAPSHOT_IRQCHIPS; i++)
        put_section(&w, TAG_IRQCHIP, i, &s->irqchips[i], sizeof(s->irqchips[i]));
    put_section(&w, TAG_CLOCK, 0, &s->clock, sizeof(s->clock));
    put_section(&w, TAG_SERIAL, 0, s->serial, sizeof(s->serial));
    for (uint32_t i = 0; i < s->vcpus; i++) {
        for (size_t k = 0; k < VCPU_SECTIONS; k++)
            put_section(&w, vcpu_sections[k].tag, i,
                        (const char *)&s->vcpu[i] + vcpu_sections[k].offset, vcpu_sections[k].size);
        put_msrs(&w, i, &s->vcpu[i].msrs);
    }
    put_section(&w, TAG_DEVICES, 0, s->devices, s->devices_bytes);
    if (w.bad)
        return 0;
    snapshot_seal(ret_bytes, w.used);
    return w.used;
}

void snapshot_seal(uint8_t *bytes, size_t size)
{
    struct wire_writer w;

    assert(size >= HEADER_BYTES);
    wire_writer_init(&w, bytes + TOTAL_OFFSET, sizeof(uint64_t));
    wire_put_u64(&w, size);
    uint32_t crc = checksum(bytes, size);
    wire_writer_init(&w, bytes + CRC_OFFSET, sizeof(crc));
    wire_put_u32(&w, crc);
}

int snapshot_check_place(const struct snapshot *s, const struct snapshot_place *here,
                         struct error *e)
{
    static const char *const kinds[] = {
        [KVM_KIND_HARDWARE] = "hardware", [KVM_KIND_SOFTWARE] = "software"};

    if (s->kind != here->kind)
        return error_set(e, ERR_TEMPLATE_CORRUPT, "the snapshot is of %s KVM, this is %s KVM",
                         kinds[s->kind], kinds[here->kind]);
    if (memcmp(s->host.vendor, here->host.vendor, sizeof(s->host.vendor)) != 0 ||
        s->host.signature != here->host.signature)
        return error_set(e, ERR_TEMPLATE_CORRUPT,
                         "the snapshot is of another processor: %.12s %#x, this is %.12s %#x",
                         s->host.vendor, s->host.signature, here->host.vendor,
                         here->host.signature);
    if (s->vcpus != here->vcpus || s->mem_mib != here->mem_mib)
        return error_set(e, ERR_TEMPLATE_CORRUPT,
                         "the snapshot is of %u vCPUs and %u MiB, not of %u and %u", s->vcpus,
                         s->mem_mib, here->vcpus, here->mem_mib);
    uint32_t off =
        s->tsc_khz > here->tsc_khz ? s->tsc_khz - here->tsc_khz : here->tsc_khz - s->tsc_khz;
    if (off > here->tsc_khz / TSC_PARTS_SAME)
        return error_set(e, ERR_TEMPLATE_CORRUPT, "the snapshot's TSC runs at %u kHz, here at %u",
                         s->tsc_khz, here->tsc_khz);
    return cpuid_table_compare(&s->cpuid, here->cpuid, e);
}
