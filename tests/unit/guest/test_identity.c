/* What the agent makes of the identity page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "guest/boot/identity.h"

static void test_identity_check(void **state)
{
    struct identity_page page = {
        .magic = IDENTITY_MAGIC, .version = IDENTITY_VERSION, .hostname = "sandbox"};

    (void)state;
    assert_int_equal(identity_check(&page), 0);
    page.version++;
    assert_int_equal(identity_check(&page), GUEST_FAILURE_IDENTITY);
    page.version--;
    page.magic ^= 1;
    assert_int_equal(identity_check(&page), GUEST_FAILURE_IDENTITY);
    page.magic ^= 1;
    page.reserved = 1;
    assert_int_equal(identity_check(&page), GUEST_FAILURE_IDENTITY);
    page.reserved = 0;
    memset(page.hostname, 'h', sizeof(page.hostname));
    assert_int_equal(identity_check(&page), GUEST_FAILURE_IDENTITY);
    page.hostname[sizeof(page.hostname) - 1] = '\0';
    assert_int_equal(identity_check(&page), 0);
    page.hostname[0] = '\0';
    assert_int_equal(identity_check(&page), GUEST_FAILURE_IDENTITY);
    memset(&page, 0, sizeof(page));
    assert_int_equal(identity_check(&page), GUEST_FAILURE_IDENTITY);
}

static void test_machine_id(void **state)
{
    static const uint8_t id[16] = {0x00, 0x0f, 0xf0, 0xff, 0x12, 0x34, 0x56, 0x78,
                                   0x9a, 0xbc, 0xde, 0xf1, 0x01, 0x10, 0xa5, 0x5a};
    char text[MACHINE_ID_BYTES];

    (void)state;
    identity_format_machine_id(id, text);
    assert_memory_equal(text, "000ff0ff123456789abcdef10110a55a\n", sizeof(text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity_check),
        cmocka_unit_test(test_machine_id),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
