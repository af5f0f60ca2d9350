/* The Range header: what is one range of bytes, and where it lies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http/range.h"

#define MAX ((uint64_t)INT64_MAX)

/* Parses from memory of the exact size. */
static bool parse(const char *text, struct http_range *ret_range)
{
    size_t size = strlen(text);
    char *copy = malloc(size > 0 ? size : 1);

    assert_non_null(copy);
    memcpy(copy, text, size);
    bool is_range = http_range_parse((struct http_span){copy, size}, ret_range);
    free(copy);
    return is_range;
}

static void test_ranges(void **state)
{
    static const struct {
        const char *value;
        struct http_range range;
    } cases[] = {
        {"bytes=0-0", {false, 0, 1}},
        {"bytes=5-9", {false, 5, 5}},
        {"BYTES=5-", {false, 5, UINT64_MAX}},
        {"bytes=-5", {true, 0, 5}},
        {"bytes=-0", {true, 0, 0}},
        {"bytes= 1-2 ,", {false, 1, 2}},
        {"bytes=0-99999999999999999999999", {false, 0, MAX + 1}},
        {"bytes=99999999999999999999999-", {false, MAX, UINT64_MAX}},
        {"bytes=-99999999999999999999999", {true, 0, MAX}},
        {"bytes=9223372036854775807-9223372036854775807", {false, MAX, 1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct http_range r = {0};

        if (!parse(cases[i].value, &r))
            fail_msg("no range: %s", cases[i].value);
        assert_int_equal(r.is_suffix, cases[i].range.is_suffix);
        assert_true(r.first == cases[i].range.first);
        assert_true(r.length == cases[i].range.length);
    }
}

static void test_what_is_ignored(void **state)
{
    static const char *const values[] = {
        "",          "bytes",       "bytes=",     "bytes=,",     "bytes=-",     "bytes=a-",
        "bytes=1-x", "bytes=1-2x",  "bytes=2-1",  "bytes=1-2,3", "bytes=0-,-1", "byte=1-2",
        "bytes 1-2", "bytes=1 - 2", "bytes=+1-2", "bytes=--1",   "bytes=0x1-2", "bytes=1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct http_range r = {.first = 77};

        if (parse(values[i], &r))
            fail_msg("a range: %s", values[i]);
        assert_int_equal(r.first, 77);
    }
}

static void test_resolve(void **state)
{
    static const struct {
        struct http_range range;
        uint64_t size;
        uint64_t first, length; /* length 0: unsatisfiable */
    } cases[] = {
        {{false, 0, 1}, 1, 0, 1},
        {{false, 0, UINT64_MAX}, 10, 0, 10},
        {{false, 9, 5}, 10, 9, 1},
        {{false, 10, 5}, 10, 0, 0},
        {{false, MAX, UINT64_MAX}, 10, 0, 0},
        {{false, 0, 1}, 0, 0, 0},
        {{true, 0, 3}, 10, 7, 3},
        {{true, 0, 30}, 10, 0, 10},
        {{true, 0, 0}, 10, 0, 0},
        {{true, 0, 5}, 0, 0, 0},
        {{false, 5, MAX + 1}, MAX, 5, MAX - 5},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t first = 0, length = 0;
        bool fits = http_range_resolve(&cases[i].range, cases[i].size, &first, &length);

        assert_int_equal(fits, cases[i].length > 0);
        assert_true(first == cases[i].first);
        assert_true(length == cases[i].length);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_what_is_ignored),
        cmocka_unit_test(test_resolve),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
