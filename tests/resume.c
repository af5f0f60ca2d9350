/*
 * Runs a part of a test program. TEST_FIRST=N leaves out the first N of its tests: tests/run.py
 * does so with what is behind a test that hung or crashed. TEST_LEAVE="NAME NAME" leaves out some
 * by name, each of which must be there. Linked to every test program with --wrap, so that none
 * knows of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TESTS_MAX 500

int __real__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t count,
                                   CMFixtureFunction set_up, CMFixtureFunction tear_down);
int __wrap__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t count,
                                   CMFixtureFunction set_up, CMFixtureFunction tear_down);

/* Is `name` one of the words of `text`? */
static bool has_word(const char *text, const char *name)
{
    size_t size = strlen(name);

    for (const char *at = text; (at = strstr(at, name)) != NULL; at += size)
        if ((at == text || at[-1] == ' ') && (at[size] == ' ' || at[size] == '\0'))
            return true;
    return false;
}

static size_t count_words(const char *text)
{
    size_t count = 0;

    for (const char *at = text; *at != '\0'; at++)
        count += *at != ' ' && (at[1] == ' ' || at[1] == '\0');
    return count;
}

int __wrap__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t count,
                                   CMFixtureFunction set_up, CMFixtureFunction tear_down)
{
    static struct CMUnitTest kept[TESTS_MAX];
    const char *first_text = getenv("TEST_FIRST"), *leave = getenv("TEST_LEAVE");
    size_t first = first_text != NULL ? strtoul(first_text, NULL, 10) : 0, used = 0;

    if (leave == NULL)
        leave = "";
    if (first > count || count > TESTS_MAX) {
        (void)fprintf(stderr, "cannot begin at test %zu of %zu\n", first, count);
        return 1;
    }
    for (size_t i = 0; i < count; i++)
        if (!has_word(leave, tests[i].name))
            kept[used++] = tests[i];
    if (used + count_words(leave) != count) {
        (void)fprintf(stderr, "TEST_LEAVE names what is not there: %s\n", leave);
        return 1;
    }
    return __real__cmocka_run_group_tests(name, kept + first, used - first, set_up, tear_down);
}
