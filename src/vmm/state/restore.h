/*
 * Going on from a snapshot, in two steps: all that does not depend on when the guest starts is
 * loaded while nobody waits (before BUILT), the rest at START. In between the guest exists, but not
 * one of its instructions runs and no device touches its memory.
 */
#pragma once

#include "base/error.h"
#include "cloche/vmm_proto.h"

struct machine;
struct snapshot;

/* Reads and parses a state file. The snapshot is the caller's, and *ret_bytes behind it too. */
int restore_read(int fd, struct snapshot **ret_snapshot, uint8_t **ret_bytes, struct error *e)
    __attribute__((warn_unused_result));

/* Checks that the snapshot belongs here and loads it into the machine and its devices. */
int restore_load(struct machine *m, const struct snapshot *s, struct error *e)
    __attribute__((warn_unused_result));

/* START: writes the identity page and lets the guest's time go on where it stopped. */
int restore_start(struct machine *m, const struct identity_page *identity, struct error *e)
    __attribute__((warn_unused_result));
