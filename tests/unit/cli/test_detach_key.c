/* The key sequence that detaches from a terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/terminal/detach_key.h"

/* What goes to the guest of keys that are typed one at a time, or all at once. */
static void expect_keys(const char *typed, const char *keys, bool detaches)
{
    for (size_t piece = 1; piece <= 100; piece += 99) {
        struct detach_key k = {0};
        uint8_t passed[128];
        size_t used = 0, size = strlen(typed);
        bool has_detached = false;

        for (size_t at = 0; at < size && !has_detached; at += piece) {
            size_t n = size - at < piece ? size - at : piece, count = 0;
            has_detached =
                detach_key_filter(&k, (const uint8_t *)typed + at, n, passed + used, &count);
            assert_true(count <= n + 1);
            used += count;
        }
        assert_int_equal(has_detached, detaches);
        assert_int_equal(used, strlen(keys));
        assert_memory_equal(passed, keys, used);
    }
}

static void passes_other_keys_on(void **state)
{
    (void)state;
    expect_keys("ls -l\r", "ls -l\r", false);
    expect_keys("ls ~.\r", "ls ~.\r", false);
    expect_keys("~/bin\r", "~/bin\r", false);
    expect_keys("~~.\r", "~.\r", false);
    expect_keys("~a~.", "~a~.", false);
}

static void detaches_at_the_beginning_of_a_line(void **state)
{
    (void)state;
    expect_keys("~.", "", true);
    expect_keys("ls\r~.more", "ls\r", true);
    expect_keys("ls\n~.", "ls\n", true);
    expect_keys("\r~\r~.", "\r~\r", true);
    expect_keys("\003\r~.", "\003\r", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_other_keys_on),
        cmocka_unit_test(detaches_at_the_beginning_of_a_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
