#include "daemon/link/agent_send.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/frame.h"
#include "base/wire.h"
#include "daemon/link/agent_stream.h"

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Bytes the guest may be granted on a lane. */
static uint64_t grant_due(const struct agent_stream *stream, const struct agent_lane *lane)
{
    uint64_t due = lane->consumed + CHANNEL_WINDOW_BYTES - lane->granted;

    /* A grant for each small read would cost a frame each; while the guest has most of its window
     * left it can wait. A lane that is closed needs none. */
    return lane->legal && !lane->eof && !stream->reset && due >= AGENT_GRANT_MIN ? due : 0;
}

/* Is there a frame that could go out now? */
static bool has_something(const struct agent_stream *stream)
{
    if (!stream->opened)
        return TAILQ_FIRST(&stream->sender->opening) == stream;
    if (stream->reset)
        return !stream->reset_sent;
    for (unsigned i = 0; i < CHANNEL_LANE_COUNT; i++) {
        if (grant_due(stream, &stream->lanes[i]) > 0)
            return true;
    }
    if (stream->resize_due || (stream->signals[0] | stream->signals[1]) != 0 ||
        (stream->queue.size > 0 && stream->credit > 0))
        return true;
    return stream->queue.size == 0 && stream->eof_wanted && !stream->eof_sent;
}

void agent_sender_wake(struct agent_stream *stream)
{
    struct agent_sender *sender = stream->sender;

    if (stream->ended || stream->is_turn || !has_something(stream))
        return;
    stream->is_turn = true;
    TAILQ_INSERT_TAIL(&sender->turns, stream, turn);
    sender->calls->on_output(sender->arg);
}

void agent_sender_init(struct agent_sender *sender, const struct agent_sender_calls *calls,
                       void *arg)
{
    *sender =
        (struct agent_sender){.calls = calls, .arg = arg, .wire = BUFFER_INIT(AGENT_WIRE_MAX)};
    TAILQ_INIT(&sender->opening);
    TAILQ_INIT(&sender->turns);
    TAILQ_INIT(&sender->roomy);
}

void agent_sender_fini(struct agent_sender *sender)
{
    buffer_fini(&sender->wire);
}

void agent_sender_add(struct agent_sender *sender, struct agent_stream *stream)
{
    stream->sender = sender;
    stream->queue = (struct buffer)BUFFER_INIT(AGENT_QUEUE_MAX);
    TAILQ_INSERT_TAIL(&sender->opening, stream, opening);
    agent_sender_wake(stream);
}

void agent_sender_forget(struct agent_stream *stream)
{
    if (!stream->opened)
        TAILQ_REMOVE(&stream->sender->opening, stream, opening);
    if (stream->is_turn)
        TAILQ_REMOVE(&stream->sender->turns, stream, turn);
    if (stream->is_roomy)
        TAILQ_REMOVE(&stream->sender->roomy, stream, roomy);
    stream->opened = true;
    stream->is_turn = stream->is_roomy = false;
}

/* Appends a frame; the caller made sure of the room. */
static void put_frame(struct agent_stream *stream, enum channel_type type, unsigned lane,
                      const void *payload, size_t size)
{
    struct channel_header h = {.length = (uint32_t)size,
                               .stream = stream->number,
                               .type = (uint8_t)type,
                               .lane = (uint8_t)lane};
    uint8_t *at = buffer_reserve(&stream->sender->wire, CHANNEL_HEADER_BYTES + size);

    assert(at != NULL);
    frame_header_put(at, &h);
    if (size > 0)
        memcpy(at + CHANNEL_HEADER_BYTES, payload, size);
    buffer_commit(&stream->sender->wire, CHANNEL_HEADER_BYTES + size);
}

static void put_u32_frame(struct agent_stream *stream, enum channel_type type, unsigned lane,
                          uint32_t value)
{
    uint8_t payload[4];
    struct wire_writer w;

    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u32(&w, value);
    put_frame(stream, type, lane, payload, sizeof(payload));
}

static void put_open(struct agent_stream *stream)
{
    size_t size = min_size(stream->request.size, AGENT_FRAME_PAYLOAD);
    bool is_last = size == stream->request.size;

    put_frame(stream, CHANNEL_OPEN, is_last ? 0 : 1, buffer_bytes(&stream->request), size);
    buffer_consume(&stream->request, size);
    stream->open_begun = true;
    if (!is_last)
        return;
    buffer_fini(&stream->request);
    TAILQ_REMOVE(&stream->sender->opening, stream, opening);
    stream->opened = true;
    stream->opened_ns = clock_mono_ns();
    if (!TAILQ_EMPTY(&stream->sender->opening))
        agent_sender_wake(TAILQ_FIRST(&stream->sender->opening));
}

static void put_data(struct agent_stream *stream)
{
    size_t size = min_size(stream->queue.size, AGENT_FRAME_PAYLOAD);

    size = stream->credit < size ? (size_t)stream->credit : size;
    put_frame(stream, CHANNEL_DATA, CHANNEL_LANE_IN, buffer_bytes(&stream->queue), size);
    buffer_consume(&stream->queue, size);
    stream->credit -= size;
    stream->sent += size;
    if (stream->wants_room && !stream->is_roomy && stream->queue.size <= AGENT_QUEUE_MAX / 2) {
        stream->is_roomy = true;
        TAILQ_INSERT_TAIL(&stream->sender->roomy, stream, roomy);
    }
}

/* One CREDIT frame, if one is due. */
static bool put_credit(struct agent_stream *stream)
{
    for (unsigned i = 0; i < CHANNEL_LANE_COUNT; i++) {
        uint64_t due = grant_due(stream, &stream->lanes[i]);

        if (due == 0)
            continue;
        stream->lanes[i].granted += due;
        put_u32_frame(stream, CHANNEL_CREDIT, i, (uint32_t)due); /* at most a window */
        return true;
    }
    return false;
}

static void put_resize(struct agent_stream *stream)
{
    uint8_t payload[4];
    struct wire_writer w;

    stream->resize_due = false;
    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u16(&w, stream->rows);
    wire_put_u16(&w, stream->columns);
    put_frame(stream, CHANNEL_RESIZE, 0, payload, sizeof(payload));
}

/* The stream's next frame, the most urgent kind first; has_something() holds. */
static void put_next(struct agent_stream *stream)
{
    if (!stream->opened) {
        put_open(stream);
    } else if (stream->reset) {
        put_frame(stream, CHANNEL_RESET, 0, NULL, 0);
        stream->reset_sent = true;
    } else if (stream->resize_due) {
        put_resize(stream);
    } else if ((stream->signals[0] | stream->signals[1]) != 0) {
        unsigned scope = stream->signals[0] != 0 ? 0 : 1;
        unsigned bit = (unsigned)__builtin_ctzll(stream->signals[scope]);

        stream->signals[scope] &= ~(UINT64_C(1) << bit);
        put_u32_frame(stream, CHANNEL_SIGNAL, scope, bit + 1);
    } else if (put_credit(stream)) {
        return;
    } else if (stream->queue.size > 0) {
        put_data(stream);
    } else {
        put_frame(stream, CHANNEL_EOF, CHANNEL_LANE_IN, NULL, 0);
        stream->eof_sent = true;
    }
}

static void fill_wire(struct agent_sender *sender)
{
    struct agent_stream *stream;

    while (!sender->deaf && (stream = TAILQ_FIRST(&sender->turns)) != NULL) {
        /* Reserving the largest frame at once also settles that there is memory for it. */
        if (buffer_reserve(&sender->wire, AGENT_FRAME_MAX) == NULL)
            return;
        TAILQ_REMOVE(&sender->turns, stream, turn);
        stream->is_turn = false;
        put_next(stream);
        agent_sender_wake(stream);
    }
}

bool agent_sender_has_output(const struct agent_sender *sender)
{
    return !sender->deaf && (sender->wire.size > 0 || !TAILQ_EMPTY(&sender->turns));
}

void agent_sender_flush(struct agent_sender *sender, int fd)
{
    fill_wire(sender);
    while (sender->wire.size > 0 && !sender->deaf) {
        ssize_t n =
            send(fd, buffer_bytes(&sender->wire), sender->wire.size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            /* That the peer has closed is for the read side to find, after all that the guest
             * still said; nothing that is written now would arrive. */
            sender->deaf = errno == EPIPE || errno == ECONNRESET;
            break;
        }
        buffer_consume(&sender->wire, (size_t)n);
        fill_wire(sender);
    }
    if (sender->wire.size == 0 || sender->deaf)
        buffer_fini(&sender->wire); /* most sandboxes are idle most of the time */
}

size_t agent_stream_send(struct agent_stream *stream, const void *data, size_t size)
{
    assert(stream->sends && !stream->eof_wanted);
    if (stream->reset || stream->ended)
        return size;
    size_t taken = min_size(size, AGENT_QUEUE_MAX - stream->queue.size);
    if (buffer_append(&stream->queue, data, taken) != 0)
        taken = 0; /* no memory now: as if the queue were full */
    if (taken < size) {
        stream->wants_room = true;
        /* With an empty queue no frame would ever bring the news of room. */
        if (stream->queue.size == 0 && !stream->is_roomy) {
            stream->is_roomy = true;
            TAILQ_INSERT_TAIL(&stream->sender->roomy, stream, roomy);
            stream->sender->calls->on_roomy(stream->sender->arg);
        }
    }
    agent_sender_wake(stream);
    return taken;
}

void agent_stream_eof(struct agent_stream *stream)
{
    assert(stream->sends);
    stream->eof_wanted = true;
    agent_sender_wake(stream);
}

void agent_stream_consume(struct agent_stream *stream, enum channel_lane lane, size_t size)
{
    if (stream->ended)
        return;
    assert(size <= stream->lanes[lane].received - stream->lanes[lane].consumed);
    stream->lanes[lane].consumed += size;
    agent_sender_wake(stream);
}

uint64_t agent_stream_opened_ns(const struct agent_stream *stream)
{
    return stream->opened_ns;
}

void agent_stream_signal(struct agent_stream *stream, enum channel_signal_scope scope,
                         uint32_t signal_number)
{
    assert(stream->op == CHANNEL_OP_EXEC && signal_number >= 1 && signal_number <= 64);
    stream->signals[scope] |= UINT64_C(1) << (signal_number - 1);
    agent_sender_wake(stream);
}

void agent_stream_resize(struct agent_stream *stream, uint16_t rows, uint16_t columns)
{
    assert(stream->op == CHANNEL_OP_EXEC);
    stream->rows = rows;
    stream->columns = columns;
    stream->resize_due = true;
    agent_sender_wake(stream);
}

void agent_stream_reset(struct agent_stream *stream)
{
    if (stream->reset || stream->ended)
        return;
    stream->reset = true;
    buffer_fini(&stream->queue);
    if (stream->open_begun) {
        agent_sender_wake(stream);
        return;
    }
    /* Nothing of it went out, so the guest will never say END. */
    struct agent_sender *sender = stream->sender;

    stream->reset_sent = true; /* it has nothing to say any more, whatever its owner asks for */
    agent_sender_forget(stream);
    if (!TAILQ_EMPTY(&sender->opening))
        agent_sender_wake(TAILQ_FIRST(&sender->opening));
    sender->calls->on_canceled(sender->arg, stream);
}

void agent_stream_abandon(struct agent_stream *stream)
{
    if (stream == NULL || stream->ended)
        return;
    stream->calls = (struct agent_stream_calls){0};
    agent_stream_reset(stream);
}
