/*
 * Arbitrary bytes as a guest's output, with several streams open. Whatever they are, the owners of
 * the streams see a legal order of calls, never more bytes than they granted, and one end each;
 * what the link says in between stays within the protocol.
 *
 * The first byte says how the input is cut; each piece's length decides what the owners do before
 * the next one, so that resets and credit meet frames that are half read.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/link/agent_link.h"
#include "tests/fake_agent.h"

#define STREAMS 7u

struct owner {
    struct agent_stream *stream; /* NULL: over or abandoned */
    enum channel_op op;
    bool sends, is_reset, is_abandoned;
    unsigned infos, ends;
    bool eofs[CHANNEL_LANE_COUNT];
    uint64_t received[CHANNEL_LANE_COUNT], consumed[CHANNEL_LANE_COUNT];
};

static struct owner owners[STREAMS];
static unsigned broken;

static void on_broken(void *arg, const struct error *why)
{
    (void)arg;
    assert(why->code == ERR_BAD_REQUEST || why->code == ERR_SANDBOX_GONE);
    assert(why->message[0] != '\0');
    broken++;
}

static void check_alive(const struct owner *o)
{
    assert(o->ends == 0 && !o->is_abandoned && !o->is_reset && broken == 0);
}

static void on_info(void *arg, const struct agent_info *info)
{
    struct owner *o = arg;

    check_alive(o);
    assert(o->infos++ == 0);
    assert(info->size <= INT64_MAX && info->mode <= 07777);
}

static void on_data(void *arg, enum channel_lane lane, const uint8_t *data, size_t size)
{
    struct owner *o = arg;
    volatile uint8_t sum = 0;

    check_alive(o);
    assert(o->infos == 1 && !o->eofs[lane] && size > 0);
    assert(o->op != CHANNEL_OP_WRITE && (o->op != CHANNEL_OP_EXEC) == (lane == CHANNEL_LANE_IN));
    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + data[i]);
    o->received[lane] += size;
    assert(o->received[lane] - o->consumed[lane] <= CHANNEL_WINDOW_BYTES);
}

static void on_eof(void *arg, enum channel_lane lane)
{
    struct owner *o = arg;

    check_alive(o);
    assert(o->infos == 1 && !o->eofs[lane]);
    o->eofs[lane] = true;
}

static void on_writable(void *arg)
{
    check_alive(arg);
}

static void on_end(void *arg, enum agent_outcome outcome, const struct agent_end *end)
{
    struct owner *o = arg;

    assert(!o->is_abandoned && o->ends == 0);
    o->ends++;
    o->stream = NULL;
    assert((outcome == AGENT_ENDED) == (end != NULL));
    if (end == NULL)
        return;
    assert(memchr(end->text, '\0', sizeof(end->text)) != NULL);
    if (end->status == 0 && o->op != CHANNEL_OP_WRITE)
        assert(o->infos == 1 || o->is_reset);
    if (end->status == 0 && (o->op == CHANNEL_OP_READ || o->op == CHANNEL_OP_LIST) && !o->is_reset)
        assert(o->eofs[CHANNEL_LANE_IN] && end->bytes == o->received[CHANNEL_LANE_IN]);
}

static void open_stream(struct agent_link *link, struct owner *o, enum channel_op op, bool sends)
{
    static const struct agent_stream_calls calls = {.on_info = on_info,
                                                    .on_data = on_data,
                                                    .on_eof = on_eof,
                                                    .on_writable = on_writable,
                                                    .on_end = on_end};
    static const char *const argv[] = {"/bin/sh", "-c", "true", NULL};
    static const char *const env[] = {"A=b", NULL};
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct error e = ERROR_INIT;
    const struct agent_command command = {.has_stdin = sends,
                                          .umask = CHANNEL_UMASK_DEFAULT,
                                          .user = "",
                                          .cwd = "/",
                                          .argv = argv,
                                          .env = env};
    int rc = op == CHANNEL_OP_EXEC      ? agent_request_exec(&request, &command, &e)
             : op == CHANNEL_OP_READ    ? agent_request_read(&request, 0, UINT64_MAX, "/a", &e)
             : op == CHANNEL_OP_LIST    ? agent_request_list(&request, 9, "", "/a", &e)
             : op == CHANNEL_OP_TREE_IN ? agent_request_tree(&request, op, "/a", &e)
                                        : agent_request_write(&request, 0644, "/a", &e);

    *o = (struct owner){.op = op, .sends = sends};
    if (rc != 0 || agent_stream_open(link, op, sends, &request, &calls, o, &o->stream, &e) != 0)
        abort();
}

/* Something an owner might do now. */
static void act(struct owner *o, uint8_t choice)
{
    static const uint8_t bytes[40000];
    enum channel_lane lane = (enum channel_lane)((choice >> 3) % CHANNEL_LANE_COUNT);

    if (o->stream == NULL)
        return;
    switch (choice & 7) {
    case 0:
    case 1:
    case 2: {
        size_t size = (size_t)(o->received[lane] - o->consumed[lane]);
        o->consumed[lane] += size;
        agent_stream_consume(o->stream, lane, size);
        break;
    }
    case 3:
    case 4:
        if (o->sends)
            assert(agent_stream_send(o->stream, bytes, sizeof(bytes)) <= sizeof(bytes));
        break;
    case 5:
        if (o->sends)
            agent_stream_eof(o->stream);
        o->sends = false;
        break;
    case 6:
        agent_stream_reset(o->stream);
        o->is_reset = true;
        break;
    default:
        agent_stream_abandon(o->stream);
        o->stream = NULL;
        o->is_abandoned = true;
    }
}

/* Takes what the link says; fake_recv aborts on a header that is malformed. */
static void drain(struct fake_agent *agent)
{
    static struct fake_frame frame;

    while (fake_recv(agent, &frame))
        assert(frame.h.type != CHANNEL_INFO && frame.h.type != CHANNEL_END);
}

static void feed(struct fake_agent *agent, const uint8_t *data, size_t size)
{
    uint8_t cut = data[0];
    size_t at = 1;

    for (unsigned turn = 0; at < size && broken == 0; turn++) {
        size_t piece = cut == 0 ? size - at : 1 + (size_t)(data[at] % (1 + cut));

        piece = piece < size - at ? piece : size - at;
        fake_send_raw(agent, data + at, piece);
        if (cut != 0 && data[at] % 5 == 0)
            act(&owners[turn % STREAMS], data[at + piece - 1]);
        at += piece;
        drain(agent);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fake_agent agent;
    struct agent_link *link = NULL;
    struct error e = ERROR_INIT;
    uv_loop_t loop;

    if (size < 2)
        return 0;
    broken = 0;
    if (uv_loop_init(&loop) != 0)
        abort();
    int fd = fake_agent_init(&agent, &loop);
    if (agent_link_new(&loop, fd, on_broken, NULL, &link, &e) != 0)
        abort();
    open_stream(link, &owners[0], CHANNEL_OP_EXEC, true);
    open_stream(link, &owners[1], CHANNEL_OP_EXEC, false);
    open_stream(link, &owners[2], CHANNEL_OP_READ, false);
    open_stream(link, &owners[3], CHANNEL_OP_WRITE, true);
    open_stream(link, &owners[4], CHANNEL_OP_EXEC, false);
    open_stream(link, &owners[5], CHANNEL_OP_LIST, false);
    open_stream(link, &owners[6], CHANNEL_OP_TREE_IN, true);
    drain(&agent);
    act(&owners[4], 6);
    feed(&agent, data, size);
    assert(broken <= 1);
    agent_link_free(link);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&loop) != 0)
        abort();
    fake_agent_fini(&agent);
    for (unsigned i = 0; i < STREAMS; i++)
        assert(owners[i].ends == (owners[i].is_abandoned ? 0u : 1u));
    return 0;
}
