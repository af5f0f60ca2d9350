/*
 * The state file of a snapshot (vmm/state/snapshot.h). An input is either the file itself or,
 * because no sequence of flips finds that many sections by itself, a list of edits to a good one.
 * The checksum is mended in both. Property: what is accepted is written again to the same bytes.
 */
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/state/snapshot.h"

#define GOOD_BYTES_MAX (64 * KIB)
#define EDIT_BYTES     4u /* offset u16, kind u8, value u8 */

enum edit { EDIT_SET, EDIT_XOR, EDIT_CUT, EDIT_REPEAT, EDIT_COUNT };

static uint8_t again[SNAPSHOT_BYTES_MAX];

static size_t make_good(uint8_t *bytes, size_t size, uint32_t vcpus)
{
    static const uint8_t devices[64] = {1};
    struct snapshot *s = snapshot_new(vcpus);

    if (s == NULL)
        return 0;
    s->kind = KVM_KIND_HARDWARE;
    s->cpuid.count = 2;
    for (uint32_t i = 0; i < SNAPSHOT_IRQCHIPS; i++)
        s->irqchips[i].chip_id = i;
    for (uint32_t i = 0; i < vcpus; i++)
        s->vcpu[i].msrs.count = 2;
    s->devices = devices;
    s->devices_bytes = sizeof(devices);
    size_t used = snapshot_write(s, bytes, size);
    snapshot_free(s);
    return used;
}

/* Applies the edits to `bytes`; returns their new number. */
static size_t apply(uint8_t *bytes, size_t used, const uint8_t *edits, size_t size)
{
    for (; size >= EDIT_BYTES; edits += EDIT_BYTES, size -= EDIT_BYTES) {
        size_t at = (size_t)edits[0] | (size_t)edits[1] << 8;

        if (at >= used)
            continue;
        switch (edits[2] % EDIT_COUNT) {
        case EDIT_SET:
            bytes[at] = edits[3];
            break;
        case EDIT_XOR:
            bytes[at] ^= edits[3];
            break;
        case EDIT_CUT:
            used = at;
            break;
        default: /* a piece of it once more at the end */
            if (used + edits[3] <= GOOD_BYTES_MAX && at + edits[3] <= used) {
                memcpy(bytes + used, bytes + at, edits[3]);
                used += edits[3];
            }
        }
    }
    return used;
}

static void check(uint8_t *bytes, size_t size)
{
    struct error e = ERROR_INIT;
    struct snapshot *s = NULL;

    if (size >= 64 && size <= SNAPSHOT_BYTES_MAX)
        snapshot_seal(bytes, size);
    if (snapshot_parse(bytes, size, &s, &e) != 0) {
        assert(e.code == ERR_TEMPLATE_CORRUPT || e.code == ERR_INTERNAL);
        assert(e.message[0] != '\0');
        return;
    }
    assert(s->vcpus >= 1 && s->vcpus <= SANDBOX_VCPUS_MAX);
    assert(s->cpuid.count <= CPUID_ENTRIES_MAX);
    assert(s->devices_bytes <= size);
    assert(snapshot_write(s, again, sizeof(again)) == size);
    assert(memcmp(again, bytes, size) == 0);
    snapshot_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t good[GOOD_BYTES_MAX];
    bool edits = size > 0 && data[0] < 0x80;
    size_t used = size;

    if (edits)
        used = apply(good, make_good(good, sizeof(good), 1 + data[0] % 3), data + 1, size - 1);
    /* An exact copy, so that a read past its end is found. */
    uint8_t *copy = malloc(used > 0 ? used : 1);
    if (copy == NULL)
        return 0;
    memcpy(copy, edits ? good : data, used);
    check(copy, used);
    free(copy);
    return 0;
}
