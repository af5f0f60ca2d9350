/*
 * The state file of a snapshot (vmm/snapshot.h). The checksum is mended first, or nothing would get
 * past it. Property: what is accepted is written again to the same bytes.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/snapshot.h"

static uint8_t again[SNAPSHOT_BYTES_MAX];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max);

/* A small state to begin with, since no sequence of flips finds the sections by itself. */
static size_t make_seed(uint8_t *bytes, size_t size, uint32_t vcpus)
{
    struct snapshot *s = snapshot_new(vcpus);
    size_t used = 0;

    if (s == NULL)
        return 0;
    s->kind = KVM_KIND_HARDWARE;
    s->cpuid.count = 1;
    for (uint32_t i = 0; i < SNAPSHOT_IRQCHIPS; i++)
        s->irqchips[i].chip_id = i;
    for (uint32_t i = 0; i < vcpus; i++)
        s->vcpu[i].msrs.count = 1;
    used = snapshot_write(s, bytes, size);
    snapshot_free(s);
    return used;
}

int LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed)
{
    if (size < 64) {
        size_t made = make_seed(data, size_max, 1 + seed % 2);

        if (made > 0)
            return (int)made;
    }
    return (int)LLVMFuzzerMutate(data, size, size_max);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error e = ERROR_INIT;
    struct snapshot *s = NULL;
    uint8_t *copy = malloc(size > 0 ? size : 1);

    if (copy == NULL)
        return 0;
    memcpy(copy, data, size);
    if (size >= 64 && size <= SNAPSHOT_BYTES_MAX)
        snapshot_seal(copy, size);
    if (snapshot_parse(copy, size, &s, &e) == 0) {
        assert(s->vcpus >= 1 && s->vcpus <= SANDBOX_VCPUS_MAX);
        assert(s->cpuid.count <= CPUID_ENTRIES_MAX);
        assert(s->devices_bytes <= size);
        assert(snapshot_write(s, again, sizeof(again)) == size);
        assert(memcmp(again, copy, size) == 0);
        snapshot_free(s);
    } else {
        assert(e.code == ERR_TEMPLATE_CORRUPT || e.code == ERR_INTERNAL);
        assert(e.message[0] != '\0');
    }
    free(copy);
    return 0;
}
