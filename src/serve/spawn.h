/*
 * The two programs that `cloche serve` makes of itself. Each is started by exec, so that nothing of
 * the operator's environment or of this process's memory reaches them, with the descriptors of
 * cloche/handover.h and no others.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* Where a descriptor goes; a `from` of -1 leaves the place closed. */
struct spawn_fd {
    int from;
    int to;
};

/* A sealed memfd with a program, which only its own exec can read (mode 0511). */
int spawn_seal_program(const void *data, size_t size, struct error *e)
    __attribute__((warn_unused_result, nonnull));

/* The running binary as a descriptor to exec from: paths may change or be out of reach later. */
int spawn_own_program(struct error *e) __attribute__((warn_unused_result, nonnull));

/* Starts priv as a child. The descriptors stay the caller's. */
int spawn_priv(int program_fd, const struct spawn_fd *fds, size_t count, pid_t *ret_pid,
               struct error *e) __attribute__((warn_unused_result, nonnull));

/*
 * Gives up root for good (uid and gid, groups, capabilities and their bounding set, new privileges)
 * and becomes the daemon. Returns only on failure, when the process may be in any state in between.
 */
int spawn_become_daemon(int program_fd, uint32_t uid, const struct spawn_fd *fds, size_t count,
                        struct error *e) __attribute__((nonnull));
