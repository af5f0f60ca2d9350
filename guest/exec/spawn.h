/*
 * Starting a process from the agent. The child shares the agent's memory until it has called
 * execve(2), like vfork(2), but on a stack of its own and born inside its cgroup: nothing of the
 * agent's address space is copied, and no process ever runs outside the cgroup that a kill reaches.
 *
 * While the child prepares itself the agent stands still, so the child tells what failed by writing
 * to the plan. It makes raw system calls only and changes nothing else of the agent's memory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SPAWN_GROUPS_MAX  256u
#define SPAWN_PATH_BYTES  4096u
#define SPAWN_RLIMITS_MAX 3u

enum spawn_step {
    SPAWN_STEP_CLONE,
    SPAWN_STEP_STDIO,
    SPAWN_STEP_TERMINAL,
    SPAWN_STEP_USER,
    SPAWN_STEP_CWD,
    SPAWN_STEP_LIMIT,
    SPAWN_STEP_EXEC,
};

struct spawn_rlimit {
    int resource; /* RLIMIT_... */
    uint64_t value;
};

struct spawn_plan {
    char *const *argv;
    char *const *envp;
    const char *search_path; /* where argv[0] has no slash: "dir:dir:..." */
    const char *cwd;
    int stdio_fds[3];
    bool is_terminal; /* stdio_fds[0] becomes the session's controlling terminal */
    int cgroup_fd;    /* -1: stay in the agent's */
    bool change_user;
    uid_t uid;
    gid_t gid;
    gid_t groups[SPAWN_GROUPS_MAX];
    size_t group_count;
    uint32_t umask; /* larger than 0777: the agent's */
    struct spawn_rlimit rlimits[SPAWN_RLIMITS_MAX];
    size_t rlimit_count;

    /* What failed, where spawn_process returns -1. */
    enum spawn_step step;
    int error; /* errno */

    char path[SPAWN_PATH_BYTES]; /* the child's scratch: the file it tries to execute */
};

/*
 * Starts the process: a session leader with no signal blocked, stdio as given and no other
 * descriptor (everything the agent opens is close-on-exec). Returns its pid, which the caller
 * reaps, or -1 with `step` and `error` set; the child is reaped already then. Not reentrant.
 * The caller has all signals blocked and no handlers installed.
 */
pid_t spawn_process(struct spawn_plan *plan) __attribute__((warn_unused_result));
