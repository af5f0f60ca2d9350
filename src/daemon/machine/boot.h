/*
 * Making a snapshot: format a scratch disk, boot the guest kernel on the template in a jailed
 * monitor like any other, wait until the agent parks, seal what it leaves behind and write it to
 * disk.
 */
#pragma once

#include "base/error.h"
#include "daemon/machine/snapshot_store.h"

struct boot;
struct machine;
struct template;

/* `snapshot` is the receiver's now; on failure it is NULL and `e` says why. */
typedef void (*boot_done_fn)(const struct snapshot *snapshot, const struct error *e, void *context);

/* Starts it; `done` is called once, later. NULL when memory is short. */
struct boot *boot_start(const struct machine *machine, const struct template *t,
                        const struct snapshot_key *key, boot_done_fn done, void *context)
    __attribute__((warn_unused_result));

/* The daemon stops: `done` is not called any more; the rest is cleaned up by itself. */
void boot_cancel(struct boot *b);
