/* GET /v1/sandboxes/{id}/files/watch: changes as they happen, one line of JSON each. The client's
 * pace is the guest's: what is not taken waits there, and is told as an overflow when it is much.
 */
#include <string.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api/common/api.h"
#include "daemon/api/files/file_call.h"
#include "daemon/api/files/handlers.h"
#include "daemon/link/file_event.h"
#include "daemon/link/guest_call.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/server/exchange.h"

/* Above this no event is handed on. */
#define QUEUE_HIGH (256 * KIB)

_Static_assert(QUEUE_HIGH + FILE_EVENT_LINE_MAX <= HTTP_REPLY_QUEUE_MAX,
               "a line always fits the exchange's queue");
_Static_assert(QUEUE_HIGH > HTTP_REPLY_QUEUE_LOW, "a full queue is followed by a drain");
_Static_assert(CHANNEL_WINDOW_BYTES <= FILE_RECORDS_BYTES_MAX, "c->records holds what may come");

/* file_call's number: */
enum phase {
    PHASE_OPEN,
    PHASE_ENDED, /* the guest has said its last: the reply ends with what is held */
    PHASE_OVER,  /* nothing is written any more */
};

static void stop(struct file_call *c)
{
    c->number = PHASE_OVER;
    guest_call_abandon(c->file);
    c->file = NULL;
    exchange_abort(c->exchange);
}

static void accuse(struct file_call *c, const struct error *why)
{
    c->number = PHASE_OVER;
    guest_call_abandon(c->file);
    c->file = NULL;
    file_call_accuse(c, why);
}

/* Takes one event; 1, or as file_event_take(). */
static int take_event(struct file_call *c, struct buffer *line, struct error *e)
{
    size_t used = 0;
    int result = file_event_take(buffer_bytes(&c->records), c->records.size, line, &used, e);

    if (result != 1)
        return result;
    buffer_consume(&c->records, used);
    if (c->file != NULL)
        guest_call_consume(c->file, used);
    if (line->size > 0 && exchange_write(c->exchange, buffer_bytes(line), line->size) != 0)
        return error_set(e, ERR_INTERNAL, "an event could not be sent");
    buffer_consume(line, line->size);
    return 1;
}

/* Hands on the events that are whole, as far as the client takes them. */
static void pump(struct file_call *c)
{
    struct buffer line = BUFFER_INIT(FILE_EVENT_LINE_MAX);
    struct error e = ERROR_INIT;
    int result = 1;

    while (c->number != PHASE_OVER && result == 1 && exchange_queued(c->exchange) < QUEUE_HIGH)
        result = take_event(c, &line, &e);
    buffer_fini(&line);
    if (c->number == PHASE_OVER)
        return;
    if (result == 0 && c->number == PHASE_ENDED && c->records.size > 0)
        result = error_set(&e, ERR_BAD_REQUEST, "agent: half an event at its end");
    if (result < 0 && e.code == ERR_BAD_REQUEST) {
        accuse(c, &e);
    } else if (result < 0) {
        stop(c);
    } else if (result == 0 && c->number == PHASE_ENDED) {
        c->number = PHASE_OVER;
        exchange_end(c->exchange);
    }
}

static void on_drain(struct exchange *x)
{
    pump(exchange_user(x));
}

static void on_info(void *arg, const struct agent_info *info)
{
    static const char line[] = "{\"type\":\"watching\"}\n";
    struct file_call *c = arg;

    (void)info;
    exchange_start(c->exchange, 200, NDJSON_TYPE, EXCHANGE_LENGTH_UNKNOWN, on_drain);
    if (exchange_write(c->exchange, line, sizeof(line) - 1) != 0)
        stop(c);
}

static void on_data(void *arg, const uint8_t *data, size_t size)
{
    struct file_call *c = arg;

    if (buffer_append(&c->records, data, size) != 0)
        stop(c);
    else
        pump(c);
}

/* The directory is gone, or the sandbox. */
static void on_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct file_call *c = arg;

    (void)end;
    c->file = NULL;
    if (why != NULL) {
        c->number = PHASE_OVER;
        exchange_reply_error(c->exchange, why); /* cuts the connection if the reply has started */
    } else {
        c->number = PHASE_ENDED;
        pump(c);
    }
}

static int start(struct exchange *x, struct error *e)
{
    static const char *const query[] = {"path", "recursive", NULL};
    static const struct guest_call_events calls = {
        .on_info = on_info, .on_data = on_data, .on_end = on_end};
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    const char *path = NULL;
    bool is_tree = false;

    if (exchange_check_query(x, query, e) != 0 || file_call_query_path(x, &path, e) != 0 ||
        exchange_query_bool(x, "recursive", &is_tree, e) != 0)
        return -1;
    struct sandbox *s = api_sandbox(x, e);
    struct file_call *c = s != NULL ? file_call_new(x, e) : NULL;
    if (c == NULL || file_call_take_path(path, strlen(path), c->path, e) != 0)
        return -1;
    int rc = agent_request_watch(&request, is_tree ? CHANNEL_WATCH_TREE : 0, c->path, e);
    if (rc == 0)
        rc = guest_call_ask(exchange_loop(x), sandbox_agent(s), CHANNEL_OP_WATCH, "watch", c->path,
                            &request, &calls, c, &c->file, e);
    buffer_fini(&request);
    return rc;
}

void api_file_watch(struct exchange *x)
{
    struct error e = ERROR_INIT;

    if (start(x, &e) != 0)
        exchange_reply_error(x, &e);
}
