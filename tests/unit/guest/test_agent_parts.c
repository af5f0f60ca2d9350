/* The agent's pure parts: accounts of the guest, the identity page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "guest/boot/identity.h"
#include "guest/exec/accounts.h"

static const char PASSWD[] = "root:x:0:0:root:/root:/bin/bash\n"
                             "broken line\n"
                             "half:x:12\n"
                             "negative:x:-1:1:::\n"
                             "large:x:4294967295:1:::\n"
                             "12:x:77:78:a name of digits:/:/bin/sh\n"
                             ":x:90:90::/:\n"
                             "app:x:1000:1001:App,,,:/home/app:/bin/sh\n"
                             "last:x:1002:1002::/:/bin/sh";

static const char GROUP[] = "root:x:0:\n"
                            "adm:x:4:syslog,app\n"
                            "app:x:1001:app\n"
                            "bad:x:no:app\n"
                            "apps:x:5:appx,xapp\n"
                            "users:x:100:last,app";

static bool find(const char *who, struct account *ret_account)
{
    return accounts_find(PASSWD, sizeof(PASSWD) - 1, who, ret_account);
}

static void test_accounts_by_name(void **state)
{
    struct account a;

    (void)state;
    assert_true(find("app", &a));
    assert_int_equal(a.uid, 1000);
    assert_int_equal(a.gid, 1001);
    assert_string_equal(a.name, "app");
    assert_true(find("last", &a));
    assert_int_equal(a.uid, 1002);
    assert_false(find("ap", &a));
    assert_false(find("half", &a));
    assert_false(find("negative", &a));
    assert_false(find("large", &a));
    assert_false(find("broken line", &a));
    assert_false(find("", &a));
}

static void test_accounts_by_number(void **state)
{
    struct account a;

    (void)state;
    assert_true(find("1000", &a));
    assert_string_equal(a.name, "app");
    /* A name wins over a number. */
    assert_true(find("12", &a));
    assert_int_equal(a.uid, 77);
    assert_true(find("5555", &a));
    assert_int_equal(a.uid, 5555);
    assert_int_equal(a.gid, 5555);
    assert_string_equal(a.name, "");
    assert_false(find("4294967295", &a));
    assert_false(find("99999999999", &a));
    assert_false(find("-1", &a));
    assert_false(find("1000 ", &a));
    assert_true(accounts_find(NULL, 0, "7", &a));
    assert_false(accounts_find(NULL, 0, "app", &a));
}

static void test_groups(void **state)
{
    gid_t groups[8];
    struct account a;

    (void)state;
    assert_true(find("app", &a));
    assert_int_equal(accounts_groups(GROUP, sizeof(GROUP) - 1, &a, groups, 8), 3);
    assert_int_equal(groups[0], 1001);
    assert_int_equal(groups[1], 4);
    assert_int_equal(groups[2], 100);
    assert_int_equal(accounts_groups(GROUP, sizeof(GROUP) - 1, &a, groups, 2), 2);
    assert_true(find("5555", &a));
    assert_int_equal(accounts_groups(GROUP, sizeof(GROUP) - 1, &a, groups, 8), 1);
    assert_int_equal(accounts_groups(NULL, 0, &a, groups, 8), 1);
}

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
        cmocka_unit_test(test_accounts_by_name), cmocka_unit_test(test_accounts_by_number),
        cmocka_unit_test(test_groups),           cmocka_unit_test(test_identity_check),
        cmocka_unit_test(test_machine_id),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
