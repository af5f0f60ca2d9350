/*
 * Snapshots on disk and in memory. One snapshot is a folder below STATE/snapshots:
 *
 *   manifest  what the snapshot belongs to, sizes, checksums (snapshot_manifest.h)
 *   state     vCPU and device state as the monitor wrote it
 *   mem       guest memory, sparse
 *   scratch   the scratch disk as the parked guest had mounted it, sparse
 *
 * The folder is written under a temporary name, synced and renamed, so that one which exists is
 * whole. In use, memory and state are sealed memfds: nothing on disk is ever mapped by a monitor.
 */
#pragma once

#include <stdint.h>

#include "base/error.h"
#include "daemon/machine/snapshot_manifest.h"

#define SNAPSHOT_STORED_MAX 64u /* folders; more, and those used longest ago go */

struct snapshot {
    int mem_fd;     /* memfd, sealed */
    int state_fd;   /* memfd, sealed */
    int scratch_fd; /* read-only file: copy it, see snapshot_scratch */
};

#define SNAPSHOT_INIT                                                                              \
    {                                                                                              \
        .mem_fd = -1, .state_fd = -1, .scratch_fd = -1                                             \
    }

/* The last one to let go of much memory waits until the kernel has taken it back. */
void snapshot_fini(struct snapshot *s);

/* Empty memfds for a guest that is about to boot, and for its scratch disk a sparse file without a
 * name in `tmp_fd`. What was made before a failure is in `s` all the same. Blocks. */
int snapshot_prepare(struct snapshot *s, const struct snapshot_key *key, int tmp_fd,
                     struct error *e) __attribute__((warn_unused_result));

/* Seals memory and state against any further write; no writable mapping may be left. Blocks: the
 * kernel looks at each page, and may wait for some. */
int snapshot_seal(struct snapshot *s, struct error *e) __attribute__((warn_unused_result));

/* Writes a sealed snapshot to `snapshots_fd`, replacing one of the same name, and keeps at most
 * SNAPSHOT_STORED_MAX there. Blocks: seconds on a slow disk. */
int snapshot_save(const struct snapshot *s, const struct snapshot_key *key, int snapshots_fd,
                  struct error *e) __attribute__((warn_unused_result));

/*
 * Reads one back into fresh memfds and seals them. Returns 0; 1 when there is none, or one with
 * another fingerprint (to be made anew); -1 with ERR_TEMPLATE_CORRUPT when it is damaged. Blocks.
 */
int snapshot_load(struct snapshot *ret_snapshot, const struct snapshot_key *key, int snapshots_fd,
                  struct error *e) __attribute__((warn_unused_result));

/*
 * A new scratch disk for one sandbox: an unlinked file in `scratch_dir_fd` with the content of the
 * snapshot's (shared by reflink where the file system can, else its few used blocks are copied).
 * Returns the descriptor or -1. Blocks.
 */
int snapshot_scratch(const struct snapshot *s, int scratch_dir_fd, struct error *e)
    __attribute__((warn_unused_result));
