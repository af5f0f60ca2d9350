/* Taking the snapshot: a booted guest has rung DOORBELL_PARK. */
#pragma once

#include <stdint.h>

#include "base/error.h"
#include "vmm/x86/vcpu_state.h"

struct machine;
struct snapshot;
struct vcpu;

struct park {
    struct machine *machine;
    int state_fd;
    struct msr_list msrs; /* what is saved */
    struct snapshot *state;
    uint8_t *bytes; /* room for the file, SNAPSHOT_BYTES_MAX */
};

/* BOOT, before the jail closes: gets the room that parking needs, so that it need not allocate, and
 * has the machine call park() with `p`, which stays where it is. */
int park_prepare(struct park *p, struct machine *m, int state_fd, struct error *e)
    __attribute__((warn_unused_result));

/*
 * On the thread of `self`, the vCPU that rang, which is stopped right behind the store: stops all
 * others, has the devices do what the guest has asked of them, writes the state to `state_fd`,
 * reports PARKED and ends the process. The memory memfd then is the snapshot's memory. The disks
 * may take their time over it: the loop still hears a daemon that goes away.
 */
_Noreturn void park(struct vcpu *self, void *p);
