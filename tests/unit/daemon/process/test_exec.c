/* One command over the agent channel: how each way to end is told, and what the daemon itself
 * counts and times. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/process/exec.h"
#include "tests/fake_agent.h"
#include "tests/fake_clock.h"

struct fixture {
    uv_loop_t loop;
    struct fake_agent agent;
    struct agent_link *link;
    struct exec *exec;
    unsigned broken, starts, ends, writables;
    uint32_t pid;
    size_t output[EXEC_OUTPUT_COUNT];
    struct exec_result result;
    struct fake_frame frame;
};

static void on_broken(void *arg, const struct error *why)
{
    struct fixture *f = arg;

    (void)why;
    f->broken++;
}

static void on_start(void *arg, uint32_t pid)
{
    struct fixture *f = arg;

    f->starts++;
    f->pid = pid;
}

static void on_output(void *arg, enum exec_output which, const uint8_t *data, size_t size)
{
    struct fixture *f = arg;

    assert_non_null(data);
    f->output[which] += size;
    exec_consume(f->exec, which, size);
}

static void on_stdin_writable(void *arg)
{
    struct fixture *f = arg;

    f->writables++;
}

static void on_end(void *arg, const struct exec_result *result)
{
    struct fixture *f = arg;

    f->ends++;
    f->result = *result;
    f->exec = NULL;
}

static const struct exec_calls calls = {.on_start = on_start,
                                        .on_output = on_output,
                                        .on_stdin_writable = on_stdin_writable,
                                        .on_end = on_end};
static const char *const argv[] = {"frobnicate", "x", NULL};

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

    agent_link_free(f->link);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    fake_agent_fini(&f->agent);
    free(f);
    return 0;
}

static void start(struct fixture *f, struct exec_spec spec)
{
    static char entry[] = "A=b";
    static char *entries[] = {entry, NULL};
    static const struct env env = {.entries = entries, .count = 1, .bytes = 4};
    struct error e = ERROR_INIT;

    spec.argv = argv;
    spec.cwd = "/";
    spec.user = "";
    spec.env = &env;
    if (spec.output_bytes_max == 0)
        spec.output_bytes_max = 1000;
    spec.arrived_ns = clock_mono_ns();
    assert_int_equal(exec_start(&f->loop, f->link, &spec, &calls, f, &f->exec, &e), 0);
    assert_true(fake_expect(&f->agent, CHANNEL_OPEN, &f->frame));
}

/* Time passes, and the loop sees it. */
static void wait_ms(struct fixture *f, uint64_t ms)
{
    fake_clock_move_ms(ms);
    fake_spin(&f->agent);
}

static void test_exited(void **state)
{
    struct fixture *f = *state;

    start(f, (struct exec_spec){.has_stdin = true});
    assert_int_equal(exec_send(f->exec, "input", 5), 5);
    exec_finish_stdin(f->exec);
    assert_true(fake_recv(&f->agent, &f->frame));
    assert_int_equal(f->frame.h.type, CHANNEL_DATA);
    assert_memory_equal(f->frame.payload, "input", 5);
    assert_true(fake_recv(&f->agent, &f->frame));
    assert_int_equal(f->frame.h.type, CHANNEL_EOF);
    fake_exec_info(&f->agent, 1, 77);
    assert_int_equal(f->pid, 77);
    fake_clock_move_ms(3);
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_OUT, "out", 3);
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_ERR, "error", 5);
    fake_clock_move_ms(4);
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_EXITED, 3);
    assert_int_equal(f->ends, 1);
    assert_int_equal(f->result.end, EXEC_EXITED);
    assert_int_equal(f->result.exit_code, 3);
    assert_false(f->result.truncated);
    assert_true(f->result.has_guest_usage);
    assert_int_equal(f->result.user_us, 3000);
    assert_int_equal(f->result.wall_ns, 7 * NS_PER_MS);
    assert_int_equal(f->result.first_output_ns, 3 * NS_PER_MS);
    assert_int_equal(f->output[EXEC_STDOUT], 3);
    assert_int_equal(f->output[EXEC_STDERR], 5);
}

/* What a guest that reads slowly has no room for is not taken; its owner hears of room. */
static void test_stdin_waits_for_room(void **state)
{
    static const uint8_t block[2 * CHANNEL_WINDOW_BYTES];
    struct fixture *f = *state;

    start(f, (struct exec_spec){.has_stdin = true});
    size_t taken = exec_send(f->exec, block, sizeof(block));
    assert_true(taken > 0 && taken < sizeof(block));
    assert_int_equal(f->writables, 0); /* never from inside */
    while (fake_recv(&f->agent, &f->frame))
        assert_int_equal(f->frame.h.type, CHANNEL_DATA);
    assert_int_equal(f->writables, 1);
    fake_exec_info(&f->agent, 1, 1);
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_EXITED, 0);
    assert_int_equal(f->result.stdin_bytes, taken);
}

static void test_signaled_and_oom(void **state)
{
    struct fixture *f = *state;

    start(f, (struct exec_spec){0});
    fake_exec_info(&f->agent, 1, 1);
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_SIGNALED, 11);
    assert_int_equal(f->result.end, EXEC_SIGNALED);
    assert_int_equal(f->result.signal, 11);
    assert_int_equal(f->result.first_output_ns, 0);
    start(f, (struct exec_spec){0});
    fake_exec_info(&f->agent, 2, 1);
    fake_exec_end(&f->agent, 2, CHANNEL_EXEC_OOM, 9);
    assert_int_equal(f->ends, 2);
    assert_string_equal(exec_end_name(f->result.end), "oom");
}

static void test_not_started(void **state)
{
    struct fixture *f = *state;

    start(f, (struct exec_spec){0});
    fake_failed(&f->agent, 1, ENOENT, "frobnicate: not found in PATH");
    assert_int_equal(f->result.end, EXEC_FAILED);
    assert_int_equal(f->result.error.code, ERR_COMMAND_NOT_STARTED);
    assert_string_equal(f->result.error.message, "cannot start \"frobnicate\"");
    assert_string_equal(f->result.error.cause, "frobnicate: not found in PATH");
    assert_true(f->result.error.remedy[0] != '\0');
    assert_int_equal(f->starts, 0);
}

static void test_agent_gives_up(void **state)
{
    struct fixture *f = *state;

    start(f, (struct exec_spec){0});
    fake_exec_info(&f->agent, 1, 1);
    fake_failed(&f->agent, 1, ENOMEM, "");
    assert_int_equal(f->result.end, EXEC_FAILED);
    assert_int_equal(f->result.error.code, ERR_INTERNAL);
    assert_true(f->result.error.cause[0] != '\0');
}

static void test_timeout(void **state)
{
    struct fixture *f = *state;

    start(f, (struct exec_spec){.timeout_ms = 20});
    fake_exec_info(&f->agent, 1, 1);
    wait_ms(f, 19);
    assert_false(fake_recv(&f->agent, &f->frame));
    wait_ms(f, 1);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    assert_int_equal(f->ends, 0);
    fake_clock_move_ms(5);
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_SIGNALED, 9);
    assert_int_equal(f->ends, 1);
    assert_int_equal(f->result.end, EXEC_TIMEOUT);
    assert_true(f->result.has_guest_usage);
    assert_int_equal(f->result.wall_ns, 25 * NS_PER_MS);
}

/* A guest that ignores RESET ends the exec for the client all the same. What it says later is of a
 * stream that is remembered for as long, and once. */
static void test_timeout_of_a_mute_guest(void **state)
{
    struct fixture *f = *state;

    start(f, (struct exec_spec){.timeout_ms = 10});
    fake_exec_info(&f->agent, 1, 1);
    wait_ms(f, 10);
    wait_ms(f, EXEC_GRACE_MS - 1);
    assert_int_equal(f->ends, 0);
    wait_ms(f, 1);
    assert_int_equal(f->ends, 1);
    assert_int_equal(f->result.end, EXEC_TIMEOUT);
    assert_false(f->result.has_guest_usage);
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_EXITED, 0);
    assert_int_equal(f->broken, 0);
    assert_int_equal(f->ends, 1);
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_EXITED, 0);
    assert_int_equal(f->broken, 1);
}

static void test_killed(void **state)
{
    struct fixture *f = *state;

    start(f, (struct exec_spec){0});
    fake_exec_info(&f->agent, 1, 1);
    exec_kill(f->exec);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    assert_int_equal(f->ends, 0);
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_SIGNALED, 9);
    assert_int_equal(f->ends, 1);
    assert_int_equal(f->result.end, EXEC_SIGNALED);
    assert_int_equal(f->result.signal, 9);
    assert_true(f->result.truncated);
}

static void test_output_limit(void **state)
{
    struct fixture *f = *state;

    start(f, (struct exec_spec){.output_bytes_max = 10});
    fake_exec_info(&f->agent, 1, 1);
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_OUT, "12345", 5);
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_ERR, "12345", 5);
    assert_false(fake_recv(&f->agent, &f->frame));
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_OUT, "6", 1);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_SIGNALED, 9);
    assert_int_equal(f->result.end, EXEC_OUTPUT_LIMIT);
    assert_true(f->result.truncated);
    assert_int_equal(f->output[EXEC_STDOUT] + f->output[EXEC_STDERR], 10);
}

static void test_output_at_the_limit_is_whole(void **state)
{
    struct fixture *f = *state;

    start(f, (struct exec_spec){.output_bytes_max = 5});
    fake_exec_info(&f->agent, 1, 1);
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_OUT, "12345", 5);
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_EXITED, 0);
    assert_int_equal(f->result.end, EXEC_EXITED);
    assert_false(f->result.truncated);
}

static void test_sandbox_gone_is_never_an_exit(void **state)
{
    struct fixture *f = *state;

    start(f, (struct exec_spec){0});
    fake_exec_info(&f->agent, 1, 1);
    fake_agent_fini(&f->agent);
    fake_spin(&f->agent);
    assert_int_equal(f->ends, 1);
    assert_int_equal(f->result.end, EXEC_SANDBOX_GONE);
    assert_string_equal(exec_end_name(f->result.end), "sandbox_gone");
}

/* Only the newest of the sizes that the guest has not been told goes out, before what is typed. */
static void test_terminal(void **state)
{
    static const uint8_t size[4] = {25, 0, 81, 0};
    struct fixture *f = *state;
    struct wire_reader r;

    start(f, (struct exec_spec){.has_stdin = true, .has_pty = true, .rows = 24, .columns = 80});
    wire_reader_init(&r, f->frame.payload, f->frame.h.length);
    assert_int_equal(wire_get_u16(&r), CHANNEL_OP_EXEC);
    assert_int_equal(wire_get_u32(&r), CHANNEL_EXEC_STDIN | CHANNEL_EXEC_PTY);
    assert_int_equal(wire_get_u16(&r), 24);
    assert_int_equal(wire_get_u16(&r), 80);
    fake_exec_info(&f->agent, 1, 77);
    assert_int_equal(exec_send(f->exec, "typed", 5), 5);
    exec_resize(f->exec, 1, 1);
    exec_resize(f->exec, 25, 81);
    assert_true(fake_recv(&f->agent, &f->frame));
    assert_int_equal(f->frame.h.type, CHANNEL_RESIZE);
    assert_memory_equal(f->frame.payload, size, sizeof(size));
    assert_true(fake_recv(&f->agent, &f->frame));
    assert_int_equal(f->frame.h.type, CHANNEL_DATA);
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_EXITED, 0);
    assert_int_equal(f->ends, 1);
}

#define EXEC_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EXEC_TEST(test_exited),
        EXEC_TEST(test_stdin_waits_for_room),
        EXEC_TEST(test_signaled_and_oom),
        EXEC_TEST(test_not_started),
        EXEC_TEST(test_agent_gives_up),
        EXEC_TEST(test_timeout),
        EXEC_TEST(test_timeout_of_a_mute_guest),
        EXEC_TEST(test_killed),
        EXEC_TEST(test_output_limit),
        EXEC_TEST(test_output_at_the_limit_is_whole),
        EXEC_TEST(test_sandbox_gone_is_never_an_exit),
        EXEC_TEST(test_terminal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
