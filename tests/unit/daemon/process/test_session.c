/* The time of a session's command: the shell is spared for as long as it obeys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/process/process_table.h"
#include "daemon/process/session.h"
#include "tests/fake_agent.h"
#include "tests/fake_clock.h"

#define SHELL_PID 7u

struct fixture {
    uv_loop_t loop;
    struct fake_agent agent;
    struct agent_link *link;
    struct process_memory memory;
    struct process_table table;
    struct process *shell;
    struct session *session;
    char marker[40]; /* the command's that was sent last */
    struct process_follower follower;
    struct exec_result result; /* of that command */
    unsigned ends;
    struct fake_frame frame;
};

static void on_broken(void *arg, const struct error *why)
{
    (void)arg;
    (void)why;
    fail(); /* the guest keeps the protocol here */
}

static void on_news(struct process_follower *follower)
{
    struct fixture *f = follower->owner;

    if (follower->process->state != PROCESS_ENDED)
        return;
    f->ends++;
    f->result = follower->process->result;
    process_unfollow(follower);
}

static void start_shell(struct fixture *f)
{
    static const char *const argv[] = {"sh", NULL};
    static const struct env env;
    const struct process_spec spec = {.exec = {.argv = argv,
                                               .cwd = "/",
                                               .user = "",
                                               .env = &env,
                                               .has_stdin = true,
                                               .output_bytes_max = UINT64_MAX},
                                      .command = "sh",
                                      .is_background = true,
                                      .keeps_stdin = true,
                                      .ring_bytes = PROCESS_RING_BYTES_MIN};
    struct error e = ERROR_INIT;

    assert_int_equal(process_table_start(&f->table, &f->loop, f->link, &spec, &f->shell, &e), 0);
    assert_int_equal(session_new(&f->loop, &f->table, "main", f->shell, &f->session, &e), 0);
    assert_true(fake_expect(&f->agent, CHANNEL_OPEN, &f->frame));
    fake_exec_info(&f->agent, 1, SHELL_PID);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error e = ERROR_INIT;

    assert_non_null(f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    int fd = fake_agent_init(&f->agent, &f->loop);
    assert_int_equal(agent_link_new(&f->loop, fd, on_broken, f, &f->link, &e), 0);
    process_table_init(&f->table, &f->memory);
    start_shell(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    process_unfollow(&f->follower);
    agent_link_free(f->link);
    process_table_fini(&f->table);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    fake_agent_fini(&f->agent);
    assert_int_equal(f->memory.bytes, 0);
    free(f);
    return 0;
}

static void wait_ms(struct fixture *f, uint64_t ms)
{
    fake_clock_move_ms(ms);
    fake_spin(&f->agent);
}

/* Runs a command and takes what the shell is given for it. */
static void run(struct fixture *f, const char *text, uint64_t timeout_ms, uint64_t output_bytes_max)
{
    const struct session_command command = {.text = text,
                                            .timeout_ms = timeout_ms,
                                            .output_bytes_max = output_bytes_max,
                                            .arrived_ns = clock_mono_ns()};
    struct process *p = NULL;
    struct error e = ERROR_INIT;
    const char *at = NULL;

    assert_int_equal(session_run(f->session, &command, &p, &e), 0);
    f->follower = (struct process_follower){.owner = f, .on_news = on_news};
    process_follow(p, &f->follower, 0);
    while (at == NULL) {
        assert_true(fake_expect(&f->agent, CHANNEL_DATA, &f->frame));
        f->frame.payload[f->frame.h.length] = '\0';
        at = strstr((const char *)f->frame.payload, "printf '\\036");
    }
    (void)snprintf(f->marker, sizeof(f->marker), "\036%.33s", at + 12);
    fake_spin(&f->agent);
    assert_int_equal(p->pid, SHELL_PID);
}

static void print(struct fixture *f, enum channel_lane lane, const char *text)
{
    fake_send(&f->agent, CHANNEL_DATA, 1, lane, text, strlen(text));
}

/* The shell says that the command has ended. */
static void report(struct fixture *f, int code)
{
    char text[200];

    (void)snprintf(text, sizeof(text), "%s%d /tmp%s", f->marker, code, f->marker);
    print(f, CHANNEL_LANE_OUT, text);
    print(f, CHANNEL_LANE_ERR, f->marker);
}

static void expect_kill_of_others(struct fixture *f)
{
    assert_true(fake_expect(&f->agent, CHANNEL_SIGNAL, &f->frame));
    assert_int_equal(f->frame.h.lane, CHANNEL_SIGNAL_OTHERS);
    assert_int_equal(f->frame.payload[0], 9);
}

static void test_times(void **state)
{
    struct fixture *f = *state;

    run(f, "true", 0, UINT64_MAX);
    fake_clock_move_ms(20);
    print(f, CHANNEL_LANE_OUT, "hello");
    fake_clock_move_ms(30);
    report(f, 3);
    assert_int_equal(f->ends, 1);
    assert_int_equal(f->result.end, EXEC_EXITED);
    assert_int_equal(f->result.exit_code, 3);
    assert_int_equal(f->result.wall_ns, 50 * NS_PER_MS);
    assert_int_equal(f->result.first_output_ns, 20 * NS_PER_MS);
    assert_int_equal(f->result.output_bytes[EXEC_STDOUT], 5);
}

/* The command's processes are killed; the shell is there for the next. */
static void test_timeout_spares_the_shell(void **state)
{
    struct fixture *f = *state;

    run(f, "sleep 9", 1000, UINT64_MAX);
    wait_ms(f, 999);
    assert_false(fake_recv(&f->agent, &f->frame));
    wait_ms(f, 1);
    expect_kill_of_others(f);
    wait_ms(f, SESSION_GRACE_MS - 1);
    assert_int_equal(f->ends, 0);
    report(f, 137);
    assert_int_equal(f->ends, 1);
    assert_int_equal(f->result.end, EXEC_TIMEOUT);
    assert_true(f->result.truncated);
    assert_false(f->result.ends_session);
    assert_ptr_equal(session_find(&f->table, "main"), f->session);
    /* Neither the time out nor its grace is the next command's. */
    run(f, "true", 0, UINT64_MAX);
    wait_ms(f, 10 * SESSION_GRACE_MS);
    assert_false(fake_recv(&f->agent, &f->frame));
    report(f, 0);
    assert_int_equal(f->result.end, EXEC_EXITED);
}

/* Where it is the shell itself that does not come back, the session goes with it. */
static void test_timeout_of_the_shell_itself(void **state)
{
    struct fixture *f = *state;

    run(f, "while :; do :; done", 1000, UINT64_MAX);
    wait_ms(f, 1000);
    expect_kill_of_others(f);
    wait_ms(f, SESSION_GRACE_MS - 1);
    assert_false(fake_recv(&f->agent, &f->frame));
    wait_ms(f, 1);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_SIGNALED, 9);
    assert_int_equal(f->ends, 1);
    assert_int_equal(f->result.end, EXEC_TIMEOUT);
    assert_true(f->result.ends_session);
    assert_null(session_find(&f->table, "main"));
}

static void test_output_limit(void **state)
{
    struct fixture *f = *state;

    run(f, "yes", 0, 4);
    print(f, CHANNEL_LANE_OUT, "y\ny\n");
    assert_false(fake_recv(&f->agent, &f->frame));
    print(f, CHANNEL_LANE_OUT, "y");
    expect_kill_of_others(f);
    print(f, CHANNEL_LANE_OUT, "\ny");
    report(f, 137);
    assert_int_equal(f->result.end, EXEC_OUTPUT_LIMIT);
    assert_int_equal(f->result.output_bytes[EXEC_STDOUT], 4);
    assert_true(f->result.truncated);
}

#define SESSION_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SESSION_TEST(test_times),
        SESSION_TEST(test_timeout_spares_the_shell),
        SESSION_TEST(test_timeout_of_the_shell_itself),
        SESSION_TEST(test_output_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
