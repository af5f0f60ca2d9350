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
    struct exec_changes *changes = arg;

    (void)info;
    changes->is_ready = true;
    changes->calls.on_ready(changes->arg, NULL);
}

/* The end, good or bad. */
static void tell(struct exec_changes *changes, const struct error *why)
{
    changes->file = NULL;
    if (!changes->is_ready)
        changes->calls.on_ready(changes->arg, why);
    else if (changes->is_asked)
        changes->calls.on_told(changes->arg);
}

static void on_data(void *arg, const uint8_t *data, size_t size)
{
    struct exec_changes *changes = arg;

    guest_call_consume(changes->file, size);
    if (buffer_append(&changes->events, data, size) == 0)
        return;
    guest_call_abandon(changes->file);
    agent_link_accuse(changes->link, "more changes of files than it may tell");
    tell(changes, NULL);
}

/* Makes JSON of the events; -1 where one is malformed, or memory is short. */
static int judge_events(struct exec_changes *changes, struct error *e)
{
    size_t used = 0;
    int result;

    while ((result = file_event_take(buffer_bytes(&changes->events), changes->events.size,
                                     &changes->objects, &used, e)) == 1) {
        buffer_consume(&changes->events, used);
        if (changes->objects.size > 0) /* in place of the line's end */
            buffer_bytes(&changes->objects)[changes->objects.size - 1] = ',';
    }
    if (result == 0 && changes->events.size > 0)
        return error_set(e, ERR_BAD_REQUEST, "agent: half an event at the end");
    return result;
}

static void on_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct exec_changes *changes = arg;
    struct error e = ERROR_INIT;

    if (why == NULL && judge_events(changes, &e) != 0) {
        if (e.code == ERR_BAD_REQUEST)
            agent_link_accuse(changes->link, e.message);
        why = &e;
    }
    buffer_fini(&changes->events);
    if (why == NULL && changes->is_asked) {
        changes->is_whole = true;
        changes->is_more = (end->flags & CHANNEL_END_MORE) != 0;
    }
    tell(changes, why);
}

int exec_changes_new(uv_loop_t *loop, struct agent_link *link,
                     const struct exec_changes_calls *calls, void *arg,
                     struct exec_changes **ret_changes, struct error *e)
{
    static const struct guest_call_events file_calls = {
        .on_info = on_info, .on_data = on_data, .on_end = on_end};
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct exec_changes *changes = calloc(1, sizeof(*changes));

    if (changes == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for changes");
    changes->calls = *calls;
    changes->arg = arg;
    changes->link = link;
    changes->events = (struct buffer)BUFFER_INIT(FILE_RECORDS_BYTES_MAX);
    changes->objects = (struct buffer)BUFFER_INIT(EXEC_CHANGES_BYTES_MAX);
    int result = agent_request_diff(&request, e);
    if (result == 0)
        result = guest_call_ask(loop, link, CHANNEL_OP_DIFF, "tell the changes of", "/", &request,
                                &file_calls, changes, &changes->file, e);
    buffer_fini(&request);
    if (result != 0)
        free(changes);
    else
        *ret_changes = changes;
    return result;
}

bool exec_changes_ask(struct exec_changes *changes)
{
    if (changes->file == NULL)
        return false;
    changes->is_asked = true;
    guest_call_finish(changes->file);
    return true;
}

void exec_changes_put(const struct exec_changes *changes, struct json_writer *w)
{
    if (!changes->is_whole) {
        json_put_null(w, "changes");
        return;
    }
    json_begin_array(w, "changes");
    if (changes->objects.size > 0)
        json_put_made(w, buffer_bytes(&changes->objects), changes->objects.size - 1);
    json_end_array(w);
    json_put_bool(w, "changes_truncated", changes->is_more);
}

size_t exec_changes_bytes(const struct exec_changes *changes)
{
    return changes->objects.size;
}

void exec_changes_free(struct exec_changes *changes)
{
    if (changes == NULL)
        return;
    guest_call_abandon(changes->file);
    buffer_fini(&changes->events);
    buffer_fini(&changes->objects);
    free(changes);
}
