/*
 * Daemon and priv: fixed-size messages over one SOCK_SEQPACKET pair, host byte order. priv assumes
 * that the daemon has been taken over: it acts only on slots that it gave out, takes no path, name
 * or pid from a message, and ends at the first message that does not fit.
 *
 *   SPAWN (slot, caps) + control fd  ->   <-  SPAWNED (slot, pid, uid) or EXITED with an error text
 *   LIMIT (slot, caps)               ->       (no reply; the next event says if it failed)
 *   KILL (slot)                      ->   <-  EXITED (slot, wait status): process reaped, cgroup
 * and journal entry removed; the slot is free again
 *
 * EXITED also comes unasked when a monitor ends by itself. When the socket closes, priv kills every
 * monitor, removes all that the journal names, and exits.
 */
#pragma once

#include <stdint.h>

#include "cloche/limits.h"

/* Descriptors that priv is started with. */
#define PRIV_CONTROL_FD 3

enum priv_message_type {
    PRIV_SPAWN = 1,
    PRIV_LIMIT = 2,
    PRIV_KILL = 3,
    PRIV_SPAWNED = 16,
    PRIV_EXITED = 17,
};

struct priv_request {
    uint32_t type;
    uint32_t slot;              /* below SANDBOX_COUNT_MAX; SPAWN: one that is free */
    uint32_t mem_max_mib;       /* SPAWN, LIMIT: of the monitor's cgroup, guest memory included */
    uint32_t cpu_quota_percent; /* SPAWN, LIMIT: 100 is one host CPU */
    uint32_t pids_max;          /* SPAWN, LIMIT: threads */
    uint32_t reserved;
};

#define PRIV_TEXT_MAX 256u

struct priv_event {
    uint32_t type;
    uint32_t slot;
    int32_t pid;              /* SPAWNED: as the host sees it */
    int32_t wait_status;      /* EXITED: as waitpid(2) gives it; -1 where nothing was started */
    char text[PRIV_TEXT_MAX]; /* EXITED with -1: what failed, in words */
};
