/* Everything that priv knows: one struct, used by its own files only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cloche/limits.h"
#include "cloche/priv_proto.h"
#include "ipc/handover.h"
#include "priv/cgroup.h"
#include "priv/journal.h"

enum slot_state {
    SLOT_UNUSED,   /* never given out */
    SLOT_STARTING, /* the child has not reached its exec */
    SLOT_RUNNING,
    SLOT_ENDING, /* the process has ended; cgroups or the EXITED event are still to go */
    SLOT_ENDED,  /* free again; a request that crossed with EXITED may still come */
    SLOT_STATES
};

struct slot {
    enum slot_state state;
    bool killed;      /* SIGKILL was sent on a request, or because the start failed */
    bool spawned_due; /* events that the socket has not taken yet */
    bool exited_due;
    pid_t pid;
    int pidfd;     /* -1 when reaped */
    int report_fd; /* -1 when its end was reached */
    int32_t wait_status;
    unsigned retry_ms;        /* ENDING: pause before the next attempt to remove the cgroups */
    uint64_t retry_ns;        /* ENDING: when that is (CLOCK_MONOTONIC); 0: no attempt needed */
    char text[PRIV_TEXT_MAX]; /* for EXITED */
};

struct priv {
    struct handover_settings settings;
    struct journal_header journal;
    struct cgroup_tree cgroups;
    int proc_fd;
    int dev_fd; /* /dev */
    int null_fd;
    int self_pidfd;
    int epoll_fd;
    uint32_t host_mem_mib;
    bool has_total;       /* the daemon has said what all monitors may use */
    bool writing;         /* the control socket is watched for room as well */
    bool closed;          /* the daemon has gone */
    bool failed;          /* the daemon broke the protocol, or the kernel failed us */
    unsigned retry_count; /* slots with retry_ns */
    struct slot slots[SANDBOX_COUNT_MAX];
};

/* What an epoll event stands for: kind in the upper half, slot in the lower. */
enum watch { WATCH_CONTROL, WATCH_REPORT, WATCH_PROCESS };

/* Ends priv for good: one log line, then the main loop goes to its end. */
void priv_fail(struct priv *p, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold, nonnull));
