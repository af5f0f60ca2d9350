/*
 * A monitor's way from a copy of priv to a jailed program.
 *
 *   clone3   its own pid, network, ipc and uts namespace; the mount namespace is the empty one that
 *            priv itself lives in (harden.h)
 *   limit    cgroups, rlimits, first to go when the host runs out of memory, own session, default
 *            signals
 *   descend  exactly five descriptors, then uid, gid, no groups, no capabilities
 *   exec     the sealed program, with an empty environment
 *
 * Descriptors 0 to 2 are /dev/null. A monitor that its guest has taken over must not be able to
 * write to whatever the daemon's stderr is: it could forge or flood the log, and type into the
 * operator's terminal (TIOCSTI). What a monitor has to say goes over its control socket.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "priv/cgroup.h"

struct child_plan {
    int control_fd; /* becomes VMM_CONTROL_FD */
    int kvm_fd;     /* becomes VMM_KVM_FD */
    int null_fd;
    int program_fd;
    int proc_fd;      /* /proc */
    int parent_pidfd; /* priv's own: the child must not outlive it */
    const struct cgroup_entry *cgroups;
    uint32_t uid;           /* and gid */
    uint32_t processes_max; /* RLIMIT_NPROC, which counts all processes of that uid */
};

/* What a child that could not reach its exec leaves in the report pipe. */
struct child_report {
    int32_t error;
    char what[60];
};

/*
 * Starts the child. `ret_report_fd` gets the reading end of a pipe, non-blocking: it holds a struct
 * child_report when the set-up failed, and is at its end without one when the program runs. All
 * descriptors of the plan stay the caller's and must be above VMM_KVM_FD, but for control_fd and
 * program_fd all above HANDOVER_PRIV_END.
 */
int child_start(const struct child_plan *plan, int *ret_pidfd, pid_t *ret_pid, int *ret_report_fd,
                struct error *e) __attribute__((warn_unused_result, nonnull));
