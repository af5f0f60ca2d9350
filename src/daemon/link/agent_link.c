/*
 * The socket of a link: bytes are read into one buffer on the stack and judged there
 * (agent_receive.h), and written as the streams take turns (agent_send.h). Those two know neither
 * the link nor the loop.
 *
 * Callbacks may do anything, freeing the link included, so after each one `over` is looked at
 * before anything else is touched; the link's own memory stays until the loop has closed its
 * handles.
 */
#include "daemon/link/agent_link.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "daemon/link/agent_receive.h"
#include "daemon/link/agent_send.h"
#include "daemon/link/stream_table.h"

#define READ_BYTES (64 * KIB)
#define READ_TURNS 4u /* reads of one link before the loop's other business gets its turn */

struct agent_link {
    uv_poll_t poll;
    uv_timer_t deferred; /* fires in the next turn of the loop */
    unsigned open_handles;
    int fd;
    int events; /* what `poll` waits for */
    bool over;  /* nothing is read, written or opened any more */
    bool freed;
    agent_broken_fn on_broken;
    void *arg;
    struct error accusation; /* ERR_NONE: of nothing */
    struct stream_table streams;
    struct agent_receiver receiver;
    struct agent_sender sender;
    struct agent_stream_queue canceled; /* by `roomy`: in no table, their on_end is due */
};

static void finish_canceled(struct agent_link *link, enum agent_outcome outcome)
{
    struct agent_stream *stream;

    while ((stream = TAILQ_FIRST(&link->canceled)) != NULL) {
        TAILQ_REMOVE(&link->canceled, stream, roomy);
        agent_stream_finish(stream, outcome, NULL);
    }
}

/* From now on nothing is read, written or opened. */
static void stop(struct agent_link *link)
{
    link->over = true;
    link->receiver.is_closed = true;
}

static void end_streams(struct agent_link *link)
{
    struct agent_stream *stream;

    finish_canceled(link, AGENT_GONE);
    while ((stream = stream_table_first(&link->streams)) != NULL) {
        agent_sender_forget(stream);
        stream_table_remove(&link->streams, stream);
        agent_stream_finish(stream, AGENT_GONE, NULL);
        finish_canceled(link, AGENT_GONE); /* another stream, reset in that on_end */
    }
}

static void break_link(struct agent_link *link, const struct error *why)
{
    if (link->over)
        return;
    stop(link);
    (void)uv_poll_stop(&link->poll);
    (void)uv_timer_stop(&link->deferred);
    link->on_broken(link->arg, why);
    end_streams(link);
}

static void read_socket(struct agent_link *link)
{
    uint8_t bytes[READ_BYTES];
    struct error e = ERROR_INIT;

    for (unsigned i = 0; i < READ_TURNS && !link->over; i++) {
        ssize_t n = recv(link->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            (void)error_set(&e, ERR_SANDBOX_GONE, "the sandbox's monitor closed the agent channel");
            if (n < 0)
                (void)error_cause(&e, "%s", strerror(errno));
            break_link(link, &e);
            return;
        }
        if (agent_receiver_take(&link->receiver, bytes, (size_t)n, &e) != 0)
            break_link(link, &e);
        if ((size_t)n < sizeof(bytes))
            return;
    }
}

static void tell_room(struct agent_link *link)
{
    struct agent_stream *stream;
    size_t due = 0;

    TAILQ_FOREACH (stream, &link->sender.roomy, roomy)
        due++;
    /* Whoever gets onto the list meanwhile, as there was no memory for what it sent, waits for the
     * next turn. The end of the link in a callback takes all off it. */
    while (due-- > 0 && (stream = TAILQ_FIRST(&link->sender.roomy)) != NULL) {
        TAILQ_REMOVE(&link->sender.roomy, stream, roomy);
        stream->is_roomy = false;
        stream->wants_room = false;
        if (!stream->reset && stream->calls.on_writable != NULL)
            stream->calls.on_writable(stream->arg);
    }
}

static void on_poll(uv_poll_t *poll, int status, int events);

/* Waits for what there is to do now. */
static void watch(struct agent_link *link)
{
    int events = UV_READABLE | (agent_sender_has_output(&link->sender) ? UV_WRITABLE : 0);

    if (link->over || events == link->events)
        return;
    link->events = events;
    int rc = uv_poll_start(&link->poll, events, on_poll);
    assert(rc == 0); /* it fails for a closing handle only */
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct agent_link *link = poll->data;

    /* An error of the poll shows as one of the read as well. */
    if (status != 0 || (events & UV_READABLE) != 0)
        read_socket(link);
    if (link->over)
        return;
    agent_sender_flush(&link->sender, link->fd);
    tell_room(link);
    watch(link);
}

static void on_deferred(uv_timer_t *timer)
{
    struct agent_link *link = timer->data;

    if (link->accusation.code != ERR_NONE) {
        break_link(link, &link->accusation);
        return;
    }
    finish_canceled(link, AGENT_CANCELED);
    if (!link->over)
        tell_room(link);
}

static void defer(struct agent_link *link)
{
    if (!link->over)
        (void)uv_timer_start(&link->deferred, on_deferred, 0, 0);
}

static void on_output(void *arg)
{
    watch(arg);
}

static void on_roomy(void *arg)
{
    defer(arg);
}

static void on_canceled(void *arg, struct agent_stream *stream)
{
    struct agent_link *link = arg;

    stream_table_remove(&link->streams, stream);
    TAILQ_INSERT_TAIL(&link->canceled, stream, roomy);
    defer(link);
}

static const struct agent_sender_calls sender_calls = {
    .on_output = on_output, .on_roomy = on_roomy, .on_canceled = on_canceled};

void agent_link_accuse(struct agent_link *link, const char *what)
{
    if (link->accusation.code == ERR_NONE)
        (void)error_set(&link->accusation, ERR_BAD_REQUEST, "agent: %s", what);
    defer(link);
}

int agent_link_new(uv_loop_t *loop, int fd, agent_broken_fn on_broken, void *arg,
                   struct agent_link **ret_link, struct error *e)
{
    FD_AUTO int owned = fd;
    struct agent_link *link = calloc(1, sizeof(*link));

    if (link == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for an agent link");
    link->on_broken = on_broken;
    link->arg = arg;
    agent_sender_init(&link->sender, &sender_calls, link);
    link->receiver.streams = &link->streams;
    TAILQ_INIT(&link->canceled);
    int rc = uv_poll_init(loop, &link->poll, fd);
    if (rc != 0) {
        free(link);
        return error_errno(e, -rc, "cannot wait for a sandbox's agent");
    }
    (void)uv_timer_init(loop, &link->deferred);
    link->poll.data = link;
    link->deferred.data = link;
    link->open_handles = 2;
    link->fd = fd_take(&owned);
    watch(link);
    *ret_link = link;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct agent_link *link = handle->data;

    if (--link->open_handles > 0)
        return;
    agent_sender_fini(&link->sender);
    free(link);
}

void agent_link_free(struct agent_link *link)
{
    if (link == NULL || link->freed)
        return;
    stop(link);
    link->freed = true;
    uv_close((uv_handle_t *)&link->poll, on_closed);
    uv_close((uv_handle_t *)&link->deferred, on_closed);
    fd_close(&link->fd);
    end_streams(link);
}

int agent_stream_open(struct agent_link *link, enum channel_op op, bool sends,
                      struct buffer *request, const struct agent_stream_calls *calls, void *arg,
                      struct agent_stream **ret_stream, struct error *e)
{
    if (link->over)
        return error_set(e, ERR_SANDBOX_GONE, "the sandbox has ended");
    if (link->streams.count >= CHANNEL_STREAMS_MAX || link->streams.last_number == UINT32_MAX) {
        (void)error_set(e, ERR_TOO_MANY, "the sandbox has %u commands and transfers under way",
                        (unsigned)link->streams.count);
        return error_remedy(e, "Wait until some have ended, or use another sandbox.");
    }
    struct agent_stream *stream = stream_table_add(&link->streams);
    if (stream == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for a stream");
    stream->op = op;
    stream->sends = sends;
    stream->calls = *calls;
    stream->arg = arg;
    stream->credit = CHANNEL_WINDOW_BYTES;
    stream->request = *request;
    *request = (struct buffer)BUFFER_INIT(request->size_max);
    for (unsigned i = 0; i < CHANNEL_LANE_COUNT; i++)
        stream->lanes[i].granted = CHANNEL_WINDOW_BYTES;
    enum agent_op_kind kind = agent_op_kind(op);
    stream->lanes[CHANNEL_LANE_IN].legal =
        kind == AGENT_OP_READ || kind == AGENT_OP_RECORDS || kind == AGENT_OP_TREE;
    stream->lanes[CHANNEL_LANE_OUT].legal = stream->lanes[CHANNEL_LANE_ERR].legal =
        kind == AGENT_OP_COMMAND;
    agent_sender_add(&link->sender, stream);
    *ret_stream = stream;
    return 0;
}
