/* One side of `cloche cp`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/commands/cp_place.h"

static const struct command command = {.name = "cp"};

static void expect_place(const char *text, const char *id, const char *path)
{
    struct cp_place place;
    struct error e = ERROR_INIT;

    assert_int_equal(cp_place_parse(&command, text, &place, &e), 0);
    assert_string_equal(place.id, id);
    assert_string_equal(place.path, path);
}

static void expect_refused(const char *text)
{
    struct cp_place place;
    struct error e = ERROR_INIT;

    assert_int_equal(cp_place_parse(&command, text, &place, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
}

static void tells_here_from_there(void **state)
{
    (void)state;
    expect_place("sb_1:/a/b", "sb_1", "/a/b");
    expect_place("sb_1:/a:b", "sb_1", "/a:b");
    expect_place("a:b", "", "a:b");
    expect_place("sb_1", "", "sb_1");
    expect_place("./sb_1:/a", "", "./sb_1:/a");
    expect_place("-", "", "-");
}

static void refuses_what_leads_nowhere(void **state)
{
    char text[CHANNEL_PATH_MAX + 8];

    (void)state;
    expect_refused("");
    expect_refused("sb_1:");
    expect_refused("sb_1:a");
    memset(text, 'x', sizeof(text));
    text[CHANNEL_PATH_MAX] = '\0';
    expect_refused(text);
    memcpy(text, "sb_", 3);
    text[SANDBOX_ID_BYTES_MAX] = ':';
    expect_refused(text);
}

static bool is_directory(const char *text)
{
    struct cp_place place;
    struct error e = ERROR_INIT;

    assert_int_equal(cp_place_parse(&command, text, &place, &e), 0);
    return cp_place_is_directory(&place);
}

/* A directory that is called as the streams are does not take their place. */
static void tells_streams_from_directories(void **state)
{
    char folder[] = "/tmp/cloche-test-place-XXXXXX";

    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(mkdir("-", 0700), 0);
    assert_false(is_directory("-"));
    assert_true(is_directory("./-"));
    assert_true(is_directory("."));
    assert_false(is_directory("none"));
    assert_false(is_directory("sb_1:/"));
    assert_int_equal(rmdir("-"), 0);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void makes_the_target(void **state)
{
    struct buffer target = BUFFER_INIT(64);
    const struct cp_place place = {.id = "sb_1", .path = "/a b&c"};
    struct error e = ERROR_INIT;

    (void)state;
    assert_int_equal(cp_place_target(&place, "/files", "&x=1", &target, &e), 0);
    assert_string_equal((const char *)buffer_bytes(&target),
                        "/v1/sandboxes/sb_1/files?path=%2Fa%20b%26c&x=1");
    buffer_fini(&target);
    target.size_max = 20;
    assert_int_equal(cp_place_target(&place, "/files", "", &target, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    buffer_fini(&target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_here_from_there),
        cmocka_unit_test(refuses_what_leads_nowhere),
        cmocka_unit_test(tells_streams_from_directories),
        cmocka_unit_test(makes_the_target),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
