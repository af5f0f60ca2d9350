#include "daemon/machine/snapshot_manifest.h"

#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"

#define MAGIC   UINT64_C(0x50414e5345484c43)
#define VERSION 1u

struct record { /* little-endian on every machine that cloche runs on (x86-64) */
    uint64_t magic;
    uint32_t version;
    uint32_t vcpus;
    uint32_t mem_mib;
    uint32_t disk_mib;
    uint64_t state_bytes;
    uint32_t mem_crc;
    uint32_t state_crc;
    uint32_t scratch_crc;
    uint32_t reserved;
    char name[SNAPSHOT_NAME_MAX];
    char fingerprint[SNAPSHOT_FINGERPRINT_MAX];
    uint32_t pad;
    uint32_t crc; /* of everything before */
};

_Static_assert(sizeof(struct record) == SNAPSHOT_MANIFEST_BYTES, "no padding on disk");

void snapshot_manifest_put(const struct snapshot_manifest *m, const struct snapshot_key *key,
                           uint8_t ret_bytes[SNAPSHOT_MANIFEST_BYTES])
{
    struct record r = {.magic = MAGIC,
                       .version = VERSION,
                       .vcpus = key->vcpus,
                       .mem_mib = key->mem_mib,
                       .disk_mib = key->disk_mib,
                       .state_bytes = m->state_bytes,
                       .mem_crc = m->mem_crc,
                       .state_crc = m->state_crc,
                       .scratch_crc = m->scratch_crc};

    (void)snprintf(r.name, sizeof(r.name), "%s", key->name);
    (void)snprintf(r.fingerprint, sizeof(r.fingerprint), "%s", key->fingerprint);
    r.crc = crc32c(0, &r, offsetof(struct record, crc));
    memcpy(ret_bytes, &r, sizeof(r));
}

int snapshot_corrupt(const struct snapshot_key *key, struct error *e, const char *what)
{
    (void)error_set(e, ERR_TEMPLATE_CORRUPT, "the snapshot %s is corrupt: %s", key->name, what);
    return error_remedy(e, "remove its folder below snapshots/ in the state directory; the next "
                           "sandbox of this shape boots it anew");
}

int snapshot_manifest_parse(const void *data, size_t size, const struct snapshot_key *key,
                            struct snapshot_manifest *ret_manifest, struct error *e)
{
    struct record r;

    if (size != sizeof(r))
        return snapshot_corrupt(key, e, "its manifest is missing or cut short");
    memcpy(&r, data, sizeof(r));
    if (r.magic != MAGIC || r.crc != crc32c(0, &r, offsetof(struct record, crc)))
        return snapshot_corrupt(key, e, "its manifest's checksum does not match");
    if (r.version != VERSION ||
        strncmp(r.fingerprint, key->fingerprint, sizeof(r.fingerprint)) != 0)
        return 1;
    if (strncmp(r.name, key->name, sizeof(r.name)) != 0 || r.vcpus != key->vcpus ||
        r.mem_mib != key->mem_mib || r.disk_mib != key->disk_mib ||
        r.state_bytes > SNAPSHOT_STATE_BYTES_MAX)
        return snapshot_corrupt(key, e, "its manifest is of another shape");
    *ret_manifest = (struct snapshot_manifest){.state_bytes = r.state_bytes,
                                               .mem_crc = r.mem_crc,
                                               .state_crc = r.state_crc,
                                               .scratch_crc = r.scratch_crc};
    return 0;
}
