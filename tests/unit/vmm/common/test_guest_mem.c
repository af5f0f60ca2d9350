#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cloche/guest_abi.h"
#include "vmm/common/guest_mem.h"

static uint8_t ram[64]; /* only addresses are made: nothing is touched */

static void test_small_guest(void **state)
{
    struct guest_mem m;

    (void)state;
    guest_mem_init(&m, ram, 1 << 20);
    assert_ptr_equal(guest_mem_at(&m, 0, 1), ram);
    assert_ptr_equal(guest_mem_at(&m, 0, 1 << 20), ram);
    assert_ptr_equal(guest_mem_at(&m, (1 << 20) - 1, 1), ram + (1 << 20) - 1);
    assert_null(guest_mem_at(&m, 0, (1 << 20) + 1));
    assert_null(guest_mem_at(&m, (1 << 20) - 1, 2));
    assert_null(guest_mem_at(&m, 1 << 20, 1));
    assert_null(guest_mem_at(&m, GUEST_GAP_GPA, 1));
    assert_null(guest_mem_at(&m, GUEST_HIGH_RAM_GPA, 1));
}

static void test_nothing_and_wrap(void **state)
{
    struct guest_mem m;

    (void)state;
    guest_mem_init(&m, ram, 1 << 20);
    assert_null(guest_mem_at(&m, 0, 0));
    assert_null(guest_mem_at(&m, 1 << 20, 0));
    assert_null(guest_mem_at(&m, UINT64_MAX, 1));
    assert_null(guest_mem_at(&m, UINT64_MAX, 2));
    assert_null(guest_mem_at(&m, 1, UINT64_MAX));
    assert_null(guest_mem_at(&m, 16, UINT64_MAX - 7));
    assert_null(guest_mem_at(&m, UINT64_C(1) << 63, UINT64_C(1) << 63));
    assert_null(guest_mem_at(&m, 0, UINT64_MAX));
}

static void test_both_parts(void **state)
{
    struct guest_mem m;
    uint64_t high = 3 * GUEST_PAGE_BYTES;

    (void)state;
    guest_mem_init(&m, ram, GUEST_GAP_GPA + high);
    assert_int_equal(m.low_bytes, GUEST_GAP_GPA);
    assert_int_equal(m.high_bytes, high);
    assert_ptr_equal(guest_mem_at(&m, GUEST_GAP_GPA - 1, 1), ram + GUEST_GAP_GPA - 1);
    assert_null(guest_mem_at(&m, GUEST_GAP_GPA - 1, 2));
    assert_null(guest_mem_at(&m, GUEST_GAP_GPA, 1));
    assert_null(guest_mem_at(&m, GUEST_HIGH_RAM_GPA - 1, 1));
    assert_null(guest_mem_at(&m, GUEST_HIGH_RAM_GPA - 1, 2));
    assert_ptr_equal(guest_mem_at(&m, GUEST_HIGH_RAM_GPA, high), ram + GUEST_GAP_GPA);
    assert_ptr_equal(guest_mem_at(&m, GUEST_HIGH_RAM_GPA + high - 1, 1),
                     ram + GUEST_GAP_GPA + high - 1);
    assert_null(guest_mem_at(&m, GUEST_HIGH_RAM_GPA + high - 1, 2));
    assert_null(guest_mem_at(&m, GUEST_HIGH_RAM_GPA + high, 1));
    assert_null(guest_mem_at(&m, 0, GUEST_HIGH_RAM_GPA + high)); /* across both parts */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_guest),
        cmocka_unit_test(test_nothing_and_wrap),
        cmocka_unit_test(test_both_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
