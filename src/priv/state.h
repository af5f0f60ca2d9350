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
    bool writing;         /* the control socket is watched for room as well */
    bool closed;          /* the daemon has gone */
    bool failed;          /* the daemon broke the protocol, or the kernel failed us */
    unsigned retry_count; /* slots with retry_ns */
    struct slot slots[SANDBOX_COUNT_MAX];
};

/* What an epoll event stands for: kind in the upper half, slot in the lower. */
enum watch { WATCH_CONTROL, WATCH_REPORT, WATCH_PROCESS };

/* request.c: takes what has come on the control socket. */
void request_receive(struct priv *p);

/* Ends priv for good: one log line, then the main loop goes to its end. */
void priv_fail(struct priv *p, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold, nonnull));

/* slot.c: the life of one monitor. */
void slot_start(struct priv *p, uint32_t slot, const struct cgroup_caps *caps, int control_fd);
void slot_limit(struct priv *p, uint32_t slot, const struct cgroup_caps *caps);
void slot_kill(struct priv *p, uint32_t slot);
void slot_on_report(struct priv *p, uint32_t slot);
void slot_on_process(struct priv *p, uint32_t slot);

/* Tries again to remove cgroups whose time has come; returns how long to sleep (-1: for ever). */
int slot_retry_all(struct priv *p);

/* Sends the events that wait; called when the socket has room again. */
void slot_flush_all(struct priv *p);

/* Kills every monitor, waits for them and removes their cgroups, up to `timeout_ms`. Returns how
 * many slots are left. */
unsigned slot_end_all(struct priv *p, unsigned timeout_ms);

/* recover.c: removes what an earlier instance left, then starts the journal anew. */
int recover_run(struct priv *p, struct error *e) __attribute__((warn_unused_result));
