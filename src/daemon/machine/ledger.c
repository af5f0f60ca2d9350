#include "daemon/machine/ledger.h"

#include <assert.h>

#include "cloche/limits.h"

void ledger_init(struct ledger *l, uint32_t host_mem_mib, uint32_t reserve_mem_mib,
                 uint32_t overcommit_percent)
{
    uint64_t offered_mib = host_mem_mib > reserve_mem_mib ? host_mem_mib - reserve_mem_mib : 0;

    *l = (struct ledger){
        .limit = {.monitors = SANDBOX_COUNT_MAX, .mib = offered_mib * overcommit_percent / 100},
        .host_mem_mib = host_mem_mib,
        .reserve_mem_mib = reserve_mem_mib,
        .overcommit_percent = overcommit_percent};
}

void ledger_sum_add(struct ledger_sum *sum, unsigned monitors, uint32_t mem_mib)
{
    sum->monitors += monitors;
    sum->mib += monitors * ((uint64_t)mem_mib + VMM_OVERHEAD_MIB);
}

static bool fits(const struct ledger *l, const struct ledger_sum *guests,
                 const struct ledger_sum *spare)
{
    return guests->monitors + spare->monitors <= l->limit.monitors &&
           guests->mib + spare->mib <= l->limit.mib;
}

bool ledger_fits(const struct ledger *l, const struct ledger_sum *spare)
{
    return fits(l, &l->guests, spare);
}

bool ledger_fits_another(const struct ledger *l, const struct ledger_sum *spare, uint32_t mem_mib)
{
    struct ledger_sum sum = *spare;

    ledger_sum_add(&sum, 1, mem_mib);
    return fits(l, &l->guests, &sum);
}

static int refuse(const struct ledger *l, uint32_t mem_mib, struct error *e)
{
    if (l->guests.monitors >= l->limit.monitors) {
        (void)error_set(e, ERR_NO_CAPACITY, "all %u guests that one daemon can run are in use",
                        l->limit.monitors);
        return error_remedy(e, "delete sandboxes");
    }
    (void)error_set(e, ERR_NO_CAPACITY,
                    "%u MiB and %u MiB for its monitor do not fit: %llu of %llu MiB are promised",
                    mem_mib, VMM_OVERHEAD_MIB, (unsigned long long)l->guests.mib,
                    (unsigned long long)l->limit.mib);
    (void)error_cause(e,
                      "the host has %u MiB, %u MiB are kept in reserve, the rest is promised "
                      "%u.%02u times",
                      l->host_mem_mib, l->reserve_mem_mib, l->overcommit_percent / 100,
                      l->overcommit_percent % 100);
    return error_remedy(e, "delete sandboxes, ask for less mem_mib, or raise memory_overcommit in "
                           "the configuration");
}

int ledger_admit(struct ledger *l, uint32_t mem_mib, struct error *e)
{
    static const struct ledger_sum nothing = {0};

    if (!ledger_fits_another(l, &nothing, mem_mib))
        return refuse(l, mem_mib, e);
    ledger_sum_add(&l->guests, 1, mem_mib);
    return 0;
}

void ledger_release(struct ledger *l, uint32_t mem_mib)
{
    struct ledger_sum one = {0};

    ledger_sum_add(&one, 1, mem_mib);
    assert(l->guests.monitors >= one.monitors && l->guests.mib >= one.mib);
    l->guests.monitors -= one.monitors;
    l->guests.mib -= one.mib;
}
