#include "daemon/process/exec_changes.h"

#include <stdlib.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/link/file_event.h"
#include "daemon/link/guest_call.h"

struct exec_changes {
    struct guest_call *file; /* NULL: over */
    struct exec_changes_calls calls;
    void *arg;
    struct agent_link *link;
    bool is_ready;
    bool is_asked;
    bool is_whole; /* told, and all of it is in `objects` */
    bool is_more;
    struct buffer events;  /* as they came, not yet judged */
    struct buffer objects; /* of JSON, a comma behind each */
};

static void on_info(void *arg, const struct agent_info *info)
{
    struct exec_changes *c = arg;

    (void)info;
    c->is_ready = true;
    c->calls.on_ready(c->arg, NULL);
}

/* The end, good or bad. */
static void tell(struct exec_changes *c, const struct error *why)
{
    c->file = NULL;
    if (!c->is_ready)
        c->calls.on_ready(c->arg, why);
    else if (c->is_asked)
        c->calls.on_told(c->arg);
}

static void on_data(void *arg, const uint8_t *data, size_t size)
{
    struct exec_changes *c = arg;

    guest_call_consume(c->file, size);
    if (buffer_append(&c->events, data, size) == 0)
        return;
    guest_call_abandon(c->file);
    agent_link_accuse(c->link, "more changes of files than it may tell");
    tell(c, NULL);
}

/* Makes JSON of the events; -1 where one is malformed, or memory is short. */
static int judge_events(struct exec_changes *c, struct error *e)
{
    size_t used = 0;
    int result;

    while ((result = file_event_take(buffer_bytes(&c->events), c->events.size, &c->objects, &used,
                                     e)) == 1) {
        buffer_consume(&c->events, used);
        if (c->objects.size > 0) /* in place of the line's end */
            buffer_bytes(&c->objects)[c->objects.size - 1] = ',';
    }
    if (result == 0 && c->events.size > 0)
        return error_set(e, ERR_BAD_REQUEST, "agent: half an event at the end");
    return result;
}

static void on_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct exec_changes *c = arg;
    struct error e = ERROR_INIT;

    if (why == NULL && judge_events(c, &e) != 0) {
        if (e.code == ERR_BAD_REQUEST)
            agent_link_accuse(c->link, e.message);
        why = &e;
    }
    buffer_fini(&c->events);
    if (why == NULL && c->is_asked) {
        c->is_whole = true;
        c->is_more = (end->flags & CHANNEL_END_MORE) != 0;
    }
    tell(c, why);
}

int exec_changes_new(uv_loop_t *loop, struct agent_link *link,
                     const struct exec_changes_calls *calls, void *arg,
                     struct exec_changes **ret_changes, struct error *e)
{
    static const struct guest_call_events file_calls = {
        .on_info = on_info, .on_data = on_data, .on_end = on_end};
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct exec_changes *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for changes");
    c->calls = *calls;
    c->arg = arg;
    c->link = link;
    c->events = (struct buffer)BUFFER_INIT(FILE_RECORDS_BYTES_MAX);
    c->objects = (struct buffer)BUFFER_INIT(EXEC_CHANGES_BYTES_MAX);
    int result = agent_request_diff(&request, e);
    if (result == 0)
        result = guest_call_ask(loop, link, CHANNEL_OP_DIFF, "tell the changes of", "/", &request,
                                &file_calls, c, &c->file, e);
    buffer_fini(&request);
    if (result != 0)
        free(c);
    else
        *ret_changes = c;
    return result;
}

bool exec_changes_ask(struct exec_changes *c)
{
    if (c->file == NULL)
        return false;
    c->is_asked = true;
    guest_call_finish(c->file);
    return true;
}

void exec_changes_put(const struct exec_changes *c, struct json_writer *w)
{
    if (!c->is_whole) {
        json_put_null(w, "changes");
        return;
    }
    json_begin_array(w, "changes");
    if (c->objects.size > 0)
        json_put_made(w, buffer_bytes(&c->objects), c->objects.size - 1);
    json_end_array(w);
    json_put_bool(w, "changes_truncated", c->is_more);
}

size_t exec_changes_bytes(const struct exec_changes *c)
{
    return c->objects.size;
}

void exec_changes_free(struct exec_changes *c)
{
    if (c == NULL)
        return;
    guest_call_abandon(c->file);
    buffer_fini(&c->events);
    buffer_fini(&c->objects);
    free(c);
}
