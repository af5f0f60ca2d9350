/* Users and groups, from the text of the guest's files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accounts_by_name),
        cmocka_unit_test(test_accounts_by_number),
        cmocka_unit_test(test_groups),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
