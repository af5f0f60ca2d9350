/* Streams that their owners do not want any more. */
#include "link_fixture.h"

static void test_reset(void **state)
{
    struct fixture *f = *state;
    struct record r;
    struct fake_frame frame;
    struct agent_stream *s = open_now(f, CHANNEL_OP_EXEC, &r);

    fake_exec_info(&f->agent, 1, 1);
    agent_stream_reset(s);
    agent_stream_reset(s);
    assert_true(fake_recv(&f->agent, &frame));
    assert_int_equal(frame.h.type, CHANNEL_RESET);
    assert_false(fake_recv(&f->agent, &frame));
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_OUT, "late", 4);
    assert_int_equal(r.received[CHANNEL_LANE_OUT], 0);
    assert_int_equal(agent_stream_send(s, "x", 1), 1);
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_SIGNALED, 9);
    assert_int_equal(r.ends, 1);
    assert_int_equal(r.end.kind, CHANNEL_EXEC_SIGNALED);
    assert_int_equal(f->broken, 0);
}

static void test_reset_before_open_sends_nothing(void **state)
{
    struct fixture *f = *state;
    struct record r;
    struct fake_frame frame;
    struct agent_stream *s = open_op(f, CHANNEL_OP_EXEC, &r, 0);

    agent_stream_reset(s);
    assert_int_equal(r.ends, 0); /* never from inside */
    assert_false(fake_recv(&f->agent, &frame));
    assert_int_equal(r.ends, 1);
    assert_int_equal(r.outcome, AGENT_CANCELED);
    (void)open_op(f, CHANNEL_OP_EXEC, &r, 0);
    assert_true(fake_recv(&f->agent, &frame));
    assert_int_equal(frame.h.stream, 2);
}

/* It stays with its owner until on_end, who may still ask for things. */
static void test_canceled_has_nothing_more_to_say(void **state)
{
    struct fixture *f = *state;
    struct record r;
    struct fake_frame frame;
    struct agent_stream *s = open_op(f, CHANNEL_OP_EXEC, &r, 0);

    agent_stream_reset(s);
    agent_stream_signal(s, CHANNEL_SIGNAL_GROUP, 15);
    agent_stream_eof(s);
    assert_false(fake_recv(&f->agent, &frame));
    assert_int_equal(r.ends, 1);
    assert_int_equal(r.outcome, AGENT_CANCELED);
}

static void test_abandoned_says_nothing(void **state)
{
    struct fixture *f = *state;
    struct record r;
    struct agent_stream *s = open_now(f, CHANNEL_OP_EXEC, &r);

    agent_stream_abandon(s);
    fake_spin(&f->agent);
    fake_exec_info(&f->agent, 1, 1);
    fake_send(&f->agent, CHANNEL_DATA, 1, CHANNEL_LANE_OUT, "late", 4);
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_SIGNALED, 9);
    assert_int_equal(f->broken, 0); /* it is remembered until then */
    fake_exec_end(&f->agent, 1, CHANNEL_EXEC_SIGNALED, 9);
    assert_int_equal(f->broken, 1);
    assert_int_equal(r.infos + r.ends + r.received[CHANNEL_LANE_OUT], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LINK_TEST(test_reset),
        LINK_TEST(test_reset_before_open_sends_nothing),
        LINK_TEST(test_canceled_has_nothing_more_to_say),
        LINK_TEST(test_abandoned_says_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
