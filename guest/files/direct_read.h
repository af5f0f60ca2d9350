/*
 * Reads a large file by O_DIRECT, in pieces of STAGING_BYTES. What the page cache has of it is
 * taken from there all the same: much of that may still have to be written, which O_DIRECT would
 * wait for.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/files/staging.h"

/* All zero: one that reads like pread(2). */
struct direct_read {
    bool is_on;       /* O_DIRECT of the descriptor */
    uint8_t *staging; /* NULL: the file is small, takes no direct reads, or no memory was free */
    uint64_t at;      /* of the file, is what the staging has ... */
    size_t size;      /* ... of so many bytes */
    void *map;        /* the whole file, to ask what of it is cached */
    uint64_t map_bytes;
};

/* For an open file of that size, which stays the caller's. */
void direct_read_begin(struct direct_read *d, struct stagings *t, int fd, uint64_t size);
void direct_read_end(struct direct_read *d, struct stagings *t);

/* Some of what the file has at `offset`: the number of bytes, 0 at its end, or -1 with errno
 * (EINTR too). */
ssize_t direct_read_at(struct direct_read *d, struct stagings *t, int fd, void *to, size_t size,
                       uint64_t offset) __attribute__((warn_unused_result));
