/* Commands with a terminal: the agent's EXEC operation with CHANNEL_EXEC_PTY, on the host. */
#include "test_agent_peer.h"

#include <errno.h>

#define RAW_BYTES (1u << 20)

static int set_up(void **state)
{
    struct peer *p = calloc(1, sizeof(*p));

    peer_start(p, true);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    peer_stop(*state, 0);
    free(*state);
    return 0;
}

static uint32_t start(struct peer *p, const char *script, const char *user)
{
    const char *argv[] = {"sh", "-c", script, NULL};

    return peer_exec(p, &(struct peer_exec){.argv = argv,
                                            .user = user,
                                            .has_stdin = true,
                                            .has_pty = true,
                                            .rows = 33,
                                            .columns = 101});
}

static void type(struct peer *p, uint32_t stream, const char *keys)
{
    peer_send(p, stream, CHANNEL_DATA, 0, keys, strlen(keys));
}

static void resize(struct peer *p, uint32_t stream, uint16_t rows, uint16_t columns)
{
    peer_send_u32(p, stream, CHANNEL_RESIZE, 0, rows | (uint32_t)columns << 16);
}

static bool has_shown(const struct peer_result *r, const char *text)
{
    const struct buffer *b = &r->lanes[CHANNEL_LANE_OUT];

    return b->size > 0 && memmem(buffer_bytes(b), b->size, text, strlen(text)) != NULL;
}

/* Receives until the terminal has shown `text`. */
static void wait_shown(struct peer *p, uint32_t stream, struct peer_result *r, const char *text)
{
    static struct peer_frame f;

    while (!has_shown(r, text)) {
        assert_true(peer_receive(p, &f));
        assert_int_equal(f.h.stream, stream);
        if (f.h.type == CHANNEL_DATA)
            peer_send_u32(p, stream, CHANNEL_CREDIT, f.h.lane, f.h.length);
        if (peer_take(r, &f))
            fail_msg("ended without showing \"%s\"", text);
    }
}

static void expect_exit(struct peer *p, uint32_t stream, struct peer_result *r, unsigned code)
{
    peer_finish(p, stream, r);
    assert_int_equal(r->status, 0);
    assert_int_equal(r->kind, CHANNEL_EXEC_EXITED);
    assert_int_equal(r->code, code);
    assert_true(r->eof[CHANNEL_LANE_OUT] && r->eof[CHANNEL_LANE_ERR]);
    assert_int_equal(r->lanes[CHANNEL_LANE_ERR].size, 0);
    peer_result_fini(r);
}

/* stdin, stdout and stderr are one terminal, of the right size, and the session's own. */
static void test_is_a_controlling_terminal(void **state)
{
    struct peer_result r;

    peer_result_init(&r);
    uint32_t s = start(*state,
                       "test -t 0 && test -t 1 && test -t 2 && echo yes >/dev/tty;"
                       "stty size; echo err >&2; stat -c '%a %u' $(tty); tty; exit 5",
                       NULL);
    peer_finish(*state, s, &r);
    assert_true(has_shown(&r, "yes\r\n33 101\r\nerr\r\n620 0\r\n/dev/pts/"));
    assert_int_equal(r.code, 5);
    assert_true(r.eof[CHANNEL_LANE_ERR] && r.lanes[CHANNEL_LANE_ERR].size == 0);
    peer_result_fini(&r);
}

static void test_belongs_to_its_user(void **state)
{
    struct peer_result r;

    peer_result_init(&r);
    uint32_t s = start(*state, "stat -c '%a %u' $(tty); echo through >$(tty)", "12345");
    wait_shown(*state, s, &r, "620 12345\r\n");
    wait_shown(*state, s, &r, "through\r\n");
    expect_exit(*state, s, &r, 0);
}

static void test_keys(void **state)
{
    struct peer_result r;
    struct peer *p = *state;

    peer_result_init(&r);
    uint32_t s = start(p,
                       "trap 'echo interrupted; exit 6' INT; echo ready; read line;"
                       "echo got $line; while :; do sleep 0.05; done",
                       NULL);
    wait_shown(p, s, &r, "ready\r\n");
    type(p, s, "worx\177d\n"); /* the line discipline echoes, and lets erase */
    wait_shown(p, s, &r, "worx\b \bd\r\ngot word\r\n");
    type(p, s, "\003");
    wait_shown(p, s, &r, "^Cinterrupted\r\n");
    expect_exit(p, s, &r, 6);
}

static void test_resize(void **state)
{
    struct peer_result r;
    struct peer *p = *state;

    peer_result_init(&r);
    uint32_t s =
        start(p, "trap 'stty size; exit 7' WINCH; echo ready; while :; do sleep 0.05; done", NULL);
    wait_shown(p, s, &r, "ready\r\n");
    resize(p, s, 10, 20);
    wait_shown(p, s, &r, "10 20\r\n");
    resize(p, s, 11, 21); /* may come after the end */
    expect_exit(p, s, &r, 7);
    resize(p, s, 12, 22); /* comes after it */
}

/* An EOF of lane 0 is the key that means it, behind all that was typed; the output stays open. */
static void test_end_of_input(void **state)
{
    struct peer_result r;
    struct peer *p = *state;

    peer_result_init(&r);
    uint32_t s = start(p, "cat; echo after; exit 8", NULL);
    type(p, s, "a line\n");
    peer_send(p, s, CHANNEL_EOF, 0, NULL, 0);
    wait_shown(p, s, &r, "after\r\n");
    assert_true(has_shown(&r, "a line\r\na line\r\n"));
    expect_exit(p, s, &r, 8);
}

/* The other key that the terminal was told, or none at all. */
static void test_end_of_input_by_another_key(void **state)
{
    struct peer_result r;
    struct peer *p = *state;

    peer_result_init(&r);
    uint32_t s = start(p, "stty eof ^X; echo ready; cat; echo after", NULL);
    wait_shown(p, s, &r, "ready\r\n");
    peer_send(p, s, CHANNEL_EOF, 0, NULL, 0);
    expect_exit(p, s, &r, 0);
    peer_result_init(&r);
    s = start(p, "stty eof undef; echo ready; read line; echo got $line", NULL);
    wait_shown(p, s, &r, "ready\r\n");
    type(p, s, "line\n");
    peer_send(p, s, CHANNEL_EOF, 0, NULL, 0);
    wait_shown(p, s, &r, "got line\r\n");
    expect_exit(p, s, &r, 0);
}

/* Far more than any buffer on the way, in both directions at once, and not a byte is lost. */
static void test_much_raw_input(void **state)
{
    static struct peer_frame f;
    static uint8_t chunk[4096];
    struct peer_result r;
    struct peer *p = *state;
    size_t sent = 0, credit = CHANNEL_WINDOW_BYTES;

    peer_result_init(&r);
    uint32_t s = start(p, "stty raw -echo; echo ready; head -c 1048576", NULL);
    wait_shown(p, s, &r, "ready\n");
    size_t before = r.lanes[CHANNEL_LANE_OUT].size;
    for (bool ended = false; !ended;) {
        while (sent < RAW_BYTES && credit >= sizeof(chunk)) {
            for (size_t i = 0; i < sizeof(chunk); i++)
                chunk[i] = (uint8_t)((sent + i) * 7 + (sent >> 8));
            peer_send(p, s, CHANNEL_DATA, 0, chunk, sizeof(chunk));
            sent += sizeof(chunk);
            credit -= sizeof(chunk);
        }
        assert_true(peer_receive(p, &f));
        if (f.h.type == CHANNEL_DATA)
            peer_send_u32(p, s, CHANNEL_CREDIT, f.h.lane, f.h.length);
        if (f.h.type == CHANNEL_CREDIT)
            credit += f.payload[0] | (size_t)f.payload[1] << 8 | (size_t)f.payload[2] << 16;
        ended = peer_take(&r, &f);
    }
    assert_int_equal(r.lanes[CHANNEL_LANE_OUT].size - before, RAW_BYTES);
    for (size_t i = 0; i < RAW_BYTES; i++) {
        size_t start_of = i / sizeof(chunk) * sizeof(chunk);
        uint8_t expected = (uint8_t)(i * 7 + (start_of >> 8));
        assert_int_equal(buffer_bytes(&r.lanes[CHANNEL_LANE_OUT])[before + i], expected);
    }
    peer_result_fini(&r);
}

/* All that was written before the end arrives, however little the reader takes at a time. */
static void test_output_before_the_end(void **state)
{
    struct peer_result r;

    peer_result_init(&r);
    uint32_t s = start(*state, "stty -opost; seq 100000; echo last", NULL);
    peer_finish(*state, s, &r);
    assert_int_equal(r.lanes[CHANNEL_LANE_OUT].size, 588895 + 5);
    assert_true(has_shown(&r, "\n100000\nlast\n"));
    peer_result_fini(&r);
}

static void test_input_nobody_reads(void **state)
{
    static const char line[] = "0123456789012345678901234567890123456789012345678901234567890\n";
    struct peer_result r;
    struct peer *p = *state;

    peer_result_init(&r);
    uint32_t s = start(p, "stty -echo; echo ready; sleep 1000", NULL);
    wait_shown(p, s, &r, "ready\r\n");
    for (size_t sent = 0; sent + sizeof(line) - 1 <= CHANNEL_WINDOW_BYTES; sent += sizeof(line) - 1)
        type(p, s, line);
    peer_send(p, s, CHANNEL_EOF, 0, NULL, 0);
    peer_send_u32(p, s, CHANNEL_SIGNAL, 0, SIGTERM); /* it still listens */
    peer_finish(p, s, &r);
    assert_int_equal(r.kind, CHANNEL_EXEC_SIGNALED);
    assert_int_equal(r.code, SIGTERM);
    peer_result_fini(&r);
}

/* A descendant that keeps the terminal open does not keep the command from its end. */
static void test_descendants_are_killed(void **state)
{
    struct peer_result r;

    peer_result_init(&r);
    uint32_t s = start(*state, "trap '' HUP; sleep 1000 & setsid sleep 1000 & exit 9", NULL);
    expect_exit(*state, s, &r, 9);
    peer_result_init(&r);
    s = start(*state, "echo ready; sleep 1000", NULL);
    wait_shown(*state, s, &r, "ready\r\n");
    peer_send(*state, s, CHANNEL_RESET, 0, NULL, 0);
    peer_finish(*state, s, &r);
    assert_int_equal(r.kind, CHANNEL_EXEC_SIGNALED);
    assert_int_equal(r.code, SIGKILL);
    peer_result_fini(&r);
}

/* Whoever closes all three and opens the terminal again is not cut off. */
static void test_opened_again(void **state)
{
    struct peer_result r;
    struct peer *p = *state;

    peer_result_init(&r);
    uint32_t s = start(p,
                       "exec <&- >&- 2>&-; sleep 0.2; exec </dev/tty >/dev/tty; echo ready;"
                       "read line; echo got $line; exit 4",
                       NULL);
    wait_shown(p, s, &r, "ready\r\n");
    type(p, s, "line\n");
    wait_shown(p, s, &r, "got line\r\n");
    expect_exit(p, s, &r, 4);
    peer_result_init(&r);
    s = start(p, "exec <&- >&- 2>&-; sleep 0.2; exit 5", NULL);
    expect_exit(p, s, &r, 5);
}

static void test_does_not_start(void **state)
{
    const char *argv[] = {"/no/such/program", NULL};
    struct peer_result r;

    peer_result_init(&r);
    peer_finish(*state, peer_exec(*state, &(struct peer_exec){.argv = argv, .has_pty = true}), &r);
    assert_int_equal(r.status, ENOENT);
    assert_int_equal(r.frames, 1);
    peer_result_fini(&r);
}

/* Without lane 0 the terminal is one that nobody types at. */
static void test_without_input(void **state)
{
    const char *argv[] = {"sh", "-c", "test -t 0 && echo yes; exit 3", NULL};
    struct peer_result r;

    peer_result_init(&r);
    uint32_t s = peer_exec(*state, &(struct peer_exec){.argv = argv, .has_pty = true});
    wait_shown(*state, s, &r, "yes\r\n");
    expect_exit(*state, s, &r, 3);
}

static void expect_broken(const struct peer_exec *x, bool resizes)
{
    struct peer p;

    peer_start(&p, false);
    uint32_t s = peer_exec(&p, x);
    if (resizes)
        resize(&p, s, 1, 1);
    peer_stop(&p, PEER_EXIT_BROKEN);
}

static void test_protocol_errors(void **state)
{
    const char *argv[] = {"sleep", "1000", NULL};

    (void)state;
    expect_broken(&(struct peer_exec){.argv = argv}, true);
    expect_broken(&(struct peer_exec){.argv = argv, .flags = 1u << 2}, false);
}

#define TERMINAL_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TERMINAL_TEST(test_is_a_controlling_terminal),
        TERMINAL_TEST(test_belongs_to_its_user),
        TERMINAL_TEST(test_keys),
        TERMINAL_TEST(test_resize),
        TERMINAL_TEST(test_end_of_input),
        TERMINAL_TEST(test_end_of_input_by_another_key),
        TERMINAL_TEST(test_much_raw_input),
        TERMINAL_TEST(test_output_before_the_end),
        TERMINAL_TEST(test_input_nobody_reads),
        TERMINAL_TEST(test_descendants_are_killed),
        TERMINAL_TEST(test_opened_again),
        TERMINAL_TEST(test_does_not_start),
        TERMINAL_TEST(test_without_input),
        cmocka_unit_test(test_protocol_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
