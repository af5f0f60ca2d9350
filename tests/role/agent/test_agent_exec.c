/* The agent's EXEC operation, over a socket pair on the host. */
#include "test_agent_peer.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

static int set_up(void **state)
{
    struct peer *p = calloc(1, sizeof(*p));

    peer_start(p, true);
    *state = p;
    return 0;
}

static int set_up_without_cgroup(void **state)
{
    struct peer *p = calloc(1, sizeof(*p));

    peer_start(p, false);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    peer_stop(*state, 0);
    free(*state);
    return 0;
}

static void run(struct peer *p, const char *script, struct peer_result *r)
{
    peer_result_init(r);
    peer_finish(p, peer_shell(p, script, false), r);
}

static void test_exit_code_and_outputs(void **state)
{
    struct peer_result r;

    run(*state, "echo out; echo err >&2; exit 7", &r);
    assert_int_equal(r.status, 0);
    assert_int_equal(r.kind, CHANNEL_EXEC_EXITED);
    assert_int_equal(r.code, 7);
    assert_true(r.has_info && r.pid > 1);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "out\n"));
    assert_true(peer_lane_is(&r, CHANNEL_LANE_ERR, "err\n"));
    assert_true(r.eof[CHANNEL_LANE_OUT] && r.eof[CHANNEL_LANE_ERR] && !r.eof[CHANNEL_LANE_IN]);
    assert_true(r.wall_us > 0 && r.max_rss_bytes > 4096);
    peer_result_fini(&r);
}

static void test_environment_of_a_command(void **state)
{
    struct peer_result r;

    /* Its own session, nothing open but stdio, no signal blocked or ignored, umask 022, given env.
     */
    run(*state,
        "ls /proc/self/fd | tr '\\n' ' '; ps -o sid= -p $$ | tr -d ' ' | grep -qx $$ && echo sid;"
        "grep -E 'SigBlk|SigIgn' /proc/self/status | tr '\\n\\t' '  '; umask; env | grep -c .; pwd",
        &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT,
                             "0 1 2 3 sid\n"
                             "SigBlk: 0000000000000000 SigIgn: 0000000000000000 0022\n3\n/\n"));
    peer_result_fini(&r);
}

static void test_signaled(void **state)
{
    struct peer_result r;

    run(*state, "kill -9 $$", &r);
    assert_int_equal(r.kind, CHANNEL_EXEC_SIGNALED);
    assert_int_equal(r.code, SIGKILL);
    peer_result_fini(&r);
}

static void expect_failure(struct peer *p, const struct peer_exec *x, unsigned status,
                           const char *text)
{
    struct peer_result r;

    peer_result_init(&r);
    peer_finish(p, peer_exec(p, x), &r);
    assert_string_equal(r.text, text);
    assert_int_equal(r.status, status);
    assert_false(r.has_info);
    assert_int_equal(r.frames, 1);
    peer_result_fini(&r);
}

static void test_cannot_start(void **state)
{
    const char *nowhere[] = {"cloche-no-such-program", NULL};
    const char *missing[] = {"/no/such/program", NULL};
    const char *directory[] = {"/etc", NULL};
    const char *plain[] = {"/etc/passwd", NULL};
    const char *ok[] = {"true", NULL};
    const char *no_path[] = {"PATH=", NULL};
    struct peer *p = *state;

    expect_failure(p, &(struct peer_exec){.argv = nowhere}, ENOENT,
                   "exec cloche-no-such-program: not found in PATH");
    expect_failure(p, &(struct peer_exec){.argv = missing}, ENOENT,
                   "exec /no/such/program: No such file or directory");
    expect_failure(p, &(struct peer_exec){.argv = directory}, EACCES,
                   "exec /etc: Permission denied");
    expect_failure(p, &(struct peer_exec){.argv = plain}, EACCES,
                   "exec /etc/passwd: Permission denied");
    expect_failure(p, &(struct peer_exec){.argv = ok, .cwd = "/x"}, ENOENT,
                   "cwd /x: No such file or directory");
    expect_failure(p, &(struct peer_exec){.argv = ok, .cwd = "/etc/passwd"}, ENOTDIR,
                   "cwd /etc/passwd: Not a directory");
    expect_failure(p, &(struct peer_exec){.argv = ok, .user = "nobody-here"}, EINVAL,
                   "user nobody-here: no such user in /etc/passwd");
    expect_failure(p, &(struct peer_exec){.argv = ok, .env = no_path}, ENOENT,
                   "exec true: not found in PATH");
}

static void test_user(void **state)
{
    const char *argv[] = {"sh", "-c", "id -u; id -g; id -G; touch /etc/cloche-x || echo no", NULL};
    struct peer *p = *state;
    struct peer_result r;

    if (getuid() != 0)
        skip();
    peer_result_init(&r);
    peer_finish(p, peer_exec(p, &(struct peer_exec){.argv = argv, .user = "daemon"}), &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "1\n1\n1\nno\n"));
    peer_result_fini(&r);
    peer_result_init(&r);
    peer_finish(p, peer_exec(p, &(struct peer_exec){.argv = argv, .user = "54321"}), &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "54321\n54321\n54321\nno\n"));
    peer_result_fini(&r);
}

/* A cwd that the user may not enter, although the agent may. */
static void test_cwd_is_entered_by_the_user(void **state)
{
    const char *argv[] = {"true", NULL};
    char dir[] = "/tmp/cloche-test-XXXXXX";

    if (getuid() != 0)
        skip();
    assert_non_null(mkdtemp(dir));
    char text[64];
    (void)snprintf(text, sizeof(text), "cwd %s: Permission denied", dir);
    expect_failure(*state, &(struct peer_exec){.argv = argv, .user = "daemon", .cwd = dir}, EACCES,
                   text);
    (void)rmdir(dir);
}

static void test_stdin(void **state)
{
    struct peer *p = *state;
    struct peer_result r;
    uint32_t id = peer_shell(p, "cat; echo end", true);

    peer_send(p, id, CHANNEL_DATA, 0, "one ", 4);
    peer_send(p, id, CHANNEL_DATA, 0, "two\n", 4);
    peer_send(p, id, CHANNEL_EOF, 0, NULL, 0);
    peer_result_init(&r);
    peer_finish(p, id, &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "one two\nend\n"));
    peer_result_fini(&r);
    /* Without the flag it is empty. */
    run(p, "cat; echo end", &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "end\n"));
    peer_result_fini(&r);
}

/* Sends as the credit allows while output comes back: 8 MiB through `cat`, compared. */
static void test_large_stdin_and_stdout(void **state)
{
    static uint8_t bytes[8u << 20];
    static struct peer_frame f;
    struct peer *p = *state;
    struct peer_result r;
    size_t sent = 0;
    uint64_t credit = CHANNEL_WINDOW_BYTES;
    uint32_t id = peer_shell(p, "cat", true);

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    peer_result_init(&r);
    for (bool ended = false; !ended;) {
        while (sent < sizeof(bytes) && credit > 0 && !peer_readable(p, 0)) {
            size_t n = sizeof(bytes) - sent;
            n = n < 50000 ? n : 50000;
            n = n < credit ? n : credit;
            peer_send(p, id, CHANNEL_DATA, 0, bytes + sent, n);
            sent += n;
            credit -= n;
            if (sent == sizeof(bytes))
                peer_send(p, id, CHANNEL_EOF, 0, NULL, 0);
        }
        assert_true(peer_receive(p, &f));
        if (f.h.type == CHANNEL_CREDIT) {
            struct wire_reader reader;
            wire_reader_init(&reader, f.payload, 4);
            credit += wire_get_u32(&reader);
        }
        if (f.h.type == CHANNEL_DATA)
            peer_send_u32(p, id, CHANNEL_CREDIT, f.h.lane, f.h.length);
        ended = peer_take(&r, &f);
    }
    assert_int_equal(r.code, 0);
    assert_int_equal(r.lanes[CHANNEL_LANE_OUT].size, sizeof(bytes));
    assert_memory_equal(buffer_bytes(&r.lanes[CHANNEL_LANE_OUT]), bytes, sizeof(bytes));
    peer_result_fini(&r);
}

/* A command that does not read its stdin: the host is not stalled by it, and END comes. */
static void test_stdin_nobody_reads(void **state)
{
    static const uint8_t zeroes[CHANNEL_PAYLOAD_MAX];
    struct peer *p = *state;
    struct peer_result r;
    uint32_t id = peer_shell(p, "exec <&-; sleep 0.3; echo done", true);

    for (int i = 0; i < 4; i++)
        peer_send(p, id, CHANNEL_DATA, 0, zeroes, sizeof(zeroes));
    peer_result_init(&r);
    peer_finish(p, id, &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "done\n"));
    assert_int_equal(r.code, 0);
    peer_result_fini(&r);
}

/* Credit is exact: not a byte more comes than was granted, and it goes on with more. */
static void test_output_stays_within_credit(void **state)
{
    static struct peer_frame f;
    struct peer *p = *state;
    struct peer_result r;
    uint32_t id = peer_shell(p, "head -c 1000000 /dev/zero", false);
    size_t got = 0;
    size_t granted = CHANNEL_WINDOW_BYTES;

    peer_result_init(&r);
    for (int i = 0; i <= 5; i++) {
        while (got < granted) {
            assert_true(peer_receive(p, &f));
            assert_int_not_equal(f.h.type, CHANNEL_END);
            got += f.h.type == CHANNEL_DATA ? f.h.length : 0;
            (void)peer_take(&r, &f);
        }
        assert_int_equal(got, granted);
        assert_false(peer_settle(p, id, &r));
        if (i < 5)
            peer_send_u32(p, id, CHANNEL_CREDIT, CHANNEL_LANE_OUT, 7);
        granted += 7;
    }
    peer_send_u32(p, id, CHANNEL_CREDIT, CHANNEL_LANE_OUT, 10000000);
    peer_finish(p, id, &r);
    assert_int_equal(r.lanes[CHANNEL_LANE_OUT].size, 1000000);
    peer_result_fini(&r);
}

/* One stream whose reader is away does not hold up another. */
static void test_slow_reader_blocks_nobody(void **state)
{
    static struct peer_frame f;
    struct peer *p = *state;
    struct peer_result r;
    uint32_t slow[8];

    for (int i = 0; i < 8; i++)
        slow[i] = peer_shell(p, "exec yes", false);
    for (int started = 0; started < 8;) {
        assert_true(peer_receive(p, &f));
        started += f.h.type == CHANNEL_INFO;
    }
    run(p, "echo quick", &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "quick\n"));
    peer_result_fini(&r);
    for (int i = 0; i < 8; i++) {
        peer_send(p, slow[i], CHANNEL_RESET, 0, NULL, 0);
        peer_result_init(&r);
        r.has_info = true;
        peer_finish(p, slow[i], &r);
        assert_int_equal(r.status, 0);
        assert_int_equal(r.kind, CHANNEL_EXEC_SIGNALED);
        peer_result_fini(&r);
    }
}

/* More commands than there are cgroups ready, all at once, again and again. */
static void test_many_commands(void **state)
{
    static struct peer_frame f;
    static struct peer_result results[CHANNEL_STREAMS_MAX];
    struct peer *p = *state;

    for (int round = 0; round < 2; round++) {
        uint32_t first = p->next_stream;
        unsigned count = 100, ended = 0;

        for (unsigned i = 0; i < count; i++) {
            char script[32];
            (void)snprintf(script, sizeof(script), "echo %u; exit %u", i, i);
            peer_result_init(&results[i]);
            (void)peer_shell(p, script, false);
        }
        while (ended < count) {
            assert_true(peer_receive(p, &f));
            assert_in_range(f.h.stream, first, first + count - 1);
            ended += peer_take(&results[f.h.stream - first], &f);
        }
        for (unsigned i = 0; i < count; i++) {
            char text[16];
            (void)snprintf(text, sizeof(text), "%u\n", i);
            assert_true(peer_lane_is(&results[i], CHANNEL_LANE_OUT, text));
            assert_int_equal(results[i].code, i);
            peer_result_fini(&results[i]);
        }
    }
}

static void test_too_many_streams(void **state)
{
    struct peer *p = *state;
    struct peer_result r;
    uint32_t first = p->next_stream;

    for (unsigned i = 0; i < CHANNEL_STREAMS_MAX; i++)
        (void)peer_open_file(p, CHANNEL_OP_WRITE, 0, "/tmp/cloche-test-never");
    peer_result_init(&r);
    peer_finish(p, peer_shell(p, "true", false), &r);
    assert_int_equal(r.status, EMFILE);
    for (unsigned i = 0; i < CHANNEL_STREAMS_MAX; i++)
        peer_send(p, first + i, CHANNEL_RESET, 0, NULL, 0);
    for (unsigned i = 0; i < CHANNEL_STREAMS_MAX; i++) {
        peer_result_init(&r);
        peer_finish(p, first + i, &r);
        assert_int_equal(r.status, ECANCELED);
    }
    assert_int_not_equal(access("/tmp/cloche-test-never", F_OK), 0);
    run(p, "echo again", &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "again\n"));
    peer_result_fini(&r);
}

#define EXEC_TEST(name)  cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define PLAIN_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_without_cgroup, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EXEC_TEST(test_exit_code_and_outputs),
        EXEC_TEST(test_environment_of_a_command),
        EXEC_TEST(test_signaled),
        EXEC_TEST(test_cannot_start),
        EXEC_TEST(test_user),
        EXEC_TEST(test_cwd_is_entered_by_the_user),
        EXEC_TEST(test_stdin),
        EXEC_TEST(test_large_stdin_and_stdout),
        EXEC_TEST(test_stdin_nobody_reads),
        EXEC_TEST(test_output_stays_within_credit),
        EXEC_TEST(test_slow_reader_blocks_nobody),
        PLAIN_TEST(test_exit_code_and_outputs),
        PLAIN_TEST(test_slow_reader_blocks_nobody),
        EXEC_TEST(test_many_commands),
        EXEC_TEST(test_too_many_streams),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
