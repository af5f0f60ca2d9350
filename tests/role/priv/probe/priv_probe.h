/* The probe that stands in for a monitor: it reports what its jail looks like from inside, then
 * does what one-byte messages on its control socket say. */
#pragma once

#include <stdint.h>

#define PROBE_FDS_MAX 1024

struct probe_report {
    uint32_t uids[3], gids[3]; /* real, effective, saved */
    int32_t group_count;
    uint64_t capabilities; /* permitted, effective, inheritable and bounding set together */
    int32_t no_new_privs;
    int32_t dumpable;
    int32_t death_signal;
    int32_t seccomp;
    int32_t pid, parent_pid, session; /* as seen in the jail */
    uint32_t fd_count;
    int32_t fds_expected;  /* 0 to 4 are open and of the right kind */
    int32_t root_entries;  /* names in "/" besides "." and ".."; -1: cannot be read */
    int32_t root_writable; /* errno of making a file there, 0 if that worked */
    int32_t dev_kvm;       /* errno of opening it by name */
    int32_t argument_count, environment_count;
    uint64_t signals_ignored, signals_blocked;
    uint64_t limit_files, limit_core, limit_file_bytes, limit_locked, limit_processes;
};

enum probe_command {
    PROBE_EXIT = 'e',   /* exit with code 7 */
    PROBE_EAT = 'm',    /* write to memory until the cap is reached */
    PROBE_HOLD = 'h',   /* write to 56 MiB of memory and keep them */
    PROBE_MOUNT = 'x',  /* a forbidden system call */
    PROBE_DEAF = 'd',   /* never look at the control socket again */
    PROBE_CRASH = 'c',  /* SIGSEGV: the core dump must not happen */
    PROBE_THREADS = 't' /* make children until refused; answers with their number (u32) */
};
