/*
 * A cgroup (v2) for each exec, so that a kill reaches every descendant, whatever session or parent
 * it has moved to. Making and removing a cgroup costs the kernel far more than anything else that
 * surrounds a short command, so a few are made before the snapshot and used again. One that was
 * killed, ran out of memory or has cgroups below it is not; but a limit that a tenant sets on its
 * own cgroup by hand may meet it again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define EXECGROUPS_IDLE_MAX 8u

struct execgroup {
    uint32_t number; /* its directory's name */
    int dir_fd;      /* what clone3(2) takes */
    int kill_fd;     /* cgroup.kill */
    int events_fd;   /* cgroup.events: pollable, says if a process is left */
    int memory_fd;   /* memory.events; -1 without the memory controller */
    bool was_killed; /* not used again: there are kernels on which whatever is born in it then dies
                      */
    bool is_limited; /* not used again either */
    uint64_t oom_kills;
};

struct execgroups {
    int root_fd; /* -1: there is no usable cgroup tree, and kills reach process groups only */
    uint32_t next_number;
    unsigned idle_count;
    struct execgroup idle[EXECGROUPS_IDLE_MAX];
    unsigned used_count; /* given back and not looked at yet */
    struct execgroup used[EXECGROUPS_IDLE_MAX];
};

/* Opens the cgroup directory `path` (NULL: none) and makes `ready_count` cgroups in it. A tree that
 * cannot be written to is the same as none. */
void execgroups_init(struct execgroups *g, const char *path, unsigned ready_count);
/* Closes everything and removes the idle cgroups. */
void execgroups_fini(struct execgroups *g);

static inline bool execgroups_available(const struct execgroups *g)
{
    return g->root_fd >= 0;
}

/* An empty cgroup, an idle one unless `fresh`; 0, or -1 with errno. */
int execgroups_take(struct execgroups *g, bool fresh, struct execgroup *ret_group)
    __attribute__((warn_unused_result));

/* Gives back a cgroup that is empty. Cheap: what remains is done by execgroups_tidy, which returns
 * soon and is to be called when there is nothing else to do. */
void execgroups_put(struct execgroups *g, struct execgroup *group);
void execgroups_tidy(struct execgroups *g);

/* Removes a cgroup for good. */
void execgroups_drop(struct execgroups *g, struct execgroup *group);

/* Limits all its processes together; 0: no limit. Returns 0, or -1 with errno, ENOTSUP where the
 * kernel has no such controller. */
int execgroup_limit(struct execgroup *group, uint64_t memory_bytes, uint64_t processes)
    __attribute__((warn_unused_result));

void execgroup_kill(struct execgroup *group);
/* Signals every process in it but `keep`. One that is born meanwhile may escape. */
void execgroup_signal_others(const struct execgroup *group, pid_t keep, int number);

bool execgroup_is_empty(const struct execgroup *group);

/* Processes that the OOM killer took since the group was given out. */
uint64_t execgroup_oom_kills(const struct execgroup *group);
