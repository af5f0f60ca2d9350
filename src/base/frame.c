#include "base/frame.h"

#include <stdbool.h>

#include "base/wire.h"

void frame_header_put(uint8_t bytes[CHANNEL_HEADER_BYTES], const struct channel_header *h)
{
    struct wire_writer w;

    wire_writer_init(&w, bytes, CHANNEL_HEADER_BYTES);
    wire_put_u32(&w, h->length);
    wire_put_u32(&w, h->stream);
    wire_put_u8(&w, h->type);
    wire_put_u8(&w, h->lane);
    wire_put_u16(&w, 0);
}

static bool length_fits(const struct channel_header *h)
{
    switch (h->type) {
    case CHANNEL_CREDIT:
    case CHANNEL_SIGNAL:
    case CHANNEL_RESIZE:
        return h->length == 4;
    case CHANNEL_EOF:
    case CHANNEL_RESET:
        return h->length == 0;
    case CHANNEL_DATA:
    case CHANNEL_OPEN:
        return h->length >= 1;
    default:
        return true;
    }
}

int frame_header_get(const uint8_t bytes[CHANNEL_HEADER_BYTES], struct channel_header *ret_header,
                     struct error *e)
{
    struct channel_header h;
    struct wire_reader r;

    wire_reader_init(&r, bytes, CHANNEL_HEADER_BYTES);
    h.length = wire_get_u32(&r);
    h.stream = wire_get_u32(&r);
    h.type = wire_get_u8(&r);
    h.lane = wire_get_u8(&r);
    if (wire_get_u16(&r) != 0)
        return error_set(e, ERR_BAD_REQUEST, "channel frame: reserved bits are set");
    if (h.length > CHANNEL_PAYLOAD_MAX)
        return error_set(e, ERR_BAD_REQUEST, "channel frame: length %u is over the limit",
                         h.length);
    if (h.stream == 0)
        return error_set(e, ERR_BAD_REQUEST, "channel frame: stream 0");
    if (h.type < CHANNEL_OPEN || h.type > CHANNEL_RESIZE)
        return error_set(e, ERR_BAD_REQUEST, "channel frame: unknown type %u", h.type);
    if (h.lane >= CHANNEL_LANE_COUNT)
        return error_set(e, ERR_BAD_REQUEST, "channel frame: unknown lane %u", h.lane);
    if (!length_fits(&h))
        return error_set(e, ERR_BAD_REQUEST, "channel frame: length %u does not fit type %u",
                         h.length, h.type);
    *ret_header = h;
    return 0;
}
