/* The core of the agent by itself: a service with a table of operations that exist nowhere else. */
#include "test_agent_peer.h"

#include <errno.h>
#include <sys/epoll.h>

#define OP_STEPS    100u
#define OP_LARGE    101u
#define OP_ASK      102u
#define TAG         7u
#define CHILD_CODE  23
#define LARGE_BYTES 100000u

/* In the service's process, where nothing may be asserted. */
static void check(bool is_true)
{
    if (!is_true)
        _exit(PEER_EXIT_FAILED);
}

/* What the streams of an operation share. */
struct counts {
    uint8_t live;
    uint8_t idle;
};

static void say(struct stream *s, char letter)
{
    size_t size;
    uint8_t *to = stream_data_begin(s, CHANNEL_LANE_IN, 1, &size);

    check(to != NULL && size == 1);
    to[0] = (uint8_t)letter;
    stream_data_end(s, CHANNEL_LANE_IN, size);
}

/* --- An operation that waits for all there is: an event, a child's end, a time -------------------
 */

struct steps {
    int fds[2];
    pid_t pid;
};

static int steps_start(struct stream *s, struct wire_reader *reader)
{
    struct counts *counts = s->shared;
    struct steps *steps = s->state;

    counts->live++;
    steps->fds[0] = steps->fds[1] = -1;
    if (reader->left != 0)
        return -1;
    stream_info(s, NULL, 0);
    check(pipe(steps->fds) == 0 && write(steps->fds[1], "", 1) == 1 &&
          stream_watch(s, TAG, steps->fds[0], EPOLLIN | EPOLLET) == 0);
    return 0;
}

static void steps_event(struct stream *s, unsigned tag, uint32_t events)
{
    struct steps *steps = s->state;

    check(tag == TAG && (events & EPOLLIN) != 0);
    say(s, 'e');
    steps->pid = fork();
    if (steps->pid == 0)
        _exit(CHILD_CODE);
}

static bool steps_child(struct stream *s, pid_t pid, int status, const struct rusage *usage)
{
    struct steps *steps = s->state;

    (void)usage;
    if (pid != steps->pid)
        return false;
    check(WIFEXITED(status) && WEXITSTATUS(status) == CHILD_CODE);
    say(s, 'c');
    s->wake_at_ns = clock_mono_ns() + NS_PER_MS;
    return true;
}

static void steps_wake(struct stream *s)
{
    check(s->wake_at_ns == 0);
    say(s, 'w');
}

static int steps_eof(struct stream *s)
{
    stream_eof(s, CHANNEL_LANE_IN);
    stream_end(s, NULL, 0);
    return 0;
}

static void steps_fini(struct stream *s)
{
    struct counts *counts = s->shared;
    struct steps *steps = s->state;

    counts->live--;
    fd_close(&steps->fds[0]);
    fd_close(&steps->fds[1]);
}

static const struct stream_op steps_op = {
    .op = OP_STEPS,
    .state_bytes = sizeof(struct steps),
    .start = steps_start,
    .eof = steps_eof,
    .event = steps_event,
    .child = steps_child,
    .wake = steps_wake,
    .fini = steps_fini,
};

/* --- One whose state is not there before it is opened -------------------------------------------
 */

static int large_start(struct stream *s, struct wire_reader *reader)
{
    struct counts *counts = s->shared;
    const uint8_t *bytes = s->state;

    (void)reader;
    counts->live++;
    check(bytes[0] == 0 && memcmp(bytes, bytes + 1, LARGE_BYTES - 1) == 0);
    memset(s->state, 0xff, LARGE_BYTES);
    stream_info(s, NULL, 0);
    return 0;
}

static void large_fini(struct stream *s)
{
    struct counts *counts = s->shared;

    counts->live--;
}

static const struct stream_op large_op = {
    .op = OP_LARGE, .state_bytes = LARGE_BYTES, .start = large_start, .fini = large_fini};

/* --- One that tells what the others share -------------------------------------------------------
 */

static struct counts steps_counts, large_counts;

static int ask_start(struct stream *s, struct wire_reader *reader)
{
    const uint64_t answer = (uint64_t)steps_counts.live << 16 | (uint64_t)large_counts.live << 8 |
                            (uint64_t)(steps_counts.idle > 0);

    (void)reader;
    stream_end(s, &answer, sizeof(answer));
    return 0;
}

static void ask_fini(struct stream *s)
{
    (void)s;
}

static const struct stream_op ask_op = {.op = OP_ASK, .start = ask_start, .fini = ask_fini};

static void count_idle(void *owner)
{
    struct counts *counts = owner;

    counts->idle = 1;
}

static void core_main(int fd, const char *cgroup)
{
    static const struct stream_row rows[] = {
        {&steps_op, &steps_counts}, {&large_op, &large_counts}, {&ask_op, NULL}};
    static struct service service;
    struct error e = ERROR_INIT;

    (void)cgroup;
    check(service_init(&service, fd, rows, sizeof(rows) / sizeof(rows[0]), &e) == 0);
    service_when_idle(&service, count_idle, &steps_counts);
    int result = service_run(&service, &e);
    service_fini(&service);
    check(steps_counts.live == 0 && large_counts.live == 0);
    exit(result < 0 ? PEER_EXIT_BROKEN : 0);
}

static int set_up(void **state)
{
    static struct peer p;

    peer_main = core_main;
    peer_start(&p, false);
    *state = &p;
    return 0;
}

static uint32_t open_op(struct peer *p, uint16_t op)
{
    uint8_t bytes[2];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u16(&w, op);
    return peer_open(p, bytes, &w);
}

/* Receives the stream's next DATA, which is one letter. */
static void expect_letter(struct peer *p, uint32_t stream, char letter)
{
    static struct peer_frame f;

    do {
        assert_true(peer_receive(p, &f));
    } while (f.h.type == CHANNEL_INFO);
    assert_int_equal(f.h.type, CHANNEL_DATA);
    assert_int_equal(f.h.stream, stream);
    assert_int_equal(f.h.length, 1);
    assert_int_equal(f.payload[0], letter);
}

static void expect_end(struct peer *p, uint32_t stream, uint32_t status)
{
    struct peer_result r;

    peer_result_init(&r);
    peer_finish(p, stream, &r);
    assert_int_equal(r.status, status);
    peer_result_fini(&r);
}

static void expect_counts(struct peer *p, unsigned steps, unsigned large)
{
    struct peer_result r;

    peer_result_init(&r);
    peer_finish(p, open_op(p, OP_ASK), &r);
    assert_int_equal(r.bytes >> 16, steps);
    assert_int_equal(r.bytes >> 8 & 0xff, large);
    assert_int_equal(r.bytes & 0xff, 1); /* it was idle before it was asked */
    peer_result_fini(&r);
}

static void test_events_children_and_times(void **state)
{
    struct peer *p = *state;
    uint32_t one = open_op(p, OP_STEPS);

    expect_letter(p, one, 'e');
    expect_letter(p, one, 'c');
    expect_letter(p, one, 'w');
    uint32_t two = open_op(p, OP_STEPS);
    expect_letter(p, two, 'e');
    expect_letter(p, two, 'c');
    expect_letter(p, two, 'w');
    expect_counts(p, 2, 0);
    peer_send(p, one, CHANNEL_EOF, 0, NULL, 0);
    expect_end(p, one, 0);
    expect_counts(p, 1, 0);
    /* Who has no `reset` ends at once; the service ends the rest. */
    peer_send(p, two, CHANNEL_RESET, 0, NULL, 0);
    expect_end(p, two, ECANCELED);
    uint32_t three = open_op(p, OP_STEPS);
    expect_letter(p, three, 'e');
    peer_stop(p, 0);
}

static void test_states(void **state)
{
    struct peer *p = *state;

    for (int i = 0; i < 3; i++) {
        uint32_t s = open_op(p, OP_LARGE);
        expect_counts(p, 0, 1);
        peer_send(p, s, CHANNEL_RESET, 0, NULL, 0);
        expect_end(p, s, ECANCELED);
        expect_counts(p, 0, 0);
    }
    (void)open_op(p, OP_LARGE);
    peer_stop(p, 0);
}

/* What a row does not have, the host has no right to send. */
static void test_no_data(void **state)
{
    struct peer *p = *state;
    uint32_t s = open_op(p, OP_STEPS);

    expect_letter(p, s, 'e');
    peer_send(p, s, CHANNEL_DATA, 0, "x", 1);
    peer_stop(p, PEER_EXIT_BROKEN);
}

static void test_no_eof(void **state)
{
    struct peer *p = *state;

    peer_send(p, open_op(p, OP_LARGE), CHANNEL_EOF, 0, NULL, 0);
    peer_stop(p, PEER_EXIT_BROKEN);
}

static void test_malformed(void **state)
{
    struct peer *p = *state;
    const uint8_t request[3] = {OP_STEPS};

    peer_send(p, 1, CHANNEL_OPEN, 0, request, sizeof(request));
    peer_stop(p, PEER_EXIT_BROKEN);
}

static void test_not_in_the_table(void **state)
{
    struct peer *p = *state;

    (void)open_op(p, CHANNEL_OP_EXEC);
    peer_stop(p, PEER_EXIT_BROKEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_events_children_and_times, set_up),
        cmocka_unit_test_setup(test_states, set_up),
        cmocka_unit_test_setup(test_no_data, set_up),
        cmocka_unit_test_setup(test_no_eof, set_up),
        cmocka_unit_test_setup(test_malformed, set_up),
        cmocka_unit_test_setup(test_not_in_the_table, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
