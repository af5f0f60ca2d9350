/* The state directory: made, checked, locked, and opened part by part for its users. */
#pragma once

#include <linux/limits.h>
#include <stdint.h>

#include "base/error.h"

struct state_dir {
    int lock_fd;      /* holds the lock as long as any copy of it is open */
    int journal_fd;   /* priv's */
    int snapshots_fd; /* the daemon's own directories */
    int scratch_fd;
    int tmp_fd;
    uint64_t instance;   /* the same for the same directory, start after start */
    char path[PATH_MAX]; /* absolute, without symbolic links */
};

/*
 * Opens the state directory, making it (0700, root) if need be. Refuses a directory that others
 * could write to or that is in use by another daemon; waits up to `wait_ms` for one that is about
 * to end. `daemon_uid` (and gid) becomes the owner of the daemon's directories. On failure nothing
 * is open.
 */
int state_dir_open(const char *path, uint32_t daemon_uid, unsigned wait_ms,
                   struct state_dir *ret_dir, struct error *e)
    __attribute__((warn_unused_result, nonnull));
void state_dir_close(struct state_dir *d);

/* Makes a directory and those above it, as far as they are missing (0755). */
int state_make_path(const char *path, struct error *e) __attribute__((warn_unused_result, nonnull));
