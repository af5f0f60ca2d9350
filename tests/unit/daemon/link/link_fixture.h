/* A link with a guest made by hand, and streams whose owner writes down what it is told. */
#pragma once

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
    enum error_code broken_code;
};

/* What a stream's owner was told. */
struct record {
    unsigned infos, ends, rooms, eofs[CHANNEL_LANE_COUNT];
    size_t received[CHANNEL_LANE_COUNT];
    uint8_t last_byte;
    struct agent_info info;
    enum agent_outcome outcome;
    struct agent_end end;
    unsigned broken_before_end;
    struct fixture *f;
    bool free_on_data;
};

static inline void on_broken(void *arg, const struct error *why)
{
    struct fixture *f = arg;

    f->broken++;
    f->broken_code = why->code;
}

static inline void on_info(void *arg, const struct agent_info *info)
{
    struct record *r = arg;

    r->infos++;
    r->info = *info;
}

static inline void on_data(void *arg, enum channel_lane lane, const uint8_t *data, size_t size)
{
    struct record *r = arg;

    assert_true(size > 0);
    assert_int_equal(r->ends, 0);
    r->received[lane] += size;
    r->last_byte = data[size - 1];
    if (r->free_on_data) {
        agent_link_free(r->f->link);
        r->f->link = NULL;
    }
}

static inline void on_eof(void *arg, enum channel_lane lane)
{
    struct record *r = arg;

    r->eofs[lane]++;
}

static inline void on_writable(void *arg)
{
    struct record *r = arg;

    r->rooms++;
}

static inline void on_end(void *arg, enum agent_outcome outcome, const struct agent_end *end)
{
    struct record *r = arg;

    assert_int_equal(outcome == AGENT_ENDED, end != NULL);
    r->ends++;
    r->outcome = outcome;
    r->broken_before_end = r->f->broken;
    if (end != NULL)
        r->end = *end;
}

static const struct agent_stream_calls calls = {
    .on_info = on_info,
    .on_data = on_data,
    .on_eof = on_eof,
    .on_writable = on_writable,
    .on_end = on_end,
};

static inline int set_up(void **state)
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

static inline int tear_down(void **state)
{
    struct fixture *f = *state;

    agent_link_free(f->link);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    fake_agent_fini(&f->agent);
    free(f);
    return 0;
}

static inline struct agent_stream *open_op(struct fixture *f, enum channel_op op, struct record *r,
                                           size_t padding)
{
    static const char *const env[] = {NULL};
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct agent_stream *s = NULL;
    struct error e = ERROR_INIT;
    char *pad = malloc(padding + 1);

    assert_non_null(pad);
    memset(pad, 'x', padding);
    pad[padding] = '\0';
    const char *argv[] = {"/bin/true", pad, NULL};
    const struct agent_command command = {.has_stdin = true,
                                          .umask = CHANNEL_UMASK_DEFAULT,
                                          .user = "",
                                          .cwd = "/",
                                          .argv = argv,
                                          .env = env};
    int rc = op == CHANNEL_OP_EXEC   ? agent_request_exec(&request, &command, &e)
             : op == CHANNEL_OP_READ ? agent_request_read(&request, 0, UINT64_MAX, "/a", &e)
                                     : agent_request_write(&request, 0644, "/a", &e);
    assert_int_equal(rc, 0);
    *r = (struct record){.f = f};
    assert_int_equal(
        agent_stream_open(f->link, op, op != CHANNEL_OP_READ, &request, &calls, r, &s, &e), 0);
    assert_null(request.data);
    free(pad);
    return s;
}

/* Opens, and takes the OPEN frames from the socket. Returns the stream. */
static inline struct agent_stream *open_now(struct fixture *f, enum channel_op op, struct record *r)
{
    struct agent_stream *s = open_op(f, op, r, 0);
    struct fake_frame frame;

    assert_true(fake_recv(&f->agent, &frame));
    assert_int_equal(frame.h.type, CHANNEL_OPEN);
    assert_int_equal(frame.h.lane, 0);
    return s;
}

#define LINK_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
