#include "daemon/output_record.h"

#include <assert.h>
#include <string.h>

#include "base/utf8.h"
#include "cloche/limits.h"
#include "json/json_write.h"

size_t output_incomplete(const uint8_t *data, size_t size)
{
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        uint8_t byte = data[size - back];

        if (byte >= 0xc2 && byte <= 0xf4) {
            size_t length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;

            return length > back ? back : 0;
        }
        if (byte < 0x80 || byte >= 0xc0)
            return 0;
    }
    return 0;
}

int output_record_append(struct buffer *lines, const char *type, struct output_tail *tail,
                         const uint8_t *data, size_t size, bool is_last)
{
    uint8_t joined[CHANNEL_PAYLOAD_MAX + sizeof(tail->bytes)];
    struct json_writer w;

    assert(size <= CHANNEL_PAYLOAD_MAX);
    memcpy(joined, tail->bytes, tail->size);
    if (size > 0)
        memcpy(joined + tail->size, data, size);
    size += tail->size;
    size_t held = is_last ? 0 : output_incomplete(joined, size);
    if (!utf8_valid(joined, size - held))
        held = 0; /* it goes out as base64 anyway */
    size -= held;
    memcpy(tail->bytes, joined + size, held);
    tail->size = held;
    if (size == 0)
        return 0;
    json_writer_init(&w, lines);
    json_begin_object(&w, NULL);
    json_put_text(&w, "type", type);
    json_put_bytes(&w, "data", joined, size);
    json_end_object(&w);
    return w.failed ? -1 : buffer_append_text(lines, "\n");
}
