/*
 * The journal: what exists on the host because of this instance, written before it is made, so that
 * the next start finds what a crash left. One header and one record per slot, 64 bytes each,
 * little-endian, each with its own CRC-32C:
 *
 *   header  magic u64, version u32, reserved u32, instance u64, boot id 16 bytes,
 *           pid u32, reserved u32, start time u64 (of the priv that writes), reserved u32, crc u32
 *   record  magic u32, version u32, slot u32, pid u32, start time u64, instance u64, zeroes, crc
 * u32
 *
 * A record's pid is 0 while only its cgroups are about to be made. A free slot's record is all
 * zeroes. Start times are field 22 of /proc/PID/stat and make a pid unmistakable within one boot; a
 * journal of an earlier boot names nothing that could still exist. Nothing is synced: a crash of
 * the host leaves no process behind.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cloche/limits.h"

#define JOURNAL_ENTRY_BYTES 64u
#define JOURNAL_BYTES_MAX   (JOURNAL_ENTRY_BYTES * (1 + (uint64_t)SANDBOX_COUNT_MAX))
#define JOURNAL_BOOT_BYTES  16u

struct journal_process {
    uint32_t slot;
    int32_t pid; /* 0: unknown, or never started */
    uint64_t start_time;
};

struct journal_header {
    uint64_t instance;
    uint8_t boot_id[JOURNAL_BOOT_BYTES];
    struct journal_process writer; /* slot 0, of no meaning */
};

struct journal_content {
    struct journal_header header;
    size_t count;
    struct journal_process processes[SANDBOX_COUNT_MAX];
};

/*
 * Reads a journal's bytes. An empty one has no processes and no header (all zeroes). Returns -1
 * with ERR_INTERNAL when any part is damaged or foreign; what could be read is in `ret_content` all
 * the same.
 */
int journal_parse(const void *data, size_t size, struct journal_content *ret_content,
                  struct error *e) __attribute__((warn_unused_result, nonnull(3, 4)));

/* As journal_parse, of a file. */
int journal_load(int fd, struct journal_content *ret_content, struct error *e)
    __attribute__((warn_unused_result, nonnull));

/* Makes the file a journal without records. */
int journal_start(int fd, const struct journal_header *header, struct error *e)
    __attribute__((warn_unused_result, nonnull));

/* Writes the record of `p->slot`. */
int journal_put(int fd, const struct journal_header *header, const struct journal_process *p,
                struct error *e) __attribute__((warn_unused_result, nonnull));

/* Frees the record of a slot. */
int journal_clear(int fd, uint32_t slot, struct error *e)
    __attribute__((warn_unused_result, nonnull));

/* Everything is gone: empties the file. */
int journal_end(int fd, struct error *e) __attribute__((warn_unused_result, nonnull));
