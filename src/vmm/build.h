/* From CONFIG to a machine that only waits for START. */
#pragma once

#include "base/error.h"
#include "cloche/vmm_proto.h"

struct vmm;

/* Builds the guest that `vmm->config` and `vmm->fds` describe, its devices and its threads; loads a
 * kernel or a snapshot into it and closes what is not needed any more. On failure *ret_reason says
 * what kind it is. */
int build_guest(struct vmm *vmm, enum vmm_gone_reason *ret_reason, struct error *e)
    __attribute__((warn_unused_result));
