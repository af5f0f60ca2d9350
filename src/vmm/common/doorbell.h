/*
 * The doorbell page (cloche/guest_abi.h) as a state machine of its own, because the guest may store
 * any value at any time and from any vCPU.
 *
 *   BOOT --PARK--> PARKING        RESTORED --FIRST--> FIRST --READY--> READY
 *
 * Each arrow is taken once; the vCPU that takes it acts on it. A value that fits no arrow is
 * ignored: a tenant with root in its guest may map the page, and all it may get from that is
 * nothing. FAILED ends the guest in every phase: whoever can ring it can also switch the guest off.
 * BOOTED fits no arrow either: it marks the boot's progress for who traces the exits.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

enum doorbell_phase {
    DOORBELL_PHASE_BOOT,
    DOORBELL_PHASE_PARKING,
    DOORBELL_PHASE_RESTORED,
    DOORBELL_PHASE_FIRST,
    DOORBELL_PHASE_READY,
};

enum doorbell_action {
    DOORBELL_ACT_NONE,
    DOORBELL_ACT_PARK,
    DOORBELL_ACT_FIRST,
    DOORBELL_ACT_READY,
    DOORBELL_ACT_FAILED, /* with enum guest_failure in ret_failure */
};

struct doorbell {
    _Atomic uint32_t phase; /* enum doorbell_phase */
};

void doorbell_init(struct doorbell *d, enum doorbell_phase phase);

/* A vCPU stored `value`: what it has to do now. */
enum doorbell_action doorbell_ring(struct doorbell *d, uint32_t value, uint32_t *ret_failure);
