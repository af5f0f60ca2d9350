/* Requests to the guest: what fits, and what is said where it does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/link/agent_message.h"

static int pack_exec(struct buffer *request, const char *const *argv, const char *const *env,
                     struct error *e)
{
    const struct agent_command command = {
        .umask = CHANNEL_UMASK_DEFAULT, .user = "", .cwd = "/", .argv = argv, .env = env};

    return agent_request_exec(request, &command, e);
}

/* The largest command goes out whole; a byte more is the client's fault, in words that name it. */
static void test_largest_command(void **state)
{
    static const char *const none[] = {NULL};
    /* Op, flags, rows, columns, umask, user, cwd, limits, argv's and env's counts and lengths. */
    const size_t head = 2 + 4 + 2 + 2 + 4 + 4 + (4 + 1) + 4 + (4 + 4) + 4;
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct error e = ERROR_INIT;
    char *text = malloc(CHANNEL_OPEN_MAX);

    (void)state;
    assert_non_null(text);
    memset(text, 'x', CHANNEL_OPEN_MAX);
    text[CHANNEL_OPEN_MAX - head] = '\0';
    const char *argv[] = {text, NULL};
    assert_int_equal(pack_exec(&request, argv, none, &e), 0);
    assert_int_equal(request.size, CHANNEL_OPEN_MAX);
    buffer_fini(&request);
    text[CHANNEL_OPEN_MAX - head] = 'x';
    text[CHANNEL_OPEN_MAX - head + 1] = '\0';
    assert_int_equal(pack_exec(&request, argv, none, &e), -1);
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_non_null(strstr(e.message, "argv and env"));
    assert_int_equal(request.size, 0);
    free(text);
    buffer_fini(&request);
}

static void test_most_arguments(void **state)
{
    static const char *const none[] = {NULL};
    static const char *strings[CHANNEL_ARGS_MAX + 2];
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct error e = ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < CHANNEL_ARGS_MAX; i++)
        strings[i] = "A=";
    assert_int_equal(pack_exec(&request, strings, none, &e), 0);
    buffer_fini(&request);
    strings[CHANNEL_ARGS_MAX] = "A=";
    assert_int_equal(pack_exec(&request, strings, none, &e), -1);
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_int_equal(pack_exec(&request, none, strings, &e), -1);
    assert_int_equal(e.code, ERR_TOO_LARGE);
    buffer_fini(&request);
}

/* Of a request without argv and env nobody is told about them. */
static void test_no_room(void **state)
{
    struct buffer request = BUFFER_INIT(16);
    struct error e = ERROR_INIT;

    (void)state;
    assert_int_equal(agent_request_stat(&request, 0, "/far/too/long/for/that", &e), -1);
    assert_int_equal(e.code, ERR_INTERNAL);
    assert_null(strstr(e.message, "argv"));
    assert_int_equal(request.size, 0);
    buffer_fini(&request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_largest_command),
        cmocka_unit_test(test_most_arguments),
        cmocka_unit_test(test_no_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
