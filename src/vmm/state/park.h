/* Taking the snapshot: a booted guest has rung DOORBELL_PARK. */
#pragma once

#include "base/error.h"

struct vmm;

/* BOOT, before the jail closes: gets the room that park() needs, so that it need not allocate. */
int park_prepare(struct vmm *vmm, struct error *e) __attribute__((warn_unused_result));

/*
 * On the loop thread: stops all vCPUs right behind the store, serves what the guest has asked of
 * its devices, writes the state to VMM_FD_STATE, reports PARKED and ends the process. The memory
 * memfd then is the snapshot's memory.
 */
_Noreturn void park(struct vmm *vmm);
