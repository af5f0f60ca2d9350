/*
 * Memory through which large files pass with O_DIRECT, past the guest's page cache: on its way to
 * and from the disk the guest's kernel copies nothing and has no page to make, clear and write
 * back, and a transfer of any size leaves the guest's memory as it was. The few pieces are made
 * before the snapshot and lent; a transfer that finds none free does without.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* One request to the disk: large enough to spread its cost, and short enough (50 ms where the
 * kernel is interpreted) for the other streams that wait meanwhile. */
#define STAGING_BYTES (512u * 1024)
/* Of file offsets, sizes and memory; a multiple of what any of our disks asks for. */
#define STAGING_ALIGN 4096u
#define STAGING_COUNT 2u

struct stagings {
    uint8_t *bytes[STAGING_COUNT];
    bool taken[STAGING_COUNT];
};

int stagings_init(struct stagings *t, struct error *e) __attribute__((warn_unused_result));
void stagings_fini(struct stagings *t);

/* STAGING_BYTES of aligned memory, or NULL; and back again, NULL does nothing. */
uint8_t *staging_take(struct stagings *t);
void staging_give(struct stagings *t, uint8_t *bytes);

/* Switches O_DIRECT of an open file: 0, or -1 with errno, EINVAL where its file system has none. */
int staging_set_direct(int fd, bool on) __attribute__((warn_unused_result));
