/*
 * PUT and GET /v1/sandboxes/{id}/files/tar?path=: a tree as an uncompressed tar archive, streamed
 * in either direction through a thread that knows archives (tar_thread.h):
 *
 *   PUT: client -> thread (archive to entries) -> guest      GET: guest -> thread -> client
 *
 * Each waits for the one behind it, so the daemon holds a few queues' worth of a tree, whatever its
 * size.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api/common/pump_ends.h"
#include "daemon/api/files/file_path.h"
#include "daemon/api/files/handlers.h"
#include "daemon/archive/tar_thread.h"
#include "daemon/link/agent_link.h"
#include "daemon/link/agent_message.h"
#include "daemon/link/guest_call.h"
#include "daemon/server/exchange.h"
#include "json/json_write.h"

/* One transfer; lives until the exchange closes. */
struct transfer {
    struct exchange *exchange;
    struct guest_call *guest;  /* NULL when over */
    struct tar_thread *thread; /* NULL when over */
    char path[CHANNEL_PATH_MAX];
    struct pump in;  /* from the client or the guest to the thread */
    struct pump out; /* from there to the other */
    bool is_refused; /* PUT: `why` is what is wrong with the archive */
    struct error why;
};

static void pause_thread(void *from)
{
    tar_thread_pause(from);
}

static void resume_thread(void *from)
{
    tar_thread_resume(from);
}

static size_t write_thread(void *to, const uint8_t *data, size_t size)
{
    return tar_thread_send(to, data, size);
}

static void finish_thread(void *to)
{
    tar_thread_finish(to);
}

static const struct pump_source from_thread = {.pause = pause_thread, .resume = resume_thread};
static const struct pump_sink to_thread = {.write = write_thread, .end = finish_thread};

static void stop(struct transfer *transfer)
{
    pump_stop(&transfer->in);
    pump_stop(&transfer->out);
    guest_call_abandon(transfer->guest);
    transfer->guest = NULL;
    tar_thread_abandon(transfer->thread);
    transfer->thread = NULL;
}

/* Whatever is wrong ends both sides. */
static void fail(struct transfer *transfer, const struct error *why)
{
    stop(transfer);
    exchange_reply_error(transfer->exchange, why);
}

static void on_broken(void *arg, const struct error *why)
{
    fail(arg, why);
}

static void on_close(struct exchange *x)
{
    struct transfer *transfer = exchange_user(x);

    stop(transfer);
    free(transfer);
}

/* The client has vanished: what was unpacked stays. */
static void on_gone(struct exchange *x)
{
    stop(exchange_user(x));
    exchange_abort(x);
}

/* What both directions start with: a thread, and an operation of the running sandbox. */
static struct transfer *begin(struct exchange *x, struct agent_link *link, const char *path,
                              enum tar_direction direction,
                              const struct tar_thread_calls *thread_calls,
                              const struct guest_call_events *guest_events, struct error *e)
{
    enum channel_op op = direction == TAR_UNPACK ? CHANNEL_OP_TREE_IN : CHANNEL_OP_TREE_OUT;
    const char *verb = direction == TAR_UNPACK ? "unpack to" : "pack";
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct transfer *transfer = calloc(1, sizeof(*transfer));

    if (transfer == NULL) {
        (void)error_set(e, ERR_INTERNAL, "out of memory for a tree's transfer");
        return NULL;
    }
    transfer->exchange = x;
    (void)snprintf(transfer->path, sizeof(transfer->path), "%s", path);
    exchange_set_user(x, transfer);
    exchange_on_close(x, on_close);
    exchange_on_gone(x, on_gone);
    int rc =
        tar_thread_new(exchange_loop(x), direction, thread_calls, transfer, &transfer->thread, e);
    if (rc == 0)
        rc = agent_request_tree(&request, op, path, e);
    if (rc == 0)
        rc = guest_call_ask(exchange_loop(x), link, op, verb, path, &request, guest_events,
                            transfer, &transfer->guest, e);
    buffer_fini(&request);
    return rc == 0 ? transfer : NULL;
}

/* --- PUT ----------------------------------------------------------------------------------------
 */

static void reply_put(struct transfer *transfer, const struct agent_end *end)
{
    struct buffer body = BUFFER_INIT(8 * CHANNEL_PATH_MAX);
    struct json_writer w;

    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_put_bytes(&w, "path", transfer->path, strlen(transfer->path));
    json_put_int(&w, "files", (int64_t)end->files);
    json_put_int(&w, "directories", (int64_t)end->directories);
    json_put_int(&w, "symlinks", (int64_t)end->symlinks);
    json_put_int(&w, "bytes", (int64_t)end->content_bytes);
    json_end_object(&w);
    exchange_reply_written(transfer->exchange, 200, &w);
}

/* The guest has done with all that it was given, which is all there was before the fault where the
 * archive has one. */
static void on_put_guest_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct transfer *transfer = arg;

    transfer->guest = NULL;
    if (why != NULL) {
        fail(transfer, why);
    } else if (transfer->is_refused) {
        size_t used = strlen(transfer->why.cause);
        (void)snprintf(transfer->why.cause + used, sizeof(transfer->why.cause) - used,
                       "%s%" PRIu64 " entries were unpacked before it", used > 0 ? "; " : "",
                       end->files + end->directories + end->symlinks);
        fail(transfer, &transfer->why);
    } else {
        reply_put(transfer, end);
    }
}

static void on_put_guest_writable(void *arg)
{
    struct transfer *transfer = arg;

    pump_run(&transfer->out);
}

static void on_put_thread_data(void *arg, const uint8_t *data, size_t size)
{
    struct transfer *transfer = arg;

    pump_data(&transfer->out, data, size);
}

static void on_put_thread_end(void *arg, const struct error *why)
{
    struct transfer *transfer = arg;

    transfer->thread = NULL;
    if (why != NULL) {
        transfer->is_refused = true;
        transfer->why = *why;
    }
    pump_discard(&transfer->in); /* a body that nobody needs any more is skipped */
    pump_end(&transfer->out);
}

static void on_put_thread_writable(void *arg)
{
    struct transfer *transfer = arg;

    pump_run(&transfer->in);
}

static void on_put_body(struct exchange *x, const void *data, size_t size)
{
    struct transfer *transfer = exchange_user(x);

    pump_data(&transfer->in, data, size);
}

static void on_put_body_end(struct exchange *x, const struct error *failure)
{
    struct transfer *transfer = exchange_user(x);

    if (failure != NULL)
        fail(transfer, failure);
    else
        pump_end(&transfer->in);
}

static int start_put(struct exchange *x, struct agent_link *link, const char *path, struct error *e)
{
    static const struct tar_thread_calls thread_calls = {.on_data = on_put_thread_data,
                                                         .on_writable = on_put_thread_writable,
                                                         .on_end = on_put_thread_end};
    static const struct guest_call_events guest_events = {.on_writable = on_put_guest_writable,
                                                          .on_end = on_put_guest_end};
    struct transfer *transfer = begin(x, link, path, TAR_UNPACK, &thread_calls, &guest_events, e);

    if (transfer == NULL)
        return -1;
    const struct pump_spec in = {.source = &pump_from_body,
                                 .from = x,
                                 .sink = &to_thread,
                                 .to = transfer->thread,
                                 .leftover_max = PUMP_BODY_LEFTOVER_MAX,
                                 .on_broken = on_broken,
                                 .arg = transfer};
    const struct pump_spec out = {.source = &from_thread,
                                  .from = transfer->thread,
                                  .sink = &pump_to_guest,
                                  .to = transfer->guest,
                                  .leftover_max = TAR_THREAD_PIECE_MAX,
                                  .on_broken = on_broken,
                                  .arg = transfer};
    pump_init(&transfer->in, &in);
    pump_init(&transfer->out, &out);
    exchange_read_stream(x, UINT64_MAX, on_put_body, on_put_body_end);
    return 0;
}

void api_tree_put(struct exchange *x)
{
    static const char *const query[] = {"path", NULL};
    static const struct file_path_call call = {.query = query, .start = start_put};

    file_path_begin(x, &call);
}

/* --- GET ----------------------------------------------------------------------------------------
 */

static void on_get_drain(struct exchange *x)
{
    struct transfer *transfer = exchange_user(x);

    pump_run(&transfer->out);
}

static void on_get_guest_data(void *arg, const uint8_t *data, size_t size)
{
    struct transfer *transfer = arg;

    pump_data(&transfer->in, data, size);
}

static void on_get_guest_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct transfer *transfer = arg;

    (void)end;
    transfer->guest = NULL;
    if (why != NULL)
        fail(transfer, why); /* cuts the connection where the reply has started */
    else
        pump_end(&transfer->in);
}

static void on_get_thread_writable(void *arg)
{
    struct transfer *transfer = arg;

    pump_run(&transfer->in);
}

static void on_get_thread_data(void *arg, const uint8_t *data, size_t size)
{
    struct transfer *transfer = arg;
    struct exchange *x = transfer->exchange;

    if (!exchange_started(x)) {
        exchange_set_header(x, "X-Cloche-Skipped", "%" PRIu64,
                            tar_thread_skipped(transfer->thread));
        exchange_start(x, 200, "application/x-tar", EXCHANGE_LENGTH_UNKNOWN, on_get_drain);
    }
    if (exchange_is_head(x)) {
        stop(transfer);
        exchange_end(x);
    } else {
        pump_data(&transfer->out, data, size);
    }
}

static void on_get_thread_end(void *arg, const struct error *why)
{
    struct transfer *transfer = arg;
    struct error e = ERROR_INIT;

    transfer->thread = NULL;
    if (why == NULL) {
        pump_end(&transfer->out);
    } else if (why->code == ERR_BAD_REQUEST) {
        stop(transfer);
        file_path_accuse(transfer->exchange, why, &e); /* the guest sent what is no tree */
        fail(transfer, &e);
    } else {
        fail(transfer, why);
    }
}

static int start_get(struct exchange *x, struct agent_link *link, const char *path, struct error *e)
{
    static const struct tar_thread_calls thread_calls = {.on_data = on_get_thread_data,
                                                         .on_writable = on_get_thread_writable,
                                                         .on_end = on_get_thread_end};
    static const struct guest_call_events guest_events = {.on_data = on_get_guest_data,
                                                          .on_end = on_get_guest_end};
    struct transfer *transfer = begin(x, link, path, TAR_PACK, &thread_calls, &guest_events, e);

    if (transfer == NULL)
        return -1;
    const struct pump_spec in = {.source = &pump_from_guest,
                                 .from = transfer->guest,
                                 .sink = &to_thread,
                                 .to = transfer->thread,
                                 .leftover_max = PUMP_GUEST_LEFTOVER_MAX,
                                 .on_broken = on_broken,
                                 .arg = transfer};
    const struct pump_spec out = {.source = &from_thread,
                                  .from = transfer->thread,
                                  .sink = &pump_to_reply,
                                  .to = x,
                                  .leftover_max = TAR_THREAD_PIECE_MAX,
                                  .on_broken = on_broken,
                                  .arg = transfer};
    pump_init(&transfer->in, &in);
    pump_init(&transfer->out, &out);
    return 0;
}

void api_tree_get(struct exchange *x)
{
    static const char *const query[] = {"path", NULL};
    static const struct file_path_call call = {.query = query, .start = start_get};

    file_path_begin(x, &call);
}
