#include "daemon/link/agent_receive.h"

#include <string.h>

#include "base/frame.h"
#include "base/wire.h"
#include "daemon/link/agent_send.h"

/* What a type may do in the stream's state; the header's own form has been checked. */
static const char *judge_frame(const struct agent_stream *stream, const struct channel_header *h)
{
    const struct agent_lane *lane = &stream->lanes[h->lane];

    switch (h->type) {
    case CHANNEL_INFO:
        if (stream->has_info)
            return "a second INFO";
        return h->length > AGENT_MESSAGE_MAX ? "an INFO that is too long" : NULL;
    case CHANNEL_DATA:
    case CHANNEL_EOF:
        if (!stream->has_info)
            return "output before INFO";
        if (!lane->legal)
            return "output on a lane that its request does not have";
        if (lane->eof)
            return "output after EOF";
        return h->length > lane->granted - lane->received ? "output past its credit" : NULL;
    case CHANNEL_CREDIT:
        return !stream->sends || h->lane != CHANNEL_LANE_IN ? "credit for a lane that nobody fills"
                                                            : NULL;
    case CHANNEL_END:
        return h->length > AGENT_MESSAGE_MAX ? "an END that is too long" : NULL;
    default:
        return "a frame that only the host may send";
    }
}

static int begin_frame(struct agent_receiver *receiver, struct error *e)
{
    struct channel_header *h = &receiver->header;

    if (frame_header_get(receiver->header_bytes, h, e) != 0)
        return -1;
    struct agent_stream *stream = stream_table_find(receiver->streams, h->stream);
    const char *fault = stream == NULL || !stream->opened ? "a frame for a stream that is not open"
                                                          : judge_frame(stream, h);
    if (fault != NULL)
        return error_set(e, ERR_BAD_REQUEST, "agent: %s (stream %u, type %u, lane %u, length %u)",
                         fault, h->stream, h->type, h->lane, h->length);
    receiver->current = stream;
    receiver->payload_used = 0;
    return 0;
}

/* Do the guest's claims fit what was moved? Only a stream that was not cut short can tell. */
static const char *judge_end(const struct agent_stream *stream, const struct agent_end *end)
{
    enum agent_op_kind kind = agent_op_kind(stream->op);

    if (end->status != 0)
        return NULL;
    if (!stream->has_info && kind != AGENT_OP_WRITE)
        return "success of what never started";
    if (stream->reset)
        return NULL;
    if ((kind == AGENT_OP_READ || kind == AGENT_OP_RECORDS) &&
        (!stream->lanes[CHANNEL_LANE_IN].eof ||
         end->bytes != stream->lanes[CHANNEL_LANE_IN].received))
        return "a file's size that differs from what was sent";
    if ((kind == AGENT_OP_WRITE || kind == AGENT_OP_TREE) &&
        (!stream->eof_sent || end->bytes != stream->sent))
        return "a file that was finished before its content";
    return NULL;
}

static int end_end(struct agent_receiver *receiver, struct agent_stream *stream, struct error *e)
{
    struct agent_end end;

    if (agent_end_parse(stream->op, receiver->message, receiver->header.length, &end, e) != 0)
        return -1;
    const char *fault = judge_end(stream, &end);
    if (fault != NULL)
        return error_set(e, ERR_BAD_REQUEST, "agent: END claims %s", fault);
    agent_sender_forget(stream);
    stream_table_remove(receiver->streams, stream);
    agent_stream_finish(stream, AGENT_ENDED, &end);
    return 0;
}

static int end_credit(struct agent_receiver *receiver, struct agent_stream *stream, struct error *e)
{
    struct wire_reader reader;

    wire_reader_init(&reader, receiver->message, 4);
    stream->credit += wire_get_u32(&reader);
    /* An honest guest grants again what it has used up, so it never gets past a window. */
    if (stream->credit > CHANNEL_WINDOW_BYTES)
        return error_set(e, ERR_BAD_REQUEST, "agent: credit past the window");
    agent_sender_wake(stream);
    return 0;
}

/* A frame's last byte is there. */
static int end_frame(struct agent_receiver *receiver, struct error *e)
{
    struct agent_stream *stream = receiver->current;
    struct agent_info info;

    receiver->header_used = 0;
    receiver->current = NULL;
    switch (receiver->header.type) {
    case CHANNEL_INFO:
        if (agent_info_parse(stream->op, receiver->message, receiver->header.length, &info, e) != 0)
            return -1;
        stream->has_info = true;
        if (!stream->reset && stream->calls.on_info != NULL)
            stream->calls.on_info(stream->arg, &info);
        return 0;
    case CHANNEL_EOF:
        stream->lanes[receiver->header.lane].eof = true;
        if (!stream->reset && stream->calls.on_eof != NULL)
            stream->calls.on_eof(stream->arg, (enum channel_lane)receiver->header.lane);
        return 0;
    case CHANNEL_CREDIT:
        return end_credit(receiver, stream, e);
    case CHANNEL_END:
        return end_end(receiver, stream, e);
    default:
        return 0; /* DATA: all of it has gone to its owner */
    }
}

static void take_payload(struct agent_receiver *receiver, const uint8_t *bytes, size_t size)
{
    struct agent_stream *stream = receiver->current;
    unsigned lane = receiver->header.lane;

    if (receiver->header.type != CHANNEL_DATA) {
        memcpy(receiver->message + receiver->payload_used, bytes, size);
        receiver->payload_used += size;
        return;
    }
    receiver->payload_used += size;
    stream->lanes[lane].received += size;
    if (!stream->reset && stream->calls.on_data != NULL)
        stream->calls.on_data(stream->arg, (enum channel_lane)lane, bytes, size);
}

int agent_receiver_take(struct agent_receiver *receiver, const uint8_t *bytes, size_t size,
                        struct error *e)
{
    while (size > 0 && !receiver->is_closed) {
        size_t n;

        if (receiver->header_used < CHANNEL_HEADER_BYTES) {
            n = CHANNEL_HEADER_BYTES - receiver->header_used;
            n = size < n ? size : n;
            memcpy(receiver->header_bytes + receiver->header_used, bytes, n);
            receiver->header_used += n;
            if (receiver->header_used == CHANNEL_HEADER_BYTES && begin_frame(receiver, e) != 0)
                return -1;
        } else {
            n = receiver->header.length - receiver->payload_used;
            n = size < n ? size : n;
            take_payload(receiver, bytes, n);
        }
        bytes += n;
        size -= n;
        if (!receiver->is_closed && receiver->current != NULL &&
            receiver->payload_used == receiver->header.length && end_frame(receiver, e) != 0)
            return -1;
    }
    return 0;
}
