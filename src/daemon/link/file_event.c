#include "daemon/link/file_event.h"

#include "base/wire.h"
#include "json/json_write.h"

static const char *const kinds[] = {
    [CHANNEL_EVENT_CREATED] = "created",   [CHANNEL_EVENT_MODIFIED] = "modified",
    [CHANNEL_EVENT_DELETED] = "deleted",   [CHANNEL_EVENT_MOVED] = "moved",
    [CHANNEL_EVENT_OVERFLOW] = "overflow",
};

#define KIND_COUNT (sizeof(kinds) / sizeof(kinds[0]))

struct event {
    uint32_t kind;
    uint32_t is_directory;
    const char *path, *from;
    size_t path_size, from_size;
};

static const char *judge(const struct event *event)
{
    if (event->kind >= KIND_COUNT)
        return "an unknown kind";
    if (event->is_directory > 1)
        return "an unknown flag";
    if ((event->kind != CHANNEL_EVENT_OVERFLOW) != (event->path_size > 0 && event->path[0] == '/'))
        return "a path that does not fit";
    if ((event->kind == CHANNEL_EVENT_MOVED) != (event->from_size > 0 && event->from[0] == '/'))
        return "a second path that does not fit";
    return NULL;
}

static int put_line(const struct event *event, struct buffer *lines, struct error *e)
{
    struct json_writer w;

    json_writer_init(&w, lines);
    json_begin_object(&w, NULL);
    json_put_text(&w, "type", kinds[event->kind]);
    if (event->kind != CHANNEL_EVENT_OVERFLOW) {
        json_put_bytes(&w, "path", event->path, event->path_size);
        if (event->kind == CHANNEL_EVENT_MOVED)
            json_put_bytes(&w, "from", event->from, event->from_size);
        json_put_bool(&w, "directory", event->is_directory != 0);
    }
    json_end_object(&w);
    if (w.failed || buffer_append_text(lines, "\n") != 0)
        return error_set(e, ERR_INTERNAL, "out of memory for events");
    return 0;
}

int file_event_take(const void *data, size_t size, struct buffer *lines, size_t *ret_used,
                    struct error *e)
{
    struct wire_reader r;
    struct event event = {0};

    wire_reader_init(&r, data, size);
    event.kind = wire_get_u32(&r);
    if (!r.bad && event.kind == 0) {
        *ret_used = sizeof(uint32_t);
        return 1;
    }
    event.is_directory = wire_get_u32(&r);
    event.path = wire_get_string(&r, CHANNEL_PATH_MAX - 1, &event.path_size);
    event.from = wire_get_string(&r, CHANNEL_PATH_MAX - 1, &event.from_size);
    /* What is whole at the longest has no rest that could mend it. */
    if (r.bad && size < FILE_EVENT_BYTES_MAX)
        return 0;
    const char *fault = r.bad ? "malformed fields" : judge(&event);
    if (fault != NULL)
        return error_set(e, ERR_BAD_REQUEST, "agent: an event has %s", fault);
    *ret_used = size - r.left;
    return put_line(&event, lines, e) == 0 ? 1 : -1;
}
