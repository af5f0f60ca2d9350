/*
 * The way to the guest. A stream that has something to say is on its link's list of turns; each
 * turn takes one frame from it into the wire buffer, then the stream goes to the end of the list.
 * Only the oldest stream whose request is not out yet may send OPEN frames, so the agent puts
 * together one request at a time and the numbers that it sees rise.
 *
 * Nothing here calls back: the socket is written from the loop only.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/frame.h"
#include "base/wire.h"
#include "daemon/link/agent_private.h"

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Bytes the guest may be granted on a lane. */
static uint64_t grant_due(const struct agent_stream *s, const struct agent_lane *lane)
{
    uint64_t due = lane->consumed + CHANNEL_WINDOW_BYTES - lane->granted;

    /* A grant for each small read would cost a frame each; while the guest has most of its window
     * left it can wait. A lane that is closed needs none. */
    return lane->legal && !lane->eof && !s->reset && due >= AGENT_GRANT_MIN ? due : 0;
}

/* Is there a frame that could go out now? */
static bool has_something(const struct agent_stream *s)
{
    if (!s->opened)
        return TAILQ_FIRST(&s->link->opening) == s;
    if (s->reset)
        return !s->reset_sent;
    for (unsigned i = 0; i < CHANNEL_LANE_COUNT; i++) {
        if (grant_due(s, &s->lanes[i]) > 0)
            return true;
    }
    if (s->resize_due || (s->signals[0] | s->signals[1]) != 0 ||
        (s->queue.size > 0 && s->credit > 0))
        return true;
    return s->queue.size == 0 && s->eof_wanted && !s->eof_sent;
}

void agent_stream_wake(struct agent_stream *s)
{
    if (s->link->over || s->ended || s->is_turn || !has_something(s))
        return;
    s->is_turn = true;
    TAILQ_INSERT_TAIL(&s->link->turns, s, turn);
    agent_link_watch(s->link);
}

void agent_stream_unlink(struct agent_stream *s)
{
    if (!s->opened)
        TAILQ_REMOVE(&s->link->opening, s, opening);
    if (s->is_turn)
        TAILQ_REMOVE(&s->link->turns, s, turn);
    if (s->is_roomy)
        TAILQ_REMOVE(&s->link->roomy, s, roomy);
    s->opened = true;
    s->is_turn = s->is_roomy = false;
    LIST_REMOVE(s, bucket);
    s->link->stream_count--;
}

/* Appends a frame; the caller made sure of the room. */
static void put_frame(struct agent_stream *s, enum channel_type type, unsigned lane,
                      const void *payload, size_t size)
{
    struct channel_header h = {.length = (uint32_t)size,
                               .stream = s->number,
                               .type = (uint8_t)type,
                               .lane = (uint8_t)lane};
    uint8_t *at = buffer_reserve(&s->link->wire, CHANNEL_HEADER_BYTES + size);

    assert(at != NULL);
    frame_header_put(at, &h);
    if (size > 0)
        memcpy(at + CHANNEL_HEADER_BYTES, payload, size);
    buffer_commit(&s->link->wire, CHANNEL_HEADER_BYTES + size);
}

static void put_u32_frame(struct agent_stream *s, enum channel_type type, unsigned lane,
                          uint32_t value)
{
    uint8_t payload[4];
    struct wire_writer w;

    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u32(&w, value);
    put_frame(s, type, lane, payload, sizeof(payload));
}

static void put_open(struct agent_stream *s)
{
    size_t size = min_size(s->request.size, AGENT_FRAME_PAYLOAD);
    bool is_last = size == s->request.size;

    put_frame(s, CHANNEL_OPEN, is_last ? 0 : 1, buffer_bytes(&s->request), size);
    buffer_consume(&s->request, size);
    s->open_begun = true;
    if (!is_last)
        return;
    buffer_fini(&s->request);
    TAILQ_REMOVE(&s->link->opening, s, opening);
    s->opened = true;
    s->opened_ns = clock_mono_ns();
    if (!TAILQ_EMPTY(&s->link->opening))
        agent_stream_wake(TAILQ_FIRST(&s->link->opening));
}

static void put_data(struct agent_stream *s)
{
    size_t size = min_size(s->queue.size, AGENT_FRAME_PAYLOAD);

    size = s->credit < size ? (size_t)s->credit : size;
    put_frame(s, CHANNEL_DATA, CHANNEL_LANE_IN, buffer_bytes(&s->queue), size);
    buffer_consume(&s->queue, size);
    s->credit -= size;
    s->sent += size;
    if (s->wants_room && !s->is_roomy && s->queue.size <= AGENT_QUEUE_MAX / 2) {
        s->is_roomy = true;
        TAILQ_INSERT_TAIL(&s->link->roomy, s, roomy);
    }
}

/* One CREDIT frame, if one is due. */
static bool put_credit(struct agent_stream *s)
{
    for (unsigned i = 0; i < CHANNEL_LANE_COUNT; i++) {
        uint64_t due = grant_due(s, &s->lanes[i]);

        if (due == 0)
            continue;
        s->lanes[i].granted += due;
        put_u32_frame(s, CHANNEL_CREDIT, i, (uint32_t)due); /* at most a window */
        return true;
    }
    return false;
}

static void put_resize(struct agent_stream *s)
{
    uint8_t payload[4];
    struct wire_writer w;

    s->resize_due = false;
    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u16(&w, s->rows);
    wire_put_u16(&w, s->columns);
    put_frame(s, CHANNEL_RESIZE, 0, payload, sizeof(payload));
}

/* The stream's next frame, the most urgent kind first; has_something() holds. */
static void put_next(struct agent_stream *s)
{
    if (!s->opened) {
        put_open(s);
    } else if (s->reset) {
        put_frame(s, CHANNEL_RESET, 0, NULL, 0);
        s->reset_sent = true;
    } else if (s->resize_due) {
        put_resize(s);
    } else if ((s->signals[0] | s->signals[1]) != 0) {
        unsigned scope = s->signals[0] != 0 ? 0 : 1;
        unsigned bit = (unsigned)__builtin_ctzll(s->signals[scope]);

        s->signals[scope] &= ~(UINT64_C(1) << bit);
        put_u32_frame(s, CHANNEL_SIGNAL, scope, bit + 1);
    } else if (put_credit(s)) {
        return;
    } else if (s->queue.size > 0) {
        put_data(s);
    } else {
        put_frame(s, CHANNEL_EOF, CHANNEL_LANE_IN, NULL, 0);
        s->eof_sent = true;
    }
}

static void fill_wire(struct agent_link *link)
{
    struct agent_stream *s;

    while (!link->deaf && (s = TAILQ_FIRST(&link->turns)) != NULL) {
        /* Reserving the largest frame at once also settles that there is memory for it. */
        if (buffer_reserve(&link->wire, AGENT_FRAME_MAX) == NULL)
            return;
        TAILQ_REMOVE(&link->turns, s, turn);
        s->is_turn = false;
        put_next(s);
        agent_stream_wake(s);
    }
}

void agent_link_flush(struct agent_link *link)
{
    fill_wire(link);
    while (link->wire.size > 0 && !link->deaf) {
        ssize_t n =
            send(link->fd, buffer_bytes(&link->wire), link->wire.size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            /* That the peer has closed is for the read side to find, after all that the guest
             * still said; nothing that is written now would arrive. */
            link->deaf = errno == EPIPE || errno == ECONNRESET;
            break;
        }
        buffer_consume(&link->wire, (size_t)n);
        fill_wire(link);
    }
    if (link->wire.size == 0 || link->deaf)
        buffer_fini(&link->wire); /* most sandboxes are idle most of the time */
}

void agent_link_tell_room(struct agent_link *link)
{
    /* A callback that sends again gets on the list again only by a later flush. */
    while (!link->over && !TAILQ_EMPTY(&link->roomy)) {
        struct agent_stream *s = TAILQ_FIRST(&link->roomy);

        TAILQ_REMOVE(&link->roomy, s, roomy);
        s->is_roomy = false;
        s->wants_room = false;
        if (!s->reset && s->calls.on_writable != NULL)
            s->calls.on_writable(s->arg);
    }
}

size_t agent_stream_send(struct agent_stream *s, const void *data, size_t size)
{
    assert(s->sends && !s->eof_wanted);
    if (s->reset || s->ended)
        return size;
    size_t taken = min_size(size, AGENT_QUEUE_MAX - s->queue.size);
    if (buffer_append(&s->queue, data, taken) != 0)
        taken = 0; /* no memory now: as if the queue were full */
    if (taken < size) {
        s->wants_room = true;
        /* With an empty queue no frame would ever bring the news of room. */
        if (s->queue.size == 0 && !s->is_roomy) {
            s->is_roomy = true;
            TAILQ_INSERT_TAIL(&s->link->roomy, s, roomy);
            agent_link_defer(s->link);
        }
    }
    agent_stream_wake(s);
    return taken;
}

void agent_stream_eof(struct agent_stream *s)
{
    assert(s->sends);
    s->eof_wanted = true;
    agent_stream_wake(s);
}

void agent_stream_consume(struct agent_stream *s, enum channel_lane lane, size_t size)
{
    if (s->ended)
        return;
    assert(size <= s->lanes[lane].received - s->lanes[lane].consumed);
    s->lanes[lane].consumed += size;
    agent_stream_wake(s);
}

uint64_t agent_stream_opened_ns(const struct agent_stream *s)
{
    return s->opened_ns;
}

void agent_stream_signal(struct agent_stream *s, enum channel_signal_scope scope,
                         uint32_t signal_number)
{
    assert(s->op == CHANNEL_OP_EXEC && signal_number >= 1 && signal_number <= 64);
    s->signals[scope] |= UINT64_C(1) << (signal_number - 1);
    agent_stream_wake(s);
}

void agent_stream_resize(struct agent_stream *s, uint16_t rows, uint16_t columns)
{
    assert(s->op == CHANNEL_OP_EXEC);
    s->rows = rows;
    s->columns = columns;
    s->resize_due = true;
    agent_stream_wake(s);
}

void agent_stream_reset(struct agent_stream *s)
{
    if (s->reset || s->ended)
        return;
    s->reset = true;
    buffer_fini(&s->queue);
    if (s->open_begun) {
        agent_stream_wake(s);
        return;
    }
    /* Nothing of it went out, so the guest will never say END. */
    struct agent_link *link = s->link;

    agent_stream_unlink(s);
    TAILQ_INSERT_TAIL(&link->canceled, s, roomy);
    if (!TAILQ_EMPTY(&link->opening))
        agent_stream_wake(TAILQ_FIRST(&link->opening));
    agent_link_defer(link);
}

void agent_stream_abandon(struct agent_stream *s)
{
    if (s == NULL || s->ended)
        return;
    s->calls = (struct agent_stream_calls){0};
    agent_stream_reset(s);
}
