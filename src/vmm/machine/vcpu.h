/*
 * vCPUs: their threads and the loop around KVM_RUN. A guest can cause any exit at any rate, so
 * nothing in here allocates or logs, or waits but for a device that the guest resets while it is
 * busy (virtio/device.h); what it cannot handle ends the guest with a reason.
 */
#pragma once

#include "base/error.h"

struct machine;
struct vcpu;

/* Makes the threads of all vCPUs but the first; they arrive at `started` and wait for START. */
int vcpu_make_threads(struct machine *m, struct error *e) __attribute__((warn_unused_result));

/* Lets all of them run, and runs the first one in this thread. */
_Noreturn void vcpu_run_all(struct machine *m);

/* Called by m->park on the thread of vCPU `self`: kicks all others and returns when they have
 * stopped, each with its last exit complete. */
void vcpu_stop_others(struct vcpu *self);
