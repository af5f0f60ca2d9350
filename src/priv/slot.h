/* The life of one monitor, from SPAWN to EXITED. `slot` is below SANDBOX_COUNT_MAX throughout. */
#pragma once

#include <stdint.h>

#include "priv/cgroup.h"

struct priv;

/* Starts a monitor in a slot that is free. `control_fd` stays the caller's. What fails is told to
 * the daemon as EXITED. */
void slot_start(struct priv *p, uint32_t slot, const struct cgroup_caps *caps, int control_fd);
/* Changes the caps of a monitor that has not ended. */
void slot_limit(struct priv *p, uint32_t slot, const struct cgroup_caps *caps);
/* Kills a monitor that has not been reaped. */
void slot_kill(struct priv *p, uint32_t slot);

/* WATCH_REPORT: the child says why it could not start, or has reached its exec. */
void slot_on_report(struct priv *p, uint32_t slot);
/* WATCH_PROCESS: the process has ended. */
void slot_on_process(struct priv *p, uint32_t slot);

/* Tries again to remove cgroups whose time has come; returns how long to sleep in ms (-1: for
 * ever). */
int slot_retry_all(struct priv *p);

/* Sends the events that wait; called when the socket has room again. */
void slot_flush_all(struct priv *p);

/* Kills every monitor, waits for them and removes their cgroups, up to `timeout_ms`. Returns how
 * many slots are left. */
unsigned slot_end_all(struct priv *p, unsigned timeout_ms);
