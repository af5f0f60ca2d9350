/* The agent's patterns for paths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "guest/files/glob.h"

static void test_match(void **state)
{
    static const struct {
        const char *pattern, *path;
        bool matches;
    } cases[] = {
        {"a", "a", true},
        {"a", "b", false},
        {"a", "a/b", false},
        {"a/b", "a", false},
        {"*", "", false},
        {"*", "abc", true},
        {"*", ".hidden", true},
        {"*", "a/b", false},
        {"*/*", "a/b", true},
        {"*.py", "a.py", true},
        {"*.py", ".py", true},
        {"*.py", "a.pyc", false},
        {"a*b*c", "aXbYbZc", true},
        {"a*b*c", "aXbYbZ", false},
        {"?", "a", true},
        {"?", "\xc3\xbc", true},
        {"?", "\xbc", true},
        {"?", "ab", false},
        {"*??", "\xe2\x82\xac", false},
        {"*?", "\xe2\x82\xac", true},
        {"[abc]", "b", true},
        {"[a-c]x", "cx", true},
        {"[a-c]", "d", false},
        {"[!a-c]", "d", true},
        {"[^a-c]", "b", false},
        {"[]]", "]", true},
        {"[]a]", "a", true},
        {"[a-]", "-", true},
        {"[\\]]", "]", true},
        {"[\xc3\xa4-\xc3\xbc]", "\xc3\xb6", true},
        {"[\xc3\xa4-\xc3\xbc]", "a", false},
        {"[", "[", true},
        {"[a", "[a", true},
        {"[a", "a", false},
        {"\\*", "*", true},
        {"\\*", "a", false},
        {"a\\", "a\\", true},
        {"\xff*", "\xff\xfe", true},
        {"**", "a", true},
        {"**", "a/b/c", true},
        {"**/c", "c", true},
        {"**/c", "a/b/c", true},
        {"**/c", "a/c/b", false},
        {"a/**", "a/b/c", true},
        {"a/**", "b/a", false},
        {"a/**/z", "a/z", true},
        {"a/**/z", "a/b/c/z", true},
        {"a/**/m/**/z", "a/m/b/m/c/z", true},
        {"a/**/m/**/z", "a/b/c/z", false},
        {"**/*.py", "x/y.py", true},
        {"a**b", "aXXb", true},
        {"a**b", "a/b", false},
        {"a//b", "a/b", false},
        {"", "a", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (glob_match(cases[i].pattern, cases[i].path) != cases[i].matches)
            fail_msg("%s on %s", cases[i].pattern, cases[i].path);
    }
}

static void test_leads(void **state)
{
    static const struct {
        const char *pattern, *path;
        bool leads;
    } cases[] = {
        {"a", "a", false},       {"a/b", "a", true},     {"a/b", "b", false},
        {"*/b", "x", true},      {"*/b", "x/y", false},  {"**", "x/y/z", true},
        {"a/**", "a", true},     {"a/**/z", "b", false}, {"a/**/z", "a/b/c", true},
        {"a/b/c", "a/b/", true}, {"*", "a", false},      {"", "a", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (glob_leads(cases[i].pattern, cases[i].path) != cases[i].leads)
            fail_msg("%s under %s", cases[i].pattern, cases[i].path);
    }
}

/* Whatever matches lies where a search looks for it, and a pattern of one name matches only that.
 */
static void test_random_walk(void **state)
{
    static const char letters[] = "ab/*?[]!-\\\xc3\xbc\xff";
    uint64_t x = 88172645463325252u;

    (void)state;
    for (unsigned i = 0; i < 300000; i++) {
        char text[2][16];

        for (unsigned k = 0; k < 2; k++) {
            size_t length;
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            length = x % 12;
            for (size_t at = 0; at < length; at++)
                text[k][at] = letters[(x >> (4 * at + 8)) % (sizeof(letters) - 1)];
            text[k][length] = '\0';
        }
        if (strstr(text[1], "//") != NULL || text[1][0] == '/' || text[1][0] == '\0' ||
            text[1][strlen(text[1]) - 1] == '/' || !glob_match(text[0], text[1]))
            continue;
        for (char *slash = strchr(text[1], '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
            *slash = '\0';
            if (slash > text[1] && !glob_leads(text[0], text[1]))
                fail_msg("%s does not lead from %s", text[0], text[1]);
            *slash = '/';
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_leads),
        cmocka_unit_test(test_random_walk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
