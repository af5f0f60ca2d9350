/* The agent against a host that breaks the channel's protocol, and one that only strains it. */
#include "test_agent_peer.h"

#include <errno.h>

static void expect_broken(struct peer *p)
{
    static struct peer_frame f;

    while (peer_receive(p, &f))
        continue;
    peer_stop(p, PEER_EXIT_BROKEN);
}

/* Each row: frames that end the service, sent right behind a stream 1 that writes a file. */
static const struct {
    const char *what;
    struct channel_header h;
    const char *payload;
} broken[] = {
    {"stream 0", {4, 0, CHANNEL_CREDIT, 0}, "aaaa"},
    {"unknown type", {0, 1, 77, 0}, ""},
    {"unknown lane", {1, 1, CHANNEL_DATA, 9}, "a"},
    {"too long", {CHANNEL_PAYLOAD_MAX + 1, 1, CHANNEL_DATA, 0}, ""},
    {"empty DATA", {0, 1, CHANNEL_DATA, 0}, ""},
    {"short CREDIT", {3, 1, CHANNEL_CREDIT, 0}, "aaa"},
    {"DATA on stdout", {1, 1, CHANNEL_DATA, CHANNEL_LANE_OUT}, "a"},
    {"INFO from the host", {4, 1, CHANNEL_INFO, 0}, "aaaa"},
    {"END from the host", {4, 1, CHANNEL_END, 0}, "aaaa"},
    {"stream never opened", {1, 2, CHANNEL_DATA, 0}, "a"},
    {"opened twice", {2, 1, CHANNEL_OPEN, 0}, "\3"},
    {"OPEN on lane 2", {2, 2, CHANNEL_OPEN, 2}, "\3"},
    {"OPEN of one byte", {1, 2, CHANNEL_OPEN, 0}, "\1"},
    {"unknown operation", {2, 2, CHANNEL_OPEN, 0}, "\11"},
    {"EXEC cut short", {6, 2, CHANNEL_OPEN, 0}, "\1\0\0\0\0"},
    {"READ without a path", {6, 2, CHANNEL_OPEN, 0}, "\2\0\0\0\0"},
    {"READ of a relative path", {7, 2, CHANNEL_OPEN, 0}, "\2\0\1\0\0\0a"},
    {"READ with more behind it", {8, 2, CHANNEL_OPEN, 0}, "\2\0\1\0\0\0/"},
    {"a path with NUL", {9, 2, CHANNEL_OPEN, 0}, "\2\0\3\0\0\0/\0a"},
    {"a string past the end", {7, 2, CHANNEL_OPEN, 0}, "\2\0\377\0\0\0/"},
};

static void send_row(struct peer *p, size_t i)
{
    uint8_t bytes[CHANNEL_HEADER_BYTES + 16] = {0};

    frame_header_put(bytes, &broken[i].h);
    size_t size = broken[i].h.length < 16 ? broken[i].h.length : 0;
    memcpy(bytes + CHANNEL_HEADER_BYTES, broken[i].payload, size);
    peer_send_raw(p, bytes, CHANNEL_HEADER_BYTES + size);
}

static void test_broken_frames(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        struct peer p;

        print_message("%s\n", broken[i].what);
        peer_start(&p, false);
        (void)peer_open_file(&p, CHANNEL_OP_WRITE, 0, "/tmp/cloche-test-broken");
        send_row(&p, i);
        expect_broken(&p);
        assert_int_not_equal(access("/tmp/cloche-test-broken", F_OK), 0);
    }
}

static void test_reserved_bits(void **state)
{
    static const uint8_t bytes[] = {4, 0, 0, 0, 1, 0, 0, 0, CHANNEL_CREDIT, 0, 1, 0, 1, 1, 1, 1};
    struct peer p;

    (void)state;
    peer_start(&p, false);
    peer_send_raw(&p, bytes, sizeof(bytes));
    expect_broken(&p);
}

static void test_data_past_the_credit(void **state)
{
    static const uint8_t zeroes[CHANNEL_PAYLOAD_MAX];
    struct peer p;

    (void)state;
    peer_start(&p, false);
    uint32_t id = peer_shell(&p, "sleep 60", true);
    /* A window, and once more what the pipe has room for, is legal. */
    for (int i = 0; i < 6; i++)
        peer_send(&p, id, CHANNEL_DATA, 0, zeroes, sizeof(zeroes));
    expect_broken(&p);
}

static void test_credit_overflow(void **state)
{
    struct peer p;

    (void)state;
    peer_start(&p, false);
    uint32_t id = peer_shell(&p, "sleep 60", true);
    /* 2^32 of these would be needed; what must not happen is that a few of them wrap. */
    for (int i = 0; i < 100; i++)
        peer_send_u32(&p, id, CHANNEL_CREDIT, CHANNEL_LANE_OUT, UINT32_MAX);
    peer_send(&p, id, CHANNEL_RESET, 0, NULL, 0);
    struct peer_result r;
    peer_result_init(&r);
    peer_finish(&p, id, &r);
    peer_result_fini(&r);
    peer_stop(&p, 0);
}

static void test_data_after_eof(void **state)
{
    struct peer p;

    (void)state;
    peer_start(&p, false);
    uint32_t id = peer_shell(&p, "sleep 60", true);
    peer_send(&p, id, CHANNEL_EOF, 0, NULL, 0);
    peer_send(&p, id, CHANNEL_DATA, 0, "x", 1);
    expect_broken(&p);
}

static void test_stdin_that_was_not_asked_for(void **state)
{
    struct peer p;

    (void)state;
    peer_start(&p, false);
    uint32_t id = peer_shell(&p, "sleep 60", false);
    peer_send(&p, id, CHANNEL_DATA, 0, "x", 1);
    expect_broken(&p);
}

/* Any byte stream either makes frames or ends the service, and never more than that. */
static void test_noise(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 30; seed++) {
        uint8_t bytes[4096];
        static struct peer_frame f;
        struct peer p;

        srand(seed);
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)(rand() >> 7);
        peer_start(&p, false);
        peer_send_raw(&p, bytes, sizeof(bytes));
        (void)shutdown(p.fd, SHUT_WR);
        while (peer_receive(&p, &f))
            continue;
        peer_stop(&p, PEER_EXIT_BROKEN);
    }
}

/* A request in pieces, byte by byte, with another stream's frames between them. */
static void test_request_in_pieces(void **state)
{
    uint8_t bytes[512];
    struct wire_writer w;
    struct peer p;
    struct peer_result r;

    (void)state;
    peer_start(&p, false);
    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u16(&w, CHANNEL_OP_READ);
    wire_put_u64(&w, 0);
    wire_put_u64(&w, UINT64_MAX);
    put_text(&w, "/proc/self/oom_score_adj");
    uint32_t id = p.next_stream++;
    for (size_t i = 0; i + 1 < w.used; i++)
        peer_send(&p, id, CHANNEL_OPEN, 1, bytes + i, 1);
    uint32_t other = peer_shell(&p, "echo between", false);
    peer_result_init(&r);
    peer_finish(&p, other, &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "between\n"));
    peer_result_fini(&r);
    peer_send(&p, id, CHANNEL_OPEN, 0, bytes + w.used - 1, 1);
    peer_result_init(&r);
    peer_finish(&p, id, &r);
    assert_int_equal(r.status, 0);
    peer_result_fini(&r);
    peer_stop(&p, 0);
}

static void test_request_too_large(void **state)
{
    static const uint8_t zeroes[CHANNEL_PAYLOAD_MAX];
    struct peer p;
    struct peer_result r;

    (void)state;
    peer_start(&p, false);
    uint32_t id = p.next_stream++;
    for (int i = 0; i < 40; i++)
        peer_send(&p, id, CHANNEL_OPEN, i < 39, zeroes, sizeof(zeroes));
    peer_result_init(&r);
    peer_finish(&p, id, &r);
    assert_int_equal(r.status, E2BIG);
    peer_result_fini(&r);
    /* One that is given up half way. */
    id = p.next_stream++;
    peer_send(&p, id, CHANNEL_OPEN, 1, zeroes, 100);
    peer_send(&p, id, CHANNEL_RESET, 0, NULL, 0);
    peer_result_init(&r);
    peer_finish(&p, id, &r);
    assert_int_equal(r.status, ECANCELED);
    peer_result_fini(&r);
    peer_stop(&p, 0);
}

/* argv and env as large as the kernel takes; beyond that its word is passed on. */
static void test_large_arguments(void **state)
{
    static uint8_t bytes[CHANNEL_OPEN_MAX];
    static char argument[100001];
    struct wire_writer w;
    struct peer p;
    struct peer_result r;

    (void)state;
    memset(argument, 'a', sizeof(argument) - 1);
    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u16(&w, CHANNEL_OP_EXEC);
    wire_put_u32(&w, 0);
    wire_put_u32(&w, 0); /* no terminal */
    wire_put_u32(&w, CHANNEL_UMASK_DEFAULT);
    put_text(&w, "");
    put_text(&w, "/");
    wire_put_u32(&w, 0);
    wire_put_u32(&w, 4 + 9);
    put_text(&w, "/bin/sh");
    put_text(&w, "-c");
    put_text(&w, "echo $# ${#9}");
    put_text(&w, "sh");
    for (int i = 0; i < 9; i++)
        put_text(&w, argument);
    wire_put_u32(&w, 0);
    assert_false(w.bad);
    peer_start(&p, false);
    uint32_t id = p.next_stream++;
    for (size_t at = 0; at < w.used; at += CHANNEL_PAYLOAD_MAX) {
        size_t n = w.used - at < CHANNEL_PAYLOAD_MAX ? w.used - at : CHANNEL_PAYLOAD_MAX;
        peer_send(&p, id, CHANNEL_OPEN, at + n < w.used, bytes + at, n);
    }
    peer_result_init(&r);
    peer_finish(&p, id, &r);
    assert_int_equal(r.status, 0);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "9 100000\n"));
    peer_result_fini(&r);
    peer_stop(&p, 0);
}

/* A host that sends without reading: the agent stops to take, loses nothing, and goes on. */
static void test_host_that_does_not_read(void **state)
{
    static struct peer_frame f;
    struct peer p;
    unsigned count = 20000, ends = 0, first;

    (void)state;
    peer_start(&p, false);
    first = p.next_stream;
    pid_t writer = fork();
    assert_true(writer >= 0);
    if (writer == 0) {
        for (unsigned i = 0; i < count; i++)
            (void)peer_open_file(&p, CHANNEL_OP_READ, 0, "/no/such/file/at/all");
        _exit(0);
    }
    /* Until both are full, from here to the agent and back. */
    for (struct pollfd wait = {.fd = p.fd, .events = POLLOUT}; poll(&wait, 1, 0) == 1;)
        (void)usleep(1000);
    while (ends < count) {
        assert_true(peer_receive(&p, &f));
        assert_int_equal(f.h.type, CHANNEL_END);
        assert_int_equal(f.h.stream, first + ends);
        ends++;
    }
    assert_int_equal(waitpid(writer, NULL, 0), writer);
    peer_stop(&p, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_broken_frames),
        cmocka_unit_test(test_reserved_bits),
        cmocka_unit_test(test_data_past_the_credit),
        cmocka_unit_test(test_credit_overflow),
        cmocka_unit_test(test_data_after_eof),
        cmocka_unit_test(test_stdin_that_was_not_asked_for),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_request_in_pieces),
        cmocka_unit_test(test_request_too_large),
        cmocka_unit_test(test_large_arguments),
        cmocka_unit_test(test_host_that_does_not_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
