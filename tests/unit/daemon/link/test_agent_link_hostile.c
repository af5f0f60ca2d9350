/* The daemon's end of the agent channel, against a guest that breaks the protocol: each fault
 * breaks the link once, and every stream learns of it once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/link/agent_link.h"
#include "tests/fake_agent.h"

struct fixture {
    uv_loop_t loop;
    struct fake_agent agent;
    struct agent_link *link;
    unsigned broken;
    unsigned infos, ends, gone;
    size_t received;
    struct error why;
    struct agent_stream *streams[3];
};

/* Streams 1, 2 and 3, in this order. */
enum { EXEC = 1, READ, WRITE, NONE };

static void on_broken(void *arg, const struct error *why)
{
    struct fixture *f = arg;

    f->broken++;
    f->why = *why;
}

static void on_info(void *arg, const struct agent_info *info)
{
    struct fixture *f = arg;

    (void)info;
    f->infos++;
}

static void on_data(void *arg, enum channel_lane lane, const uint8_t *data, size_t size)
{
    struct fixture *f = arg;

    (void)lane;
    (void)data;
    f->received += size;
}

static void on_end(void *arg, enum agent_outcome outcome, const struct agent_end *end)
{
    struct fixture *f = arg;

    (void)end;
    f->ends++;
    f->gone += outcome == AGENT_GONE;
}

static const struct agent_stream_calls calls = {
    .on_info = on_info, .on_data = on_data, .on_end = on_end};

static void open_one(struct fixture *f, enum channel_op op)
{
    static const char *const argv[] = {"/bin/true", NULL};
    static const char *const env[] = {NULL};
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct fake_frame frame;
    struct error e = ERROR_INIT;
    const struct agent_command command = {.has_stdin = false,
                                          .umask = CHANNEL_UMASK_DEFAULT,
                                          .user = "",
                                          .cwd = "/",
                                          .argv = argv,
                                          .env = env};
    int rc = op == CHANNEL_OP_EXEC   ? agent_request_exec(&request, &command, &e)
             : op == CHANNEL_OP_READ ? agent_request_read(&request, 0, UINT64_MAX, "/a", &e)
                                     : agent_request_write(&request, 0644, "/a", &e);

    assert_int_equal(rc, 0);
    assert_int_equal(agent_stream_open(f->link, op, op == CHANNEL_OP_WRITE, &request, &calls, f,
                                       &f->streams[op - 1], &e),
                     0);
    assert_true(fake_expect(&f->agent, CHANNEL_OPEN, &frame));
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error e = ERROR_INIT;

    assert_non_null(f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    int fd = fake_agent_init(&f->agent, &f->loop);
    assert_int_equal(agent_link_new(&f->loop, fd, on_broken, f, &f->link, &e), 0);
    open_one(f, CHANNEL_OP_EXEC);
    open_one(f, CHANNEL_OP_READ);
    open_one(f, CHANNEL_OP_WRITE);
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

/* One frame, or what brings a stream into a state. */
struct step {
    unsigned type;
    uint32_t stream;
    unsigned lane;
    size_t size; /* of the payload, zeroes but for `head` */
    uint8_t head[32];
};

#define FRAME(t, s, l, n)                                                                          \
    {                                                                                              \
        .type = (t), .stream = (s), .lane = (l), .size = (n)                                       \
    }
#define FRAME_WITH(t, s, l, n, ...)                                                                \
    {                                                                                              \
        .type = (t), .stream = (s), .lane = (l), .size = (n), .head = { __VA_ARGS__ }              \
    }
#define INFO(s) FRAME_WITH(CHANNEL_INFO, (s), 0, (s) == EXEC ? 4 : (s) == READ ? 28 : 0, 1)

/* The last step of each case is the fault; those before are legal. */
static const struct fault {
    const char *name;
    struct step steps[6];
} faults[] = {
    {"a stream that was never opened", {FRAME(CHANNEL_DATA, 9, 1, 4)}},
    {"END of a stream that was never opened", {FRAME(CHANNEL_END, 9, 0, 8)}},
    {"DATA before INFO", {FRAME(CHANNEL_DATA, EXEC, 1, 4)}},
    {"EOF before INFO", {FRAME(CHANNEL_EOF, EXEC, 1, 0)}},
    {"two INFOs", {INFO(EXEC), INFO(EXEC)}},
    {"an INFO that is too short", {FRAME(CHANNEL_INFO, EXEC, 0, 3)}},
    {"an INFO that is too long", {FRAME(CHANNEL_INFO, EXEC, 0, 5)}},
    {"a process without a number", {FRAME(CHANNEL_INFO, EXEC, 0, 4)}},
    {"an INFO of a full frame", {FRAME(CHANNEL_INFO, EXEC, 0, CHANNEL_PAYLOAD_MAX)}},
    {"an exec's output on lane 0", {INFO(EXEC), FRAME(CHANNEL_DATA, EXEC, 0, 4)}},
    {"a file on lane 1", {INFO(READ), FRAME(CHANNEL_DATA, READ, 1, 4)}},
    {"DATA for a file that is written", {INFO(WRITE), FRAME(CHANNEL_DATA, WRITE, 0, 4)}},
    {"EOF of a file that is written", {INFO(WRITE), FRAME(CHANNEL_EOF, WRITE, 0, 0)}},
    {"DATA after EOF",
     {INFO(EXEC), FRAME(CHANNEL_EOF, EXEC, 1, 0), FRAME(CHANNEL_DATA, EXEC, 1, 1)}},
    {"two EOFs", {INFO(EXEC), FRAME(CHANNEL_EOF, EXEC, 2, 0), FRAME(CHANNEL_EOF, EXEC, 2, 0)}},
    {"DATA past the window",
     {INFO(EXEC), FRAME(CHANNEL_DATA, EXEC, 1, CHANNEL_PAYLOAD_MAX),
      FRAME(CHANNEL_DATA, EXEC, 1, CHANNEL_PAYLOAD_MAX),
      FRAME(CHANNEL_DATA, EXEC, 1, CHANNEL_PAYLOAD_MAX),
      FRAME(CHANNEL_DATA, EXEC, 1, CHANNEL_PAYLOAD_MAX), FRAME(CHANNEL_DATA, EXEC, 1, 1)}},
    {"credit for a lane nobody fills", {FRAME(CHANNEL_CREDIT, EXEC, 0, 4)}},
    {"credit for a read", {FRAME(CHANNEL_CREDIT, READ, 0, 4)}},
    {"credit on lane 1", {FRAME(CHANNEL_CREDIT, WRITE, 1, 4)}},
    {"credit past the window", {FRAME_WITH(CHANNEL_CREDIT, WRITE, 0, 4, 1)}},
    {"the largest credit", {FRAME_WITH(CHANNEL_CREDIT, WRITE, 0, 4, 255, 255, 255, 255)}},
    {"OPEN by the guest", {FRAME(CHANNEL_OPEN, EXEC, 0, 4)}},
    {"SIGNAL by the guest", {FRAME(CHANNEL_SIGNAL, EXEC, 0, 4)}},
    {"RESET by the guest", {FRAME(CHANNEL_RESET, EXEC, 0, 0)}},
    {"an empty END", {FRAME(CHANNEL_END, EXEC, 0, 0)}},
    {"a forged success of what never started",
     {FRAME_WITH(CHANNEL_END, EXEC, 0, 48, 0, 0, 0, 0, 0, 0, 0, 0, CHANNEL_EXEC_EXITED)}},
    {"an END without fields", {INFO(EXEC), FRAME(CHANNEL_END, EXEC, 0, 8)}},
    {"an END with fields of an unknown kind", {INFO(EXEC), FRAME(CHANNEL_END, EXEC, 0, 48)}},
    {"an exit code past 255",
     {INFO(EXEC), FRAME_WITH(CHANNEL_END, EXEC, 0, 48, 0, 0, 0, 0, 0, 0, 0, 0, CHANNEL_EXEC_EXITED,
                             0, 0, 0, 0, 1)}},
    {"signal 0",
     {INFO(EXEC),
      FRAME_WITH(CHANNEL_END, EXEC, 0, 48, 0, 0, 0, 0, 0, 0, 0, 0, CHANNEL_EXEC_SIGNALED)}},
    {"a file of 2^63 bytes", {FRAME_WITH(CHANNEL_INFO, READ, 0, 28, 0, 0, 0, 0, 0, 0, 0, 128)}},
    {"a range that begins behind its file",
     {FRAME_WITH(CHANNEL_INFO, READ, 0, 28, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                 0, 8)}},
    {"an END with a failure and fields", {FRAME_WITH(CHANNEL_END, EXEC, 0, 48, 2)}},
    {"an END whose text is longer than the frame",
     {FRAME_WITH(CHANNEL_END, EXEC, 0, 12, 2, 0, 0, 0, 255, 0, 0, 0)}},
    {"an END with NUL in its text", {FRAME_WITH(CHANNEL_END, EXEC, 0, 12, 2, 0, 0, 0, 4)}},
    {"an END of a full frame", {FRAME_WITH(CHANNEL_END, EXEC, 0, CHANNEL_PAYLOAD_MAX, 2)}},
    {"a read that ends before its EOF", {INFO(READ), FRAME(CHANNEL_END, READ, 0, 16)}},
    {"a read that claims more than it sent",
     {INFO(READ), FRAME(CHANNEL_DATA, READ, 0, 3), FRAME(CHANNEL_EOF, READ, 0, 0),
      FRAME(CHANNEL_END, READ, 0, 16)}},
    {"a write that ends before our EOF", {INFO(WRITE), FRAME(CHANNEL_END, WRITE, 0, 16)}},
    {"a frame after END",
     {FRAME_WITH(CHANNEL_END, EXEC, 0, 8, 2), FRAME_WITH(CHANNEL_END, EXEC, 0, 8, 2)}},
    {"INFO after END", {FRAME_WITH(CHANNEL_END, EXEC, 0, 8, 2), INFO(EXEC)}},
    {"lane 3", {INFO(EXEC), FRAME(CHANNEL_DATA, EXEC, 3, 1)}},
    {"type 0", {FRAME(0, EXEC, 0, 0)}},
    {"type 9", {FRAME(9, EXEC, 0, 0)}},
    {"empty DATA", {INFO(EXEC), FRAME(CHANNEL_DATA, EXEC, 1, 0)}},
    {"stream 0", {FRAME(CHANNEL_END, 0, 0, 8)}},
};

static void send_step(struct fixture *f, const struct step *step)
{
    static uint8_t payload[CHANNEL_PAYLOAD_MAX];

    memset(payload, 0, sizeof(payload));
    memcpy(payload, step->head, sizeof(step->head));
    fake_send(&f->agent, step->type, step->stream, step->lane, payload, step->size);
}

static void test_each_fault_breaks_the_link_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        void *own = NULL;
        size_t count = 0;

        assert_int_equal(set_up(&own), 0);
        struct fixture *f = own;
        while (count < 6 && (faults[i].steps[count].type != 0 || count == 0))
            count++;
        for (size_t step = 0; step < count; step++) {
            if (f->broken != 0)
                fail_msg("%s: broken too early: %s", faults[i].name, f->why.message);
            send_step(f, &faults[i].steps[step]);
        }
        if (f->broken != 1)
            fail_msg("%s: broken %u times", faults[i].name, f->broken);
        assert_int_equal(f->why.code, ERR_BAD_REQUEST);
        assert_int_equal(f->ends, 3);
        assert_true(f->gone >= 2);
        /* Nothing revives it. */
        fake_exec_info(&f->agent, EXEC, 1);
        assert_int_equal(f->broken, 1);
        assert_int_equal(f->ends, 3);
        assert_int_equal(tear_down(&own), 0);
    }
}

static void test_reserved_bits_and_huge_lengths(void **state)
{
    static const uint8_t heads[][CHANNEL_HEADER_BYTES] = {
        {4, 0, 0, 0, 1, 0, 0, 0, CHANNEL_INFO, 0, 1, 0},
        {255, 255, 255, 255, 1, 0, 0, 0, CHANNEL_DATA, 1, 0, 0},
        {1, 0, 1, 0, 1, 0, 0, 0, CHANNEL_DATA, 1, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        void *own = NULL;

        assert_int_equal(set_up(&own), 0);
        struct fixture *f = own;
        fake_send_raw(&f->agent, heads[i], sizeof(heads[i]));
        assert_int_equal(f->broken, 1);
        assert_int_equal(f->gone, 3);
        assert_int_equal(tear_down(&own), 0);
    }
}

/* A reset stream is still judged, its output dropped and never granted again. */
static void test_reset_stream_cannot_flood(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[CHANNEL_PAYLOAD_MAX];
    struct fake_frame frame;

    fake_exec_info(&f->agent, EXEC, 1);
    agent_stream_reset(f->streams[EXEC - 1]);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &frame));
    for (size_t sent = 0; sent < CHANNEL_WINDOW_BYTES; sent += sizeof(block))
        fake_send(&f->agent, CHANNEL_DATA, EXEC, CHANNEL_LANE_ERR, block, sizeof(block));
    assert_int_equal(f->broken, 0);
    assert_int_equal(f->received, 0);
    assert_false(fake_recv(&f->agent, &frame));
    fake_send(&f->agent, CHANNEL_DATA, EXEC, CHANNEL_LANE_ERR, block, 1);
    assert_int_equal(f->broken, 1);
    assert_int_equal(f->gone, 3);
}

static void test_small_frame_flood(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[(CHANNEL_HEADER_BYTES + 4) * 4096];
    struct channel_header h = {.length = 4, .stream = WRITE, .type = CHANNEL_CREDIT};

    memset(bytes, 0, sizeof(bytes));
    for (size_t at = 0; at < sizeof(bytes); at += CHANNEL_HEADER_BYTES + 4)
        frame_header_put(bytes + at, &h);
    for (unsigned i = 0; i < 32; i++)
        fake_send_raw(&f->agent, bytes, sizeof(bytes));
    assert_int_equal(f->broken, 0);
    assert_int_equal(f->ends, 0);
}

static void test_end_missing(void **state)
{
    struct fixture *f = *state;

    fake_exec_info(&f->agent, EXEC, 1);
    fake_send(&f->agent, CHANNEL_EOF, EXEC, CHANNEL_LANE_OUT, NULL, 0);
    fake_agent_fini(&f->agent);
    fake_spin(&f->agent);
    assert_int_equal(f->broken, 1);
    assert_int_equal(f->why.code, ERR_SANDBOX_GONE);
    assert_int_equal(f->gone, 3);
}

static void test_text_of_the_guest_is_tamed(void **state)
{
    uint8_t payload[64];
    struct agent_end end;
    struct error e = ERROR_INIT;
    struct wire_writer w;

    (void)state;
    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u32(&w, 2);
    wire_put_string(&w, "a\x1b[2J\xc3\xa9\xc2\x9b\xff\x7f", 11);
    assert_int_equal(agent_end_parse(CHANNEL_OP_EXEC, payload, w.used, &end, &e), 0);
    assert_string_equal(end.text, "a?[2J\xc3\xa9????");
}

#define LINK_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_fault_breaks_the_link_once),
        cmocka_unit_test(test_reserved_bits_and_huge_lengths),
        LINK_TEST(test_reset_stream_cannot_flood),
        LINK_TEST(test_small_frame_flood),
        LINK_TEST(test_end_missing),
        cmocka_unit_test(test_text_of_the_guest_is_tamed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
