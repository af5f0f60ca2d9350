/*
 * A cgroup per monitor: caps on memory, CPU time and threads that hold outside the guest.
 *
 * Names: cloche-<instance>/<slot>, right below each hierarchy's mount point. A subtree of our own
 * at the top keeps clear of v2's rule that a cgroup with controllers for its children has no
 * processes itself, and lets the next start find what a crash left by the instance's name alone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "priv/cgroup_layout.h"

struct cgroup_caps {
    uint32_t mem_max_mib;
    uint32_t cpu_quota_percent;
    uint32_t pids_max;
};

/* The instance's subtree in one hierarchy. */
struct cgroup_branch {
    bool v2;
    unsigned controllers; /* that can be used here */
    int top_fd;           /* where the subtree stands */
    int dir_fd;           /* the subtree itself */
};

struct cgroup_tree {
    char name[40];
    unsigned controllers; /* of all branches */
    char lack[256];       /* the caps that do not hold, and why; empty when all hold */
    unsigned count;
    struct cgroup_branch branches[CGROUP_HIERARCHIES_MAX];
};

/* How a child gets into its cgroups: v2 by clone3, v1 by writing "0" to each tasks file. */
struct cgroup_entry {
    int v2_fd; /* directory, or -1 */
    unsigned count;
    int tasks_fds[CGROUP_HIERARCHIES_MAX];
};

#define CGROUP_ENTRY_INIT                                                                          \
    {                                                                                              \
        .v2_fd = -1                                                                                \
    }

/*
 * Reads the host's layout and makes the instance's subtree wherever it can. Controllers that are
 * missing or cannot be used are no failure: `lack` says so. Fails only when the layout cannot be
 * read.
 */
int cgroup_tree_init(struct cgroup_tree *t, uint64_t instance, struct error *e)
    __attribute__((warn_unused_result, nonnull));

/* Caps the memory of all slots together; before the first of them is made. Where there is no memory
 * controller nothing is done (`lack` has said so). */
int cgroup_tree_limit(struct cgroup_tree *t, uint64_t mem_max_mib, struct error *e)
    __attribute__((warn_unused_result, nonnull));

/* Removes the subtree, which must have no children any more; closes what init opened. */
void cgroup_tree_fini(struct cgroup_tree *t);

/* Makes the cgroups of a slot with their caps. On failure nothing of them is left. */
int cgroup_make(struct cgroup_tree *t, uint32_t slot, const struct cgroup_caps *caps,
                struct cgroup_entry *ret_entry, struct error *e)
    __attribute__((warn_unused_result, nonnull));
void cgroup_entry_fini(struct cgroup_entry *entry);

/* Changes the caps of a slot's cgroups. */
int cgroup_limit(struct cgroup_tree *t, uint32_t slot, const struct cgroup_caps *caps,
                 struct error *e) __attribute__((warn_unused_result, nonnull));

/* Removes the cgroups of a slot; absent ones are fine. -1 with errno (EBUSY: try again later). */
int cgroup_remove(struct cgroup_tree *t, uint32_t slot) __attribute__((warn_unused_result));

/* True when the kernel's OOM killer took a process of the slot's cgroup. */
bool cgroup_had_oom(struct cgroup_tree *t, uint32_t slot);

/*
 * For the start after a crash: kills every process in the subtree's cgroups and removes all of
 * them. Waits up to `timeout_ms`. Returns how many cgroups were removed, or -1 when some are left.
 */
int cgroup_purge(struct cgroup_tree *t, unsigned timeout_ms);
