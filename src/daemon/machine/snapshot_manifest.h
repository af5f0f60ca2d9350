/*
 * The manifest of a snapshot's folder: a record of fixed size with magic, version, what the
 * snapshot belongs to, sizes and checksums, and one of its own. Pure functions over bytes.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cloche/limits.h"

#define SNAPSHOT_NAME_MAX        128u
#define SNAPSHOT_FINGERPRINT_MAX 512u
#define SNAPSHOT_STATE_BYTES_MAX (16 * MIB)
#define SNAPSHOT_MANIFEST_BYTES  (56u + SNAPSHOT_NAME_MAX + SNAPSHOT_FINGERPRINT_MAX)

/* What a snapshot is of. */
struct snapshot_key {
    char name[SNAPSHOT_NAME_MAX];               /* of the folder: template and shape */
    char fingerprint[SNAPSHOT_FINGERPRINT_MAX]; /* of all that went into it; another: do not use */
    uint32_t vcpus;
    uint32_t mem_mib;
    uint32_t disk_mib;
};

/* What it says of the other files. */
struct snapshot_manifest {
    uint64_t state_bytes;
    uint32_t mem_crc;
    uint32_t state_crc;
    uint32_t scratch_crc;
};

void snapshot_manifest_put(const struct snapshot_manifest *m, const struct snapshot_key *key,
                           uint8_t ret_bytes[SNAPSHOT_MANIFEST_BYTES]) __attribute__((nonnull));

/*
 * Judges the bytes of a manifest file. Returns 0 where it is whole and of `key`; 1 where it is
 * whole, of another fingerprint or version; -1 with ERR_TEMPLATE_CORRUPT.
 */
int snapshot_manifest_parse(const void *data, size_t size, const struct snapshot_key *key,
                            struct snapshot_manifest *ret_manifest, struct error *e)
    __attribute__((nonnull, warn_unused_result));

/* Fills `e` with ERR_TEMPLATE_CORRUPT, with `what` is wrong with the snapshot; returns -1. */
int snapshot_corrupt(const struct snapshot_key *key, struct error *e, const char *what)
    __attribute__((nonnull));
