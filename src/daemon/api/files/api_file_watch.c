/* GET /v1/sandboxes/{id}/files/watch: changes as they happen, one line of JSON each. The client's
 * pace is the guest's: what is not taken waits there, and is told as an overflow when it is much.
 */
#include <stdbool.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api/common/pump_ends.h"
#include "daemon/api/files/file_path.h"
#include "daemon/api/files/handlers.h"
#include "daemon/link/agent_message.h"
#include "daemon/link/file_event.h"
#include "daemon/link/guest_call.h"
#include "daemon/server/exchange.h"

/* One watch; lives until the exchange closes. */
struct watch {
    struct exchange *exchange;
    struct guest_call *guest; /* NULL when over */
    struct buffer events;     /* of the guest, as they came */
    struct pump pump;         /* of the lines that they make */
};

static void stop(struct watch *watch)
{
    pump_stop(&watch->pump);
    guest_call_abandon(watch->guest);
    watch->guest = NULL;
}

static void on_close(struct exchange *x)
{
    struct watch *watch = exchange_user(x);

    stop(watch);
    buffer_fini(&watch->events);
    free(watch);
}

static void on_gone(struct exchange *x)
{
    stop(exchange_user(x));
    exchange_abort(x);
}

/* The next event's line. */
static int pull_line(void *from, struct buffer *to, struct error *e)
{
    struct watch *watch = from;
    size_t used = 0;
    int result = file_event_take(buffer_bytes(&watch->events), watch->events.size, to, &used, e);

    if (result == 0 && watch->guest == NULL && watch->events.size > 0)
        return error_set(e, ERR_BAD_REQUEST, "agent: half an event at its end");
    if (result == 1) {
        buffer_consume(&watch->events, used);
        if (watch->guest != NULL)
            guest_call_consume(watch->guest, used);
    }
    return result;
}

static void on_broken(void *arg, const struct error *why)
{
    struct watch *watch = arg;
    struct error e = *why;

    stop(watch);
    if (why->code == ERR_BAD_REQUEST)
        file_path_accuse(watch->exchange, why, &e);
    exchange_reply_error(watch->exchange, &e);
}

static void on_drain(struct exchange *x)
{
    struct watch *watch = exchange_user(x);

    pump_run(&watch->pump);
}

static void on_info(void *arg, const struct agent_info *info)
{
    static const char line[] = "{\"type\":\"watching\"}\n";
    static const struct pump_source lines = {.pull = pull_line};
    struct watch *watch = arg;
    const struct pump_spec spec = {.source = &lines,
                                   .from = watch,
                                   .sink = &pump_to_reply,
                                   .to = watch->exchange,
                                   .leftover_max = FILE_EVENT_LINE_MAX,
                                   .on_broken = on_broken,
                                   .arg = watch};

    (void)info;
    exchange_start(watch->exchange, 200, NDJSON_TYPE, EXCHANGE_LENGTH_UNKNOWN, on_drain);
    if (exchange_write(watch->exchange, line, sizeof(line) - 1) == 0) {
        pump_init(&watch->pump, &spec);
    } else {
        stop(watch);
        exchange_abort(watch->exchange);
    }
}

static void on_data(void *arg, const uint8_t *data, size_t size)
{
    struct watch *watch = arg;

    if (buffer_append(&watch->events, data, size) == 0) {
        pump_run(&watch->pump);
    } else {
        stop(watch);
        exchange_abort(watch->exchange);
    }
}

/* The directory is gone, or the sandbox. */
static void on_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct watch *watch = arg;

    (void)end;
    watch->guest = NULL;
    if (why == NULL) {
        pump_end(&watch->pump);
    } else {
        stop(watch);
        exchange_reply_error(watch->exchange,
                             why); /* cuts the connection if the reply has started */
    }
}

static int start(struct exchange *x, struct agent_link *link, const char *path, struct error *e)
{
    static const struct guest_call_events events = {
        .on_info = on_info, .on_data = on_data, .on_end = on_end};
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    bool is_tree = false;
    struct watch *watch = NULL;

    if (exchange_query_bool(x, "recursive", &is_tree, e) != 0)
        return -1;
    watch = calloc(1, sizeof(*watch));
    if (watch == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    watch->exchange = x;
    watch->events = (struct buffer)BUFFER_INIT(CHANNEL_WINDOW_BYTES);
    exchange_set_user(x, watch);
    exchange_on_close(x, on_close);
    exchange_on_gone(x, on_gone);
    int rc = agent_request_watch(&request, is_tree ? CHANNEL_WATCH_TREE : 0, path, e);
    if (rc == 0)
        rc = guest_call_ask(exchange_loop(x), link, CHANNEL_OP_WATCH, "watch", path, &request,
                            &events, watch, &watch->guest, e);
    buffer_fini(&request);
    return rc;
}

void api_file_watch(struct exchange *x)
{
    static const char *const query[] = {"path", "recursive", NULL};
    static const struct file_path_call call = {.query = query, .start = start};

    file_path_begin(x, &call);
}
