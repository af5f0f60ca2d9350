/* What may be promised, and what is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "cloche/limits.h"
#include "daemon/machine/ledger.h"

#define GUEST_MIB 936u /* and its monitor: 1000 */

_Static_assert(GUEST_MIB + VMM_OVERHEAD_MIB == 1000, "round numbers below");

static const struct ledger_sum nothing = {0};

static unsigned admit_all(struct ledger *l)
{
    struct error e = ERROR_INIT;
    unsigned count = 0;

    while (ledger_admit(l, GUEST_MIB, &e) == 0)
        count++;
    assert_int_equal(e.code, ERR_NO_CAPACITY);
    return count;
}

static void the_host_less_the_reserve_is_promised_once(void **state)
{
    struct ledger l;

    (void)state;
    ledger_init(&l, 10500, 500, 100);
    assert_int_equal(admit_all(&l), 10);
    ledger_init(&l, 10499, 500, 100);
    assert_int_equal(admit_all(&l), 9);
    ledger_init(&l, 500, 500, 100);
    assert_int_equal(admit_all(&l), 0);
    ledger_init(&l, 500, 501, 6400);
    assert_int_equal(admit_all(&l), 0);
}

static void overcommit_promises_more(void **state)
{
    struct ledger l;

    (void)state;
    ledger_init(&l, 10500, 500, 250);
    assert_int_equal(admit_all(&l), 25);
    ledger_init(&l, 10000, 0, 101);
    assert_int_equal(admit_all(&l), 10);
    /* The largest host that can be told, as often as can be asked: no overflow. */
    ledger_init(&l, UINT32_MAX, 0, 6400);
    assert_true(l.limit.mib == UINT64_C(64) * UINT32_MAX);
}

static void what_is_released_is_promised_again(void **state)
{
    struct ledger l;
    struct error e = ERROR_INIT;

    (void)state;
    ledger_init(&l, 2999, 0, 100);
    assert_int_equal(admit_all(&l), 2);
    ledger_release(&l, GUEST_MIB);
    assert_int_equal(ledger_admit(&l, GUEST_MIB + 1000, &e), -1);
    assert_int_equal(ledger_admit(&l, GUEST_MIB + 999, &e), 0);
    ledger_release(&l, GUEST_MIB + 999);
    ledger_release(&l, GUEST_MIB);
    assert_int_equal(l.guests.monitors, 0);
    assert_int_equal(l.guests.mib, 0);
}

static void a_refusal_has_numbers_and_a_remedy(void **state)
{
    struct ledger l;
    struct error e = ERROR_INIT;

    (void)state;
    ledger_init(&l, 2500, 500, 150);
    assert_int_equal(admit_all(&l), 3);
    assert_int_equal(ledger_admit(&l, 777, &e), -1);
    assert_non_null(strstr(e.message, "777 MiB"));
    assert_non_null(strstr(e.message, "3000 of 3000 MiB"));
    assert_non_null(strstr(e.cause, "2500 MiB"));
    assert_non_null(strstr(e.cause, "500 MiB"));
    assert_non_null(strstr(e.cause, "1.50 times"));
    assert_non_null(strstr(e.remedy, "memory_overcommit"));
}

/* Shells are no reason to refuse a guest, but they count when it is asked what fits. */
static void shells_count_and_refuse_nobody(void **state)
{
    struct ledger l;
    struct ledger_sum spare = {0};
    struct error e = ERROR_INIT;

    (void)state;
    ledger_init(&l, 4000, 0, 100);
    ledger_sum_add(&spare, 3, GUEST_MIB);
    assert_int_equal(ledger_admit(&l, GUEST_MIB, &e), 0);
    assert_true(ledger_fits(&l, &spare));
    assert_true(ledger_fits_another(&l, &nothing, GUEST_MIB));
    assert_false(ledger_fits_another(&l, &spare, GUEST_MIB));
    assert_int_equal(ledger_admit(&l, GUEST_MIB, &e), 0);
    assert_false(ledger_fits(&l, &spare));
}

static void monitors_are_bounded_too(void **state)
{
    struct ledger l;
    struct ledger_sum spare = {0};
    struct error e = ERROR_INIT;

    (void)state;
    ledger_init(&l, UINT32_MAX, 0, 6400);
    ledger_sum_add(&spare, SANDBOX_COUNT_MAX, GUEST_MIB);
    assert_true(ledger_fits(&l, &spare));
    assert_false(ledger_fits_another(&l, &spare, GUEST_MIB));
    assert_int_equal(admit_all(&l), SANDBOX_COUNT_MAX);
    assert_int_equal(ledger_admit(&l, GUEST_MIB, &e), -1);
    assert_non_null(strstr(e.message, "guests"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_less_the_reserve_is_promised_once),
        cmocka_unit_test(overcommit_promises_more),
        cmocka_unit_test(what_is_released_is_promised_again),
        cmocka_unit_test(a_refusal_has_numbers_and_a_remedy),
        cmocka_unit_test(shells_count_and_refuse_nobody),
        cmocka_unit_test(monitors_are_bounded_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
