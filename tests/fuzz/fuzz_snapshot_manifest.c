/*
 * The manifest of a stored snapshot. An input is the file itself or, with an odd first byte, edits
 * to a good one whose checksum is mended. Properties: what is taken for a key is what was written
 * for it, and is not taken for any other key; what is refused says so, with a remedy.
 */
#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "daemon/machine/snapshot_manifest.h"

#define CRC_OFFSET (SNAPSHOT_MANIFEST_BYTES - 4)
#define EDIT_BYTES 3u /* offset u16, value u8 */

static const struct snapshot_key key = {.name = "python-2-512-1024",
                                        .fingerprint = "kernel a, root b",
                                        .vcpus = 2,
                                        .mem_mib = 512,
                                        .disk_mib = 1024};
static const struct snapshot_manifest good = {
    .state_bytes = 12345, .mem_crc = 1, .state_crc = 2, .scratch_crc = 3};

static int parse(const uint8_t *data, size_t size, const struct snapshot_key *of,
                 struct snapshot_manifest *ret_manifest)
{
    const struct snapshot_manifest none = {.state_bytes = UINT64_MAX};
    struct error e = ERROR_INIT;

    *ret_manifest = none;
    int result = snapshot_manifest_parse(data, size, of, ret_manifest, &e);
    assert(result == 0 || memcmp(ret_manifest, &none, sizeof(none)) == 0);
    if (result == -1)
        assert(e.code == ERR_TEMPLATE_CORRUPT && e.message[0] != '\0' && e.remedy[0] != '\0');
    else
        assert(e.code == ERR_NONE && (result == 0 || result == 1));
    return result;
}

static void check_other_keys(const uint8_t *data, size_t size)
{
    struct snapshot_manifest m;

    for (int i = 0; i < 5; i++) {
        struct snapshot_key other = key;

        other.vcpus += i == 0;
        other.mem_mib += i == 1;
        other.disk_mib -= i == 2;
        other.name[0] ^= i == 3;
        other.fingerprint[7] ^= i == 4;
        int result = parse(data, size, &other, &m);
        assert(result == (i == 4 ? 1 : -1));
    }
}

static void check(const uint8_t *data, size_t size)
{
    uint8_t again[SNAPSHOT_MANIFEST_BYTES];
    struct snapshot_manifest m, m2;

    if (parse(data, size, &key, &m) != 0)
        return;
    assert(size == SNAPSHOT_MANIFEST_BYTES && m.state_bytes <= SNAPSHOT_STATE_BYTES_MAX);
    check_other_keys(data, size);
    snapshot_manifest_put(&m, &key, again);
    int result = parse(again, sizeof(again), &key, &m2);
    assert(result == 0 && m2.state_bytes == m.state_bytes && m2.mem_crc == m.mem_crc);
    assert(m2.state_crc == m.state_crc && m2.scratch_crc == m.scratch_crc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t bytes[SNAPSHOT_MANIFEST_BYTES];

    if (size < 1 || data[0] % 2 == 0) {
        /* An exact copy, so that a read past its end is found. */
        uint8_t *copy = malloc(size > 1 ? size - 1 : 1);
        assert(copy != NULL);
        memcpy(copy, data + (size > 0), size > 0 ? size - 1 : 0);
        check(copy, size > 0 ? size - 1 : 0);
        free(copy);
        return 0;
    }
    snapshot_manifest_put(&good, &key, bytes);
    for (size_t at = 1; size - at >= EDIT_BYTES; at += EDIT_BYTES)
        bytes[((size_t)data[at] | (size_t)data[at + 1] << 8) % sizeof(bytes)] ^= data[at + 2];
    uint32_t crc = crc32c(0, bytes, CRC_OFFSET);
    memcpy(bytes + CRC_OFFSET, &crc, sizeof(crc));
    check(bytes, sizeof(bytes));
    return 0;
}
