#include "vmm/common/doorbell.h"

#include <stddef.h>

#include "cloche/guest_abi.h"

static const struct {
    uint32_t value;
    enum doorbell_phase from;
    enum doorbell_phase to;
    enum doorbell_action action;
} arrows[] = {
    {DOORBELL_PARK, DOORBELL_PHASE_BOOT, DOORBELL_PHASE_PARKING, DOORBELL_ACT_PARK},
    {DOORBELL_FIRST, DOORBELL_PHASE_RESTORED, DOORBELL_PHASE_FIRST, DOORBELL_ACT_FIRST},
    {DOORBELL_READY, DOORBELL_PHASE_FIRST, DOORBELL_PHASE_READY, DOORBELL_ACT_READY},
};

void doorbell_init(struct doorbell *d, enum doorbell_phase phase)
{
    atomic_init(&d->phase, phase);
}

enum doorbell_action doorbell_ring(struct doorbell *d, uint32_t value, uint32_t *ret_failure)
{
    if ((value & ~UINT32_C(0xff)) == DOORBELL_FAILED) {
        *ret_failure = value & 0xff;
        return DOORBELL_ACT_FAILED;
    }
    for (size_t i = 0; i < sizeof(arrows) / sizeof(arrows[0]); i++) {
        uint32_t from = arrows[i].from;

        if (arrows[i].value == value &&
            atomic_compare_exchange_strong(&d->phase, &from, arrows[i].to))
            return arrows[i].action;
    }
    return DOORBELL_ACT_NONE;
}
