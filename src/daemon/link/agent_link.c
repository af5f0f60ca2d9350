/*
 * The socket of a link and the judgement of what the guest says.
 *
 * Bytes are read into one buffer on the stack and parsed there: header, then payload. DATA goes to
 * its stream's owner as it is; INFO, END and CREDIT are short and put together in the link. Each
 * header is judged before any of its payload is looked at.
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
#include "base/frame.h"
#include "base/wire.h"
#include "daemon/link/agent_private.h"

#define READ_BYTES (64 * KIB)
#define READ_TURNS 4u /* reads of one link before the loop's other business gets its turn */

static struct agent_stream *find_stream(struct agent_link *link, uint32_t number)
{
    struct agent_stream *s;

    LIST_FOREACH (s, &link->buckets[number % AGENT_BUCKETS], bucket) {
        if (s->number == number)
            return s;
    }
    return NULL;
}

/* The end of a stream that is on no list any more. */
static void finish_stream(struct agent_stream *s, enum agent_outcome outcome,
                          const struct agent_end *end)
{
    s->ended = true;
    if (s->calls.on_end != NULL)
        s->calls.on_end(s->arg, outcome, end);
    buffer_fini(&s->request);
    buffer_fini(&s->queue);
    free(s);
}

static void finish_canceled(struct agent_link *link, enum agent_outcome outcome)
{
    struct agent_stream *s;

    while ((s = TAILQ_FIRST(&link->canceled)) != NULL) {
        TAILQ_REMOVE(&link->canceled, s, roomy);
        finish_stream(s, outcome, NULL);
    }
}

static void end_streams(struct agent_link *link)
{
    struct agent_stream *s;

    finish_canceled(link, AGENT_GONE);
    for (unsigned i = 0; i < AGENT_BUCKETS; i++) {
        while ((s = LIST_FIRST(&link->buckets[i])) != NULL) {
            agent_stream_unlink(s);
            finish_stream(s, AGENT_GONE, NULL);
            finish_canceled(link, AGENT_GONE); /* another stream, reset in that on_end */
        }
    }
}

static void break_link(struct agent_link *link, const struct error *why)
{
    if (link->over)
        return;
    link->over = true;
    (void)uv_poll_stop(&link->poll);
    (void)uv_timer_stop(&link->deferred);
    link->on_broken(link->arg, why);
    end_streams(link);
}

/* What a type may do in the stream's state; the header's own form has been checked. */
static const char *judge_frame(const struct agent_stream *s, const struct channel_header *h)
{
    const struct agent_lane *lane = &s->lanes[h->lane];

    switch (h->type) {
    case CHANNEL_INFO:
        if (s->has_info)
            return "a second INFO";
        return h->length > AGENT_MESSAGE_MAX ? "an INFO that is too long" : NULL;
    case CHANNEL_DATA:
    case CHANNEL_EOF:
        if (!s->has_info)
            return "output before INFO";
        if (!lane->legal)
            return "output on a lane that its request does not have";
        if (lane->eof)
            return "output after EOF";
        return h->length > lane->granted - lane->received ? "output past its credit" : NULL;
    case CHANNEL_CREDIT:
        return !s->sends || h->lane != CHANNEL_LANE_IN ? "credit for a lane that nobody fills"
                                                       : NULL;
    case CHANNEL_END:
        return h->length > AGENT_MESSAGE_MAX ? "an END that is too long" : NULL;
    default:
        return "a frame that only the host may send";
    }
}

static int begin_frame(struct agent_link *link, struct error *e)
{
    struct channel_header *h = &link->header;

    if (frame_header_get(link->header_bytes, h, e) != 0)
        return -1;
    struct agent_stream *s = find_stream(link, h->stream);
    const char *fault =
        s == NULL || !s->opened ? "a frame for a stream that is not open" : judge_frame(s, h);
    if (fault != NULL)
        return error_set(e, ERR_BAD_REQUEST, "agent: %s (stream %u, type %u, lane %u, length %u)",
                         fault, h->stream, h->type, h->lane, h->length);
    link->current = s;
    link->payload_used = 0;
    return 0;
}

/* Do the guest's claims fit what was moved? Only a stream that was not cut short can tell. */
static const char *judge_end(const struct agent_stream *s, const struct agent_end *end)
{
    enum agent_op_kind kind = agent_op_kind(s->op);

    if (end->status != 0)
        return NULL;
    if (!s->has_info && kind != AGENT_OP_WRITE)
        return "success of what never started";
    if (s->reset)
        return NULL;
    if ((kind == AGENT_OP_READ || kind == AGENT_OP_RECORDS) &&
        (!s->lanes[CHANNEL_LANE_IN].eof || end->bytes != s->lanes[CHANNEL_LANE_IN].received))
        return "a file's size that differs from what was sent";
    if ((kind == AGENT_OP_WRITE || kind == AGENT_OP_TREE) &&
        (!s->eof_sent || end->bytes != s->sent))
        return "a file that was finished before its content";
    return NULL;
}

static int end_end(struct agent_link *link, struct agent_stream *s, struct error *e)
{
    struct agent_end end;

    if (agent_end_parse(s->op, link->message, link->header.length, &end, e) != 0)
        return -1;
    const char *fault = judge_end(s, &end);
    if (fault != NULL)
        return error_set(e, ERR_BAD_REQUEST, "agent: END claims %s", fault);
    agent_stream_unlink(s);
    finish_stream(s, AGENT_ENDED, &end);
    return 0;
}

static int end_credit(struct agent_link *link, struct agent_stream *s, struct error *e)
{
    struct wire_reader r;

    wire_reader_init(&r, link->message, 4);
    s->credit += wire_get_u32(&r);
    /* An honest guest grants again what it has used up, so it never gets past a window. */
    if (s->credit > CHANNEL_WINDOW_BYTES)
        return error_set(e, ERR_BAD_REQUEST, "agent: credit past the window");
    agent_stream_wake(s);
    return 0;
}

/* A frame's last byte is there. */
static int end_frame(struct agent_link *link, struct error *e)
{
    struct agent_stream *s = link->current;
    struct agent_info info;

    link->header_used = 0;
    link->current = NULL;
    switch (link->header.type) {
    case CHANNEL_INFO:
        if (agent_info_parse(s->op, link->message, link->header.length, &info, e) != 0)
            return -1;
        s->has_info = true;
        if (!s->reset && s->calls.on_info != NULL)
            s->calls.on_info(s->arg, &info);
        return 0;
    case CHANNEL_EOF:
        s->lanes[link->header.lane].eof = true;
        if (!s->reset && s->calls.on_eof != NULL)
            s->calls.on_eof(s->arg, (enum channel_lane)link->header.lane);
        return 0;
    case CHANNEL_CREDIT:
        return end_credit(link, s, e);
    case CHANNEL_END:
        return end_end(link, s, e);
    default:
        return 0; /* DATA: all of it has gone to its owner */
    }
}

static void take_payload(struct agent_link *link, const uint8_t *bytes, size_t size)
{
    struct agent_stream *s = link->current;
    unsigned lane = link->header.lane;

    if (link->header.type != CHANNEL_DATA) {
        memcpy(link->message + link->payload_used, bytes, size);
        link->payload_used += size;
        return;
    }
    link->payload_used += size;
    s->lanes[lane].received += size;
    if (!s->reset && s->calls.on_data != NULL)
        s->calls.on_data(s->arg, (enum channel_lane)lane, bytes, size);
}

static int take_bytes(struct agent_link *link, const uint8_t *bytes, size_t size, struct error *e)
{
    while (size > 0 && !link->over) {
        size_t n;

        if (link->header_used < CHANNEL_HEADER_BYTES) {
            n = CHANNEL_HEADER_BYTES - link->header_used;
            n = size < n ? size : n;
            memcpy(link->header_bytes + link->header_used, bytes, n);
            link->header_used += n;
            if (link->header_used == CHANNEL_HEADER_BYTES && begin_frame(link, e) != 0)
                return -1;
        } else {
            n = link->header.length - link->payload_used;
            n = size < n ? size : n;
            take_payload(link, bytes, n);
        }
        bytes += n;
        size -= n;
        if (!link->over && link->current != NULL && link->payload_used == link->header.length &&
            end_frame(link, e) != 0)
            return -1;
    }
    return 0;
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
        if (take_bytes(link, bytes, (size_t)n, &e) != 0)
            break_link(link, &e);
        if ((size_t)n < sizeof(bytes))
            return;
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct agent_link *link = poll->data;

    /* An error of the poll shows as one of the read as well. */
    if (status != 0 || (events & UV_READABLE) != 0)
        read_socket(link);
    if (link->over)
        return;
    agent_link_flush(link);
    agent_link_tell_room(link);
    agent_link_watch(link);
}

void agent_link_watch(struct agent_link *link)
{
    bool has_output = !link->deaf && (link->wire.size > 0 || !TAILQ_EMPTY(&link->turns));
    int events = UV_READABLE | (has_output ? UV_WRITABLE : 0);

    if (link->over || events == link->events)
        return;
    link->events = events;
    int rc = uv_poll_start(&link->poll, events, on_poll);
    assert(rc == 0); /* it fails for a closing handle only */
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
        agent_link_tell_room(link);
}

void agent_link_defer(struct agent_link *link)
{
    if (!link->over)
        (void)uv_timer_start(&link->deferred, on_deferred, 0, 0);
}

void agent_link_accuse(struct agent_link *link, const char *what)
{
    if (link->accusation.code == ERR_NONE)
        (void)error_set(&link->accusation, ERR_BAD_REQUEST, "agent: %s", what);
    agent_link_defer(link);
}

size_t agent_link_stream_count(const struct agent_link *link)
{
    return link->stream_count;
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
    link->wire = (struct buffer)BUFFER_INIT(AGENT_WIRE_MAX);
    TAILQ_INIT(&link->opening);
    TAILQ_INIT(&link->turns);
    TAILQ_INIT(&link->roomy);
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
    agent_link_watch(link);
    *ret_link = link;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct agent_link *link = handle->data;

    if (--link->open_handles > 0)
        return;
    buffer_fini(&link->wire);
    free(link);
}

void agent_link_free(struct agent_link *link)
{
    if (link == NULL || link->freed)
        return;
    link->over = true;
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
    if (link->stream_count >= CHANNEL_STREAMS_MAX || link->last_number == UINT32_MAX) {
        (void)error_set(e, ERR_TOO_MANY, "the sandbox has %u commands and transfers under way",
                        (unsigned)link->stream_count);
        return error_remedy(e, "Wait until some have ended, or use another sandbox.");
    }
    struct agent_stream *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for a stream");
    s->link = link;
    s->number = ++link->last_number;
    s->op = op;
    s->sends = sends;
    s->calls = *calls;
    s->arg = arg;
    s->credit = CHANNEL_WINDOW_BYTES;
    s->request = *request;
    *request = (struct buffer)BUFFER_INIT(request->size_max);
    s->queue = (struct buffer)BUFFER_INIT(AGENT_QUEUE_MAX);
    for (unsigned i = 0; i < CHANNEL_LANE_COUNT; i++)
        s->lanes[i].granted = CHANNEL_WINDOW_BYTES;
    enum agent_op_kind kind = agent_op_kind(op);
    s->lanes[CHANNEL_LANE_IN].legal =
        kind == AGENT_OP_READ || kind == AGENT_OP_RECORDS || kind == AGENT_OP_TREE;
    s->lanes[CHANNEL_LANE_OUT].legal = s->lanes[CHANNEL_LANE_ERR].legal = kind == AGENT_OP_COMMAND;
    LIST_INSERT_HEAD(&link->buckets[s->number % AGENT_BUCKETS], s, bucket);
    TAILQ_INSERT_TAIL(&link->opening, s, opening);
    link->stream_count++;
    agent_stream_wake(s);
    *ret_stream = s;
    return 0;
}
