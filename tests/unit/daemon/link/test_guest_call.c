/* Calls to the guest: which paths may be asked for; and one that does not answer, where it depends
 * on whose turn it was whether it is given up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/link/guest_call.h"
#include "tests/fake_agent.h"
#include "tests/fake_clock.h"

#define TEXT(t) (t), sizeof(t) - 1

struct fixture {
    uv_loop_t loop;
    struct fake_agent agent;
    struct agent_link *link;
    struct guest_call *call; /* NULL: over */
    unsigned infos, writables, ends;
    size_t received;
    struct error why;
    struct fake_frame frame;
};

static void on_broken(void *arg, const struct error *why)
{
    (void)arg;
    (void)why;
    fail(); /* the guest keeps the protocol here */
}

static void on_info(void *arg, const struct agent_info *info)
{
    struct fixture *f = arg;

    (void)info;
    f->infos++;
}

static void on_data(void *arg, const uint8_t *data, size_t size)
{
    struct fixture *f = arg;

    (void)data;
    f->received += size;
}

static void on_writable(void *arg)
{
    struct fixture *f = arg;

    f->writables++;
}

static void on_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct fixture *f = arg;

    assert_int_equal(why == NULL, end != NULL);
    f->ends++;
    f->call = NULL;
    if (why != NULL)
        f->why = *why;
}

static const struct guest_call_events events = {
    .on_info = on_info, .on_data = on_data, .on_writable = on_writable, .on_end = on_end};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error e = ERROR_INIT;

    assert_non_null(f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    int fd = fake_agent_init(&f->agent, &f->loop);
    assert_int_equal(agent_link_new(&f->loop, fd, on_broken, f, &f->link, &e), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    guest_call_abandon(f->call);
    agent_link_free(f->link);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    fake_agent_fini(&f->agent);
    free(f);
    return 0;
}

static void wait_ms(struct fixture *f, uint64_t ms)
{
    fake_clock_move_ms(ms);
    fake_spin(&f->agent);
}

static void expect_given_up(const struct fixture *f)
{
    assert_int_equal(f->ends, 1);
    assert_int_equal(f->why.code, ERR_UNREACHABLE);
    assert_non_null(strstr(f->why.message, "/some/file"));
    assert_true(f->why.remedy[0] != '\0');
}

static void begin_read(struct fixture *f)
{
    struct error e = ERROR_INIT;

    assert_int_equal(
        guest_call_read(&f->loop, f->link, "/some/file", NULL, &events, f, &f->call, &e), 0);
    assert_true(fake_expect(&f->agent, CHANNEL_OPEN, &f->frame));
}

static void begin_write(struct fixture *f)
{
    struct error e = ERROR_INIT;

    assert_int_equal(
        guest_call_write(&f->loop, f->link, "/some/file", 0644, &events, f, &f->call, &e), 0);
    assert_true(fake_expect(&f->agent, CHANNEL_OPEN, &f->frame));
}

static void begin_watch(struct fixture *f)
{
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct error e = ERROR_INIT;

    assert_int_equal(agent_request_watch(&request, 0, "/some/file", &e), 0);
    assert_int_equal(guest_call_ask(&f->loop, f->link, CHANNEL_OP_WATCH, "watch", "/some/file",
                                    &request, &events, f, &f->call, &e),
                     0);
    assert_true(fake_expect(&f->agent, CHANNEL_OPEN, &f->frame));
}

static void test_guest_never_answers(void **state)
{
    struct fixture *f = *state;

    begin_read(f);
    wait_ms(f, GUEST_CALL_STALL_MS - 1);
    assert_int_equal(f->ends, 0);
    wait_ms(f, 1);
    expect_given_up(f);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
}

/* Each sign of life counts for the time between two looks. */
static void test_slow_guest_is_waited_for(void **state)
{
    struct fixture *f = *state;

    begin_read(f);
    fake_read_info(&f->agent, 1, 10, 0644);
    for (unsigned i = 0; i < 10; i++) {
        fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_IN, "x", 1);
        guest_call_consume(f->call, 1);
        wait_ms(f, GUEST_CALL_STALL_MS);
    }
    assert_int_equal(f->ends, 0);
    assert_int_equal(f->received, 10);
    wait_ms(f, GUEST_CALL_STALL_MS);
    expect_given_up(f);
}

/* What waits for the client is not the guest's fault, however long. */
static void test_slow_client_is_waited_for(void **state)
{
    struct fixture *f = *state;

    begin_read(f);
    fake_read_info(&f->agent, 1, 1, 0644);
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_IN, "x", 1);
    for (unsigned i = 0; i < 10; i++)
        wait_ms(f, GUEST_CALL_STALL_MS);
    assert_int_equal(f->ends, 0);
    guest_call_consume(f->call, 1);
    wait_ms(f, GUEST_CALL_STALL_MS);
    expect_given_up(f);
}

static void test_guest_takes_no_content(void **state)
{
    static const uint8_t block[2 * CHANNEL_WINDOW_BYTES];
    struct fixture *f = *state;

    begin_write(f);
    for (unsigned i = 0; i < 10; i++) /* the client gives nothing */
        wait_ms(f, GUEST_CALL_STALL_MS);
    assert_int_equal(f->ends, 0);
    while (guest_call_send(f->call, block, sizeof(block)) > 0) {
        while (fake_recv(&f->agent, &f->frame))
            continue;
    }
    assert_true(f->writables > 0);
    wait_ms(f, GUEST_CALL_STALL_MS); /* what it took until now counts */
    assert_int_equal(f->ends, 0);
    wait_ms(f, GUEST_CALL_STALL_MS);
    expect_given_up(f);
}

static void test_guest_does_not_finish(void **state)
{
    struct fixture *f = *state;

    begin_write(f);
    assert_int_equal(guest_call_send(f->call, "x", 1), 1);
    guest_call_finish(f->call);
    wait_ms(f, GUEST_CALL_STALL_MS);
    assert_int_equal(f->ends, 0);
    wait_ms(f, GUEST_CALL_STALL_MS);
    expect_given_up(f);
}

/* Nothing may happen to what is watched for ever; but the watch has to begin. */
static void test_watch_may_be_silent(void **state)
{
    struct fixture *f = *state;

    begin_watch(f);
    fake_send(&f->agent, CHANNEL_INFO, 1, 0, NULL, 0);
    assert_int_equal(f->infos, 1);
    for (unsigned i = 0; i < 10; i++)
        wait_ms(f, GUEST_CALL_STALL_MS);
    assert_int_equal(f->ends, 0);
}

static void test_watch_has_to_begin(void **state)
{
    struct fixture *f = *state;

    begin_watch(f);
    wait_ms(f, GUEST_CALL_STALL_MS);
    expect_given_up(f);
}

static void test_ends(void **state)
{
    struct fixture *f = *state;

    begin_write(f);
    assert_int_equal(guest_call_send(f->call, "x", 1), 1);
    guest_call_finish(f->call);
    assert_true(fake_expect(&f->agent, CHANNEL_EOF, &f->frame));
    fake_file_end(&f->agent, 1, 1);
    assert_int_equal(f->ends, 1);
    assert_int_equal(f->why.code, ERR_NONE);
    begin_write(f);
    fake_failed(&f->agent, 2, ENOSPC, "");
    assert_int_equal(f->ends, 2);
    assert_int_equal(f->why.code, ERR_DISK_FULL);
    begin_read(f);
    agent_link_free(f->link);
    f->link = NULL;
    assert_int_equal(f->ends, 3);
    assert_int_equal(f->why.code, ERR_SANDBOX_GONE);
}

static void test_paths(void **state)
{
    static const struct {
        const char *path;
        size_t size;
        int result;
    } cases[] = {
        {TEXT("/a"), 0},       {TEXT("/a..b/..c/d.."), 0},
        {TEXT("/a/./b"), 0},   {TEXT(""), -1},
        {TEXT("a"), -1},       {TEXT("/"), -1},
        {TEXT("/a/"), -1},     {TEXT("/.."), -1},
        {TEXT("/a/../b"), -1}, {TEXT("/a/.."), -1},
        {TEXT("/a\0b"), -1},
    };
    char path[CHANNEL_PATH_MAX + 1];
    struct error e = ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(guest_call_check_path(cases[i].path, cases[i].size, &e), cases[i].result);
        if (cases[i].result != 0)
            assert_int_equal(e.code, ERR_INVALID_PATH);
    }
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[CHANNEL_PATH_MAX] = '\0';
    assert_int_equal(guest_call_check_path(path, CHANNEL_PATH_MAX - 1, &e), 0);
    assert_int_equal(guest_call_check_path(path, CHANNEL_PATH_MAX, &e), -1);
}

#define CALL_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CALL_TEST(test_guest_never_answers),
        CALL_TEST(test_slow_guest_is_waited_for),
        CALL_TEST(test_slow_client_is_waited_for),
        CALL_TEST(test_guest_takes_no_content),
        CALL_TEST(test_guest_does_not_finish),
        CALL_TEST(test_watch_may_be_silent),
        CALL_TEST(test_watch_has_to_begin),
        CALL_TEST(test_ends),
        cmocka_unit_test(test_paths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
