/*
 * Begins a test program in the middle: TEST_FIRST=N leaves out the first N of its tests. For
 * tests/run.py, which runs what is behind a test that hung or crashed. Linked to every test program
 * with --wrap, so that none of them knows of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

int __real__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t count,
                                   CMFixtureFunction set_up, CMFixtureFunction tear_down);
int __wrap__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t count,
                                   CMFixtureFunction set_up, CMFixtureFunction tear_down);

int __wrap__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t count,
                                   CMFixtureFunction set_up, CMFixtureFunction tear_down)
{
    const char *text = getenv("TEST_FIRST");
    size_t first = text != NULL ? strtoul(text, NULL, 10) : 0;

    if (first > count) {
        (void)fprintf(stderr, "TEST_FIRST=%s, but there are %zu tests\n", text, count);
        return 1;
    }
    return __real__cmocka_run_group_tests(name, tests + first, count - first, set_up, tear_down);
}
