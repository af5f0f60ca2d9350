/* The daemon's end of the agent channel, against a guest that keeps the protocol. */
#include "link_fixture.h"

static void test_exec_runs(void **state)
{
    struct fixture *f = *state;
    struct record r;

    (void)open_now(f, CHANNEL_OP_EXEC, &r);
    fake_exec_info(&f->agent, 1, 42);
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_OUT, "hello", 5);
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_ERR, "no", 2);
    fake_send(&f->agent, CHANNEL_EOF, 1, CHANNEL_LANE_OUT, NULL, 0);
    assert_int_equal(r.infos, 1);
    assert_int_equal(r.info.pid, 42);
    assert_int_equal(r.received[CHANNEL_LANE_OUT], 5);
    assert_int_equal(r.received[CHANNEL_LANE_ERR], 2);
    assert_int_equal(r.eofs[CHANNEL_LANE_OUT], 1);
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_EXITED, 7);
    assert_int_equal(r.ends, 1);
    assert_int_equal(r.outcome, AGENT_ENDED);
    assert_int_equal(r.end.code, 7);
    assert_int_equal(r.end.user_us, 3000);
    assert_int_equal(f->broken, 0);
    /* That was the stream: a second END has none. */
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_EXITED, 7);
    assert_int_equal(f->broken, 1);
}

static void test_frames_may_come_byte_by_byte(void **state)
{
    struct fixture *f = *state;
    struct record r;
    uint8_t bytes[CHANNEL_HEADER_BYTES + 4];
    struct channel_header info = {.length = 4, .stream = 1, .type = CHANNEL_INFO};
    struct channel_header data = {
        .length = 3, .stream = 1, .type = CHANNEL_DATA, .lane = CHANNEL_LANE_OUT};

    (void)open_now(f, CHANNEL_OP_EXEC, &r);
    frame_header_put(bytes, &info);
    memcpy(bytes + CHANNEL_HEADER_BYTES, "\x2a\0\0\0", 4);
    for (size_t i = 0; i < CHANNEL_HEADER_BYTES + 4; i++)
        fake_send_raw(&f->agent, &bytes[i], 1);
    assert_int_equal(r.info.pid, 42);
    frame_header_put(bytes, &data);
    memcpy(bytes + CHANNEL_HEADER_BYTES, "xyz", 3);
    for (size_t i = 0; i < CHANNEL_HEADER_BYTES + 3; i++)
        fake_send_raw(&f->agent, &bytes[i], 1);
    assert_int_equal(r.received[CHANNEL_LANE_OUT], 3);
    assert_int_equal(r.last_byte, 'z');
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_EXITED, 0);
    assert_int_equal(r.ends, 1);
}

/* The agent puts together one request at a time. */
static void test_long_requests_do_not_mix(void **state)
{
    struct fixture *f = *state;
    struct record a, b;
    struct fake_frame frame;
    unsigned last_stream = 0, finished = 0;

    (void)open_op(f, CHANNEL_OP_EXEC, &a, 300000);
    (void)open_op(f, CHANNEL_OP_EXEC, &b, 300000);
    while (fake_recv(&f->agent, &frame)) {
        assert_int_equal(frame.h.type, CHANNEL_OPEN);
        assert_true(frame.h.stream >= last_stream);
        assert_int_equal(frame.h.stream, finished + 1);
        last_stream = frame.h.stream;
        finished += frame.h.lane == 0;
    }
    assert_int_equal(finished, 2);
    fake_failed(&f->agent, 1, ENOENT, "no such file");
    assert_int_equal(a.end.status, ENOENT);
    assert_string_equal(a.end.text, "no such file");
    fake_failed(&f->agent, 2, ENOENT, "");
    assert_int_equal(b.ends, 1);
}

static void test_credit_follows_consumption(void **state)
{
    struct fixture *f = *state;
    struct record r;
    struct fake_frame frame;
    static uint8_t block[CHANNEL_PAYLOAD_MAX];
    struct agent_stream *s = open_now(f, CHANNEL_OP_EXEC, &r);

    fake_exec_info(&f->agent, 1, 1);
    for (size_t sent = 0; sent < CHANNEL_WINDOW_BYTES; sent += sizeof(block))
        fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_OUT, block, sizeof(block));
    assert_int_equal(r.received[CHANNEL_LANE_OUT], CHANNEL_WINDOW_BYTES);
    assert_false(fake_recv(&f->agent, &frame));
    agent_stream_consume(s, CHANNEL_LANE_OUT, 100000);
    assert_true(fake_recv(&f->agent, &frame));
    assert_int_equal(frame.h.type, CHANNEL_CREDIT);
    assert_int_equal(frame.h.lane, CHANNEL_LANE_OUT);
    assert_int_equal(frame.payload[0] | frame.payload[1] << 8 | frame.payload[2] << 16, 100000);
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_OUT, block, sizeof(block));
    assert_int_equal(f->broken, 0);
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_OUT, block, sizeof(block));
    assert_int_equal(f->broken, 1); /* 131072 > 100000 */
    assert_int_equal(f->broken_code, ERR_BAD_REQUEST);
    assert_int_equal(r.ends, 1);
    assert_int_equal(r.outcome, AGENT_GONE);
    assert_int_equal(r.broken_before_end, 1);
}

static void test_sends_within_credit(void **state)
{
    struct fixture *f = *state;
    struct record r;
    struct fake_frame frame;
    static uint8_t block[CHANNEL_WINDOW_BYTES];
    struct agent_stream *s = open_now(f, CHANNEL_OP_WRITE, &r);
    size_t taken = 0, received = 0;

    /* Fill until nothing moves any more. */
    for (unsigned i = 0; i < 32; i++) {
        taken += agent_stream_send(s, block, sizeof(block));
        while (fake_recv(&f->agent, &frame)) {
            assert_int_equal(frame.h.type, CHANNEL_DATA);
            assert_int_equal(frame.h.lane, CHANNEL_LANE_IN);
            received += frame.h.length;
        }
    }
    assert_int_equal(received, CHANNEL_WINDOW_BYTES);
    assert_true(taken > received && taken < 2 * CHANNEL_WINDOW_BYTES);
    assert_true(r.rooms > 0);
    unsigned rooms = r.rooms;
    agent_stream_eof(s);
    assert_false(fake_recv(&f->agent, &frame));
    fake_send_u32(&f->agent, CHANNEL_CREDIT, 1, CHANNEL_LANE_IN, CHANNEL_WINDOW_BYTES);
    while (fake_recv(&f->agent, &frame) && frame.h.type == CHANNEL_DATA)
        received += frame.h.length;
    assert_int_equal(frame.h.type, CHANNEL_EOF);
    assert_int_equal(received, taken);
    assert_true(r.rooms > rooms);
    fake_file_end(&f->agent, 1, received);
    assert_int_equal(r.ends, 1);
    assert_int_equal(r.end.bytes, received);
}

static void test_streams_take_turns(void **state)
{
    struct fixture *f = *state;
    struct record a, b;
    struct fake_frame frame;
    static uint8_t block[100 * 1024];
    struct agent_stream *s = open_now(f, CHANNEL_OP_WRITE, &a);
    struct agent_stream *t = open_now(f, CHANNEL_OP_WRITE, &b);
    unsigned last = 0, repeats = 0, frames = 0;

    assert_int_equal(agent_stream_send(s, block, sizeof(block)), sizeof(block));
    assert_int_equal(agent_stream_send(t, block, sizeof(block)), sizeof(block));
    while (fake_recv(&f->agent, &frame)) {
        repeats += frame.h.stream == last;
        last = frame.h.stream;
        frames++;
    }
    assert_true(frames >= 8);
    assert_int_equal(repeats, 0);
}

static void test_signals(void **state)
{
    struct fixture *f = *state;
    struct record r;
    struct fake_frame frame;
    struct agent_stream *s = open_now(f, CHANNEL_OP_EXEC, &r);

    agent_stream_signal(s, CHANNEL_SIGNAL_GROUP, 15);
    agent_stream_signal(s, CHANNEL_SIGNAL_GROUP, 1);
    assert_true(fake_recv(&f->agent, &frame));
    assert_int_equal(frame.h.type, CHANNEL_SIGNAL);
    assert_int_equal(frame.payload[0], 1);
    assert_true(fake_recv(&f->agent, &frame));
    assert_int_equal(frame.payload[0], 15);
    assert_false(fake_recv(&f->agent, &frame));
}

static void test_closed_channel_ends_all(void **state)
{
    struct fixture *f = *state;
    struct record a, b, c;
    struct agent_stream *s = NULL;
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct error e = ERROR_INIT;

    (void)open_now(f, CHANNEL_OP_EXEC, &a);
    (void)open_now(f, CHANNEL_OP_READ, &b);
    agent_stream_reset(open_op(f, CHANNEL_OP_EXEC, &c, 0));
    fake_agent_fini(&f->agent);
    fake_spin(&f->agent);
    assert_int_equal(f->broken, 1);
    assert_int_equal(f->broken_code, ERR_SANDBOX_GONE);
    assert_int_equal(a.ends + b.ends + c.ends, 3);
    assert_int_equal(a.outcome, AGENT_GONE);
    assert_int_equal(b.outcome, AGENT_GONE);
    assert_int_equal(agent_request_read(&request, 0, UINT64_MAX, "/a", &e), 0);
    assert_int_equal(
        agent_stream_open(f->link, CHANNEL_OP_READ, false, &request, &calls, &a, &s, &e), -1);
    assert_int_equal(e.code, ERR_SANDBOX_GONE);
    buffer_fini(&request);
}

static void test_free_from_a_callback(void **state)
{
    struct fixture *f = *state;
    struct record r;

    (void)open_now(f, CHANNEL_OP_EXEC, &r);
    r.free_on_data = true;
    fake_exec_info(&f->agent, 1, 1);
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_OUT, "x", 1);
    assert_null(f->link);
    assert_int_equal(r.ends, 1);
    assert_int_equal(r.outcome, AGENT_GONE);
    assert_int_equal(f->broken, 0);
}

static void test_accusation_breaks(void **state)
{
    struct fixture *f = *state;
    struct record r;

    (void)open_now(f, CHANNEL_OP_EXEC, &r);
    agent_link_accuse(f->link, "nonsense");
    assert_int_equal(f->broken, 0);
    fake_spin(&f->agent);
    assert_int_equal(f->broken, 1);
    assert_int_equal(r.outcome, AGENT_GONE);
}

static void test_stream_limit(void **state)
{
    struct fixture *f = *state;
    struct record r;
    struct agent_stream *s = NULL;
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct error e = ERROR_INIT;

    for (unsigned i = 0; i < CHANNEL_STREAMS_MAX; i++)
        (void)open_op(f, CHANNEL_OP_READ, &r, 0);
    assert_int_equal(agent_request_read(&request, 0, UINT64_MAX, "/a", &e), 0);
    assert_int_equal(
        agent_stream_open(f->link, CHANNEL_OP_READ, false, &request, &calls, &r, &s, &e), -1);
    assert_int_equal(e.code, ERR_TOO_MANY);
    buffer_fini(&request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LINK_TEST(test_exec_runs),
        LINK_TEST(test_frames_may_come_byte_by_byte),
        LINK_TEST(test_long_requests_do_not_mix),
        LINK_TEST(test_credit_follows_consumption),
        LINK_TEST(test_sends_within_credit),
        LINK_TEST(test_streams_take_turns),
        LINK_TEST(test_signals),
        LINK_TEST(test_closed_channel_ends_all),
        LINK_TEST(test_free_from_a_callback),
        LINK_TEST(test_accusation_breaks),
        LINK_TEST(test_stream_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
