/* The state file: one encoding, nothing else is accepted. And the CPUID table it is tied to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "cloche/limits.h"
#include "vmm/state/snapshot.h"

static uint8_t file[SNAPSHOT_BYTES_MAX];
static uint8_t again[SNAPSHOT_BYTES_MAX];

static void fill(void *data, size_t size)
{
    uint8_t *p = data;

    for (size_t i = 0; i < size; i++)
        p[i] = (uint8_t)random();
}

static size_t make_file(uint32_t vcpus)
{
    static uint8_t devices[300];
    struct snapshot *s = snapshot_new(vcpus);

    assert_non_null(s);
    srandom(3);
    s->kind = KVM_KIND_SOFTWARE;
    s->mem_mib = 256;
    s->tsc_khz = 2000000;
    memcpy(s->host.vendor, "GenuineIntel", sizeof(s->host.vendor));
    s->host.signature = 0xc06f2;
    s->cpuid.count = 3;
    for (uint32_t i = 0; i < 3; i++)
        s->cpuid.entries[i] = (struct kvm_cpuid_entry2){.function = i, .eax = 100 + i};
    for (uint32_t i = 0; i < SNAPSHOT_IRQCHIPS; i++) {
        fill(&s->irqchips[i], sizeof(s->irqchips[i]));
        s->irqchips[i].chip_id = i;
    }
    fill(&s->clock, sizeof(s->clock));
    fill(s->serial, sizeof(s->serial));
    for (uint32_t i = 0; i < vcpus; i++) {
        fill(&s->vcpu[i], sizeof(s->vcpu[i]));
        memset(&s->vcpu[i].msrs, 0, sizeof(s->vcpu[i].msrs));
        s->vcpu[i].msrs.count = 7 + i;
        for (uint32_t k = 0; k < s->vcpu[i].msrs.count; k++) {
            s->vcpu[i].msrs.entries[k].index = 0x100 + k;
            s->vcpu[i].msrs.entries[k].data = (uint64_t)random();
        }
    }
    fill(devices, sizeof(devices));
    s->devices = devices;
    s->devices_bytes = sizeof(devices);
    size_t size = snapshot_write(s, file, sizeof(file));
    snapshot_free(s);
    assert_true(size > 0);
    return size;
}

static void test_round_trip(void **state)
{
    struct error e = ERROR_INIT;

    (void)state;
    for (uint32_t vcpus = 1; vcpus <= SANDBOX_VCPUS_MAX; vcpus *= 2) {
        size_t size = make_file(vcpus);
        struct snapshot *s = NULL;

        assert_int_equal(snapshot_parse(file, size, &s, &e), 0);
        assert_int_equal(s->vcpus, vcpus);
        assert_int_equal(s->vcpu[vcpus - 1].msrs.count, 6 + vcpus);
        assert_int_equal(s->devices_bytes, 300);
        assert_int_equal(snapshot_write(s, again, sizeof(again)), size);
        assert_memory_equal(file, again, size);
        assert_int_equal(snapshot_write(s, again, size - 1), 0);
        snapshot_free(s);
    }
}

static int parse_exact(const uint8_t *bytes, size_t size, struct error *e)
{
    /* An exact copy, so that a read past its end is found. */
    uint8_t *copy = malloc(size > 0 ? size : 1);
    struct snapshot *s = NULL;

    assert_non_null(copy);
    memcpy(copy, bytes, size);
    int result = snapshot_parse(copy, size, &s, e);
    if (result == 0)
        snapshot_free(s);
    free(copy);
    return result;
}

static void test_every_truncation(void **state)
{
    size_t size = make_file(1);
    struct error e = ERROR_INIT;

    (void)state;
    for (size_t cut = 0; cut < size; cut++) {
        assert_int_equal(parse_exact(file, cut, &e), -1);
        assert_int_equal(e.code, ERR_TEMPLATE_CORRUPT);
        if (cut < 60)
            continue;
        /* The same with a header that is right about it. */
        memcpy(again, file, cut);
        snapshot_seal(again, cut);
        assert_int_equal(parse_exact(again, cut, &e), -1);
    }
    snapshot_seal(file, size + 1);
    assert_int_equal(parse_exact(file, size + 1, &e), -1);
}

static void test_every_flip(void **state)
{
    size_t size = make_file(1);
    struct error e = ERROR_INIT;

    (void)state;
    for (size_t at = 0; at < size; at++) {
        file[at] ^= 0x10;
        assert_int_equal(parse_exact(file, size, &e), -1);
        file[at] ^= 0x10;
    }
    assert_int_equal(parse_exact(file, size, &e), 0);
}

/* With the checksum mended, what parses must be what is written again. */
static void test_mended_flips(void **state)
{
    size_t size = make_file(2);
    struct error e = ERROR_INIT;

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        size_t at = (size_t)random() % (round % 2 == 0 ? 400 : size);
        uint8_t old = file[at];
        struct snapshot *s = NULL;

        file[at] = (uint8_t)random();
        snapshot_seal(file, size);
        if (snapshot_parse(file, size, &s, &e) == 0) {
            assert_int_equal(snapshot_write(s, again, sizeof(again)), size);
            assert_memory_equal(file, again, size);
            snapshot_free(s);
        }
        file[at] = old;
    }
}

static void test_other_version(void **state)
{
    size_t size = make_file(1);
    struct error e = ERROR_INIT;

    (void)state;
    file[8] = SNAPSHOT_VERSION + 1;
    snapshot_seal(file, size);
    assert_int_equal(parse_exact(file, size, &e), -1);
    assert_non_null(strstr(e.message, "version 2"));
}

static void test_place(void **state)
{
    size_t size = make_file(1);
    struct snapshot *s = NULL;
    struct error e = ERROR_INIT;

    (void)state;
    assert_int_equal(snapshot_parse(file, size, &s, &e), 0);
    struct cpuid_table table = s->cpuid;
    const struct snapshot_place same = {.kind = s->kind,
                                        .host = s->host,
                                        .vcpus = 1,
                                        .mem_mib = 256,
                                        .tsc_khz = 2001000,
                                        .cpuid = &table};
    struct snapshot_place here = same;
    assert_int_equal(snapshot_check_place(s, &here, &e), 0);
    here.kind = KVM_KIND_HARDWARE;
    assert_int_equal(snapshot_check_place(s, &here, &e), -1);
    assert_non_null(strstr(e.message, "software KVM"));
    here = same;
    here.host.signature++;
    assert_int_equal(snapshot_check_place(s, &here, &e), -1);
    assert_non_null(strstr(e.message, "GenuineIntel 0xc06f2"));
    here = same;
    here.vcpus = 2;
    assert_int_equal(snapshot_check_place(s, &here, &e), -1);
    here = same;
    here.mem_mib = 255;
    assert_int_equal(snapshot_check_place(s, &here, &e), -1);
    here = same;
    here.tsc_khz = 2010000;
    assert_int_equal(snapshot_check_place(s, &here, &e), -1);
    here = same;
    table.entries[2].ecx = 1;
    assert_int_equal(snapshot_check_place(s, &here, &e), -1);
    assert_non_null(strstr(e.message, "leaf 0x2.0"));
    table = s->cpuid;
    table.count--;
    assert_int_equal(snapshot_check_place(s, &here, &e), -1);
    snapshot_free(s);
}

static struct kvm_cpuid_entry2 *find(struct cpuid_table *t, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->entries[i].function == function && t->entries[i].index == index)
            return &t->entries[i];
    }
    return NULL;
}

/* A host that has everything: what must not be seen is not seen. */
static void test_cpuid_mask(void **state)
{
    static const uint32_t leaves[][2] = {
        {0, 0},    {1, 0},          {4, 0},          {4, 3},          {7, 0},
        {7, 1},    {0xa, 0},        {0xb, 0},        {0xd, 0},        {0xd, 1},
        {0x1f, 0}, {0x40000001, 0}, {0x80000001, 0}, {0x80000008, 0}, {0x8000001e, 0}};

    (void)state;
    for (int kind = KVM_KIND_HARDWARE; kind <= KVM_KIND_SOFTWARE; kind++) {
        struct cpuid_table t = {0};

        for (size_t i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++)
            t.entries[t.count++] = (struct kvm_cpuid_entry2){.function = leaves[i][0],
                                                             .index = leaves[i][1],
                                                             .eax = UINT32_MAX,
                                                             .ebx = UINT32_MAX,
                                                             .ecx = UINT32_MAX,
                                                             .edx = UINT32_MAX};
        cpuid_table_mask(&t, (enum kvm_kind)kind);
        const uint32_t one = find(&t, 1, 0)->ecx;
        assert_int_equal(one & (1u << 5), 0);  /* vmx */
        assert_int_equal(one & (1u << 27), 0); /* osxsave */
        assert_true((one & (1u << 31)) != 0);  /* hypervisor */
        assert_int_equal(find(&t, 0x80000001, 0)->ecx & 4, 0);
        assert_int_equal(find(&t, 0xa, 0)->eax, 0);
        assert_int_equal(find(&t, 7, 0)->edx & (7u << 22 & ~(1u << 23)), 0); /* amx */
        bool software = kind == KVM_KIND_SOFTWARE;
        assert_int_equal((one & (1u << 13)) == 0, software); /* cx16 */
        assert_int_equal((one & (1u << 26)) == 0, software); /* xsave */
        assert_int_equal(find(&t, 0xd, 1)->eax == 0, software);
        assert_int_equal(find(&t, 7, 1)->eax == 0, software);
    }
}

static void test_cpuid_topology(void **state)
{
    (void)state;
    for (uint32_t vcpus = 1; vcpus <= SANDBOX_VCPUS_MAX; vcpus++) {
        struct cpuid_table t = {.count = 4,
                                .entries = {{.function = 0, .eax = 0x20},
                                            {.function = 1, .ebx = UINT32_MAX},
                                            {.function = 0xb, .index = 7},
                                            {.function = 0x80000008, .ecx = UINT32_MAX}}};

        for (uint32_t i = 0; i < vcpus; i++) {
            cpuid_table_set_vcpu(&t, i, vcpus); /* again and again on the same table */
            assert_int_equal(t.count, 5);
            assert_int_equal(find(&t, 1, 0)->ebx >> 24, i);
            assert_int_equal(find(&t, 0xb, 0)->edx, i);
            assert_int_equal(find(&t, 0xb, 1)->edx, i);
            assert_int_equal(find(&t, 0xb, 1)->ebx, vcpus);
            assert_true(vcpus <= 1u << find(&t, 0xb, 1)->eax);
            assert_int_equal(find(&t, 0x80000008, 0)->ecx & 0xff, vcpus - 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_flip),    cmocka_unit_test(test_mended_flips),
        cmocka_unit_test(test_other_version), cmocka_unit_test(test_place),
        cmocka_unit_test(test_cpuid_mask),    cmocka_unit_test(test_cpuid_topology),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
