#include "daemon/process/output_record.h"

#include "base/utf8.h"
#include "cloche/limits.h"
#include "json/json_write.h"

static const char *const output_names[EXEC_OUTPUT_COUNT] = {
    [EXEC_STDOUT] = "stdout", [EXEC_STDERR] = "stderr"};

/* How many bytes at the end of `data` (0 to 3) are the start of a character that is not whole. */
static size_t incomplete_bytes(const uint8_t *data, size_t size)
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

static int end_line(struct json_writer *w, struct buffer *lines)
{
    json_end_object(w);
    return w->failed || buffer_append_text(lines, "\n") != 0 ? -1 : 1;
}

static int append_missed(struct buffer *lines, struct process_follower *follower, uint64_t missed)
{
    struct json_writer w;

    json_writer_init(&w, lines);
    json_begin_object(&w, NULL);
    json_put_text(&w, "type", "missed");
    json_put_int(&w, "offset", (int64_t)(follower->offset - missed));
    json_put_int(&w, "bytes", (int64_t)missed);
    return end_line(&w, lines);
}

int output_record_append(struct buffer *lines, struct process_follower *follower)
{
    const struct process *p = follower->process;
    uint8_t data[OUTPUT_PIECE_BYTES];
    enum exec_output which = EXEC_STDOUT;
    struct json_writer w;
    uint64_t missed = process_missed(follower);

    if (missed > 0)
        return append_missed(lines, follower, missed);
    size_t size = process_peek(follower, data, sizeof(data), &which);
    size_t incomplete = incomplete_bytes(data, size);
    bool may_grow = p->state != PROCESS_ENDED && follower->offset + size == p->ring.end;
    /* With nothing in front of it, the start of a character waits, or goes out as bytes. */
    if (incomplete < size || may_grow)
        size -= incomplete;
    if (size == 0)
        return 0;
    json_writer_init(&w, lines);
    json_begin_object(&w, NULL);
    json_put_text(&w, "type", output_names[which]);
    json_put_int(&w, "offset", (int64_t)follower->offset);
    json_put_bytes(&w, "data", data, size);
    process_take(follower, size);
    return end_line(&w, lines);
}
