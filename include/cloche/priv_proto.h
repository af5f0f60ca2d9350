/*
 * Daemon and priv: fixed-size messages over one SOCK_SEQPACKET pair, host byte order. priv assumes
 * that the daemon has been taken over: it acts only on what it has started itself, takes no path,
 * name or pid from a message, and ends at the first message that does not fit.
 *
 *   TOTAL (memory)                   ->       once, before any SPAWN; no reply
 *   SPAWN (slot, caps) + control fd  ->   <-  SPAWNED (slot, pid): the monitor's program runs;
 *                                             or EXITED with what failed
 *   LIMIT (slot, caps)               ->       no reply; a failure is in the text of EXITED
 *   KILL (slot)                      ->   <-  EXITED
 *
 * EXITED comes once for each SPAWN, also unasked when a monitor ends by itself: the process is
 * reaped, its cgroups and its journal record are removed, and the slot is free again. A LIMIT or
 * KILL that crosses with it is ignored. When the socket closes, priv kills every monitor, removes
 * all that it made and the daemon's socket, and exits.
 */
#pragma once

#include <stdint.h>

#include "cloche/limits.h"

enum priv_message_type {
    PRIV_SPAWN = 1,
    PRIV_LIMIT = 2,
    PRIV_KILL = 3,
    PRIV_TOTAL = 4,
    PRIV_SPAWNED = 16,
    PRIV_EXITED = 17,
};

/* What a type does not have is 0. */
struct priv_request {
    uint32_t type;
    uint32_t slot;              /* below SANDBOX_COUNT_MAX; SPAWN: one that is free; TOTAL: 0 */
    uint32_t mem_max_mib;       /* SPAWN, LIMIT: of the monitor's cgroup, guest memory included;
                                   TOTAL: of the cgroup around all of them; priv takes no more than
                                   the host has */
    uint32_t cpu_quota_percent; /* SPAWN, LIMIT: 100 is one host CPU */
    uint32_t pids_max;          /* SPAWN, LIMIT: threads */
    uint32_t reserved;
};

#define PRIV_TEXT_MAX 256u

struct priv_event {
    uint32_t type;
    uint32_t slot;
    int32_t pid;              /* as the host sees it; EXITED: 0 where no process was made */
    int32_t wait_status;      /* EXITED: as waitpid(2) gives it; -1: its program never ran */
    char text[PRIV_TEXT_MAX]; /* EXITED: what failed, or why it was killed; "": nothing to say */
};
