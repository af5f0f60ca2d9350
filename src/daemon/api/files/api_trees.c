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
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api/common/api.h"
#include "daemon/api/files/file_call.h"
#include "daemon/api/files/handlers.h"
#include "daemon/archive/tar_thread.h"
#include "daemon/link/agent_link.h"
#include "daemon/link/agent_message.h"
#include "daemon/link/guest_call.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/server/exchange.h"
#include "json/json_write.h"

#define QUEUE_HIGH (256 * KIB) /* of a reply, before the thread has to wait */

/* One transfer; lives until the exchange closes. */
struct transfer {
    struct exchange *exchange;
    struct guest_call *guest;  /* NULL when over */
    struct tar_thread *thread; /* NULL when over */
    char path[CHANNEL_PATH_MAX];
    struct buffer to_thread; /* what it did not take at once */
    struct buffer to_guest;  /* PUT: likewise */
    bool is_all;             /* GET: the guest has sent all, and said so */
    bool is_refused;         /* PUT: `why` is what is wrong with the archive */
    struct error why;
};

static void stop(struct transfer *t)
{
    guest_call_abandon(t->guest);
    t->guest = NULL;
    tar_thread_abandon(t->thread);
    t->thread = NULL;
}

/* Whatever is wrong ends both sides. */
static void fail(struct transfer *t, const struct error *why)
{
    stop(t);
    exchange_reply_error(t->exchange, why);
}

static void fail_memory(struct transfer *t)
{
    struct error e = ERROR_INIT;

    (void)error_set(&e, ERR_INTERNAL, "out of memory for a tree's transfer");
    fail(t, &e);
}

static void on_close(struct exchange *x)
{
    struct transfer *t = exchange_user(x);

    stop(t);
    buffer_fini(&t->to_thread);
    buffer_fini(&t->to_guest);
    free(t);
}

/* The client has vanished: what was unpacked stays. */
static void on_gone(struct exchange *x)
{
    stop(exchange_user(x));
    exchange_abort(x);
}

/* What both directions start with: a thread, and an operation of the running sandbox. */
static struct transfer *begin(struct exchange *x, enum tar_direction direction,
                              const struct tar_thread_calls *thread_calls,
                              const struct guest_call_events *guest_calls, struct error *e)
{
    static const char *const query[] = {"path", NULL};
    enum channel_op op = direction == TAR_UNPACK ? CHANNEL_OP_TREE_IN : CHANNEL_OP_TREE_OUT;
    const char *verb = direction == TAR_UNPACK ? "unpack to" : "pack";
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    const char *path = NULL;

    if (exchange_check_query(x, query, e) != 0 || file_call_query_path(x, &path, e) != 0)
        return NULL;
    struct sandbox *s = api_sandbox(x, e);
    if (s == NULL)
        return NULL;
    struct transfer *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        (void)error_set(e, ERR_INTERNAL, "out of memory for a tree's transfer");
        return NULL;
    }
    t->exchange = x;
    t->to_thread = (struct buffer)BUFFER_INIT(CHANNEL_WINDOW_BYTES);
    t->to_guest = (struct buffer)BUFFER_INIT(CHANNEL_WINDOW_BYTES);
    exchange_set_user(x, t);
    exchange_on_close(x, on_close);
    exchange_on_gone(x, on_gone);
    int rc = file_call_take_path(path, strlen(path), t->path, e);
    if (rc == 0)
        rc = tar_thread_new(exchange_loop(x), direction, thread_calls, t, &t->thread, e);
    if (rc == 0)
        rc = agent_request_tree(&request, op, t->path, e);
    if (rc == 0)
        rc = guest_call_ask(exchange_loop(x), sandbox_agent(s), op, verb, t->path, &request,
                            guest_calls, t, &t->guest, e);
    buffer_fini(&request);
    return rc == 0 ? t : NULL;
}

/* --- PUT ----------------------------------------------------------------------------------------
 */

static void reply_put(struct transfer *t, const struct agent_end *end)
{
    struct buffer body = BUFFER_INIT(8 * CHANNEL_PATH_MAX);
    struct json_writer w;

    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_put_bytes(&w, "path", t->path, strlen(t->path));
    json_put_int(&w, "files", (int64_t)end->files);
    json_put_int(&w, "directories", (int64_t)end->directories);
    json_put_int(&w, "symlinks", (int64_t)end->symlinks);
    json_put_int(&w, "bytes", (int64_t)end->content_bytes);
    json_end_object(&w);
    exchange_reply_written(t->exchange, 200, &w);
}

/* The guest has done with all that it was given, which is all there was before the fault where the
 * archive has one. */
static void on_put_guest_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct transfer *t = arg;

    t->guest = NULL;
    if (why != NULL) {
        fail(t, why);
    } else if (t->is_refused) {
        size_t used = strlen(t->why.cause);
        (void)snprintf(t->why.cause + used, sizeof(t->why.cause) - used,
                       "%s%" PRIu64 " entries were unpacked before it", used > 0 ? "; " : "",
                       end->files + end->directories + end->symlinks);
        fail(t, &t->why);
    } else {
        reply_put(t, end);
    }
}

static void finish_guest(struct transfer *t)
{
    if (t->guest != NULL && t->thread == NULL && t->to_guest.size == 0)
        guest_call_finish(t->guest);
}

static void on_put_guest_writable(void *arg)
{
    struct transfer *t = arg;

    buffer_consume(&t->to_guest,
                   guest_call_send(t->guest, buffer_bytes(&t->to_guest), t->to_guest.size));
    if (t->to_guest.size > 0)
        return;
    if (t->thread != NULL)
        tar_thread_resume(t->thread);
    finish_guest(t);
}

static void on_put_thread_data(void *arg, const uint8_t *data, size_t size)
{
    struct transfer *t = arg;
    size_t taken = guest_call_send(t->guest, data, size);

    if (taken == size)
        return;
    tar_thread_pause(t->thread);
    if (buffer_append(&t->to_guest, data + taken, size - taken) != 0)
        fail_memory(t);
}

static void on_put_thread_end(void *arg, const struct error *why)
{
    struct transfer *t = arg;

    t->thread = NULL;
    if (why != NULL) {
        t->is_refused = true;
        t->why = *why;
    }
    exchange_resume(t->exchange); /* a body that nobody needs any more is skipped */
    finish_guest(t);
}

static void on_put_thread_writable(void *arg)
{
    struct transfer *t = arg;

    buffer_consume(&t->to_thread,
                   tar_thread_send(t->thread, buffer_bytes(&t->to_thread), t->to_thread.size));
    if (t->to_thread.size == 0)
        exchange_resume(t->exchange);
}

static void on_put_body(struct exchange *x, const void *data, size_t size)
{
    struct transfer *t = exchange_user(x);

    if (t->thread == NULL)
        return;
    size_t taken = tar_thread_send(t->thread, data, size);
    if (taken == size)
        return;
    exchange_pause(x);
    if (buffer_append(&t->to_thread, (const uint8_t *)data + taken, size - taken) != 0)
        fail_memory(t);
}

static void on_put_body_end(struct exchange *x, const struct error *failure)
{
    struct transfer *t = exchange_user(x);

    if (failure != NULL && (t->guest != NULL || t->thread != NULL))
        fail(t, failure);
    else if (t->thread != NULL)
        tar_thread_finish(t->thread);
}

void api_tree_put(struct exchange *x)
{
    static const struct tar_thread_calls thread_calls = {.on_data = on_put_thread_data,
                                                         .on_writable = on_put_thread_writable,
                                                         .on_end = on_put_thread_end};
    static const struct guest_call_events guest_calls = {.on_writable = on_put_guest_writable,
                                                         .on_end = on_put_guest_end};
    struct error e = ERROR_INIT;

    if (begin(x, TAR_UNPACK, &thread_calls, &guest_calls, &e) == NULL)
        exchange_reply_error(x, &e);
    else
        exchange_read_stream(x, UINT64_MAX, on_put_body, on_put_body_end);
}

/* --- GET ----------------------------------------------------------------------------------------
 */

static void on_get_drain(struct exchange *x)
{
    struct transfer *t = exchange_user(x);

    if (t->thread != NULL)
        tar_thread_resume(t->thread);
}

static void finish_thread(struct transfer *t)
{
    if (t->is_all && t->thread != NULL && t->to_thread.size == 0)
        tar_thread_finish(t->thread);
}

static void on_get_guest_data(void *arg, const uint8_t *data, size_t size)
{
    struct transfer *t = arg;
    /* In their order: nothing overtakes what waits. */
    size_t taken = t->to_thread.size == 0 ? tar_thread_send(t->thread, data, size) : 0;

    guest_call_consume(t->guest, taken);
    if (buffer_append(&t->to_thread, data + taken, size - taken) != 0)
        fail_memory(t);
}

static void on_get_guest_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct transfer *t = arg;

    (void)end;
    t->guest = NULL;
    if (why != NULL) {
        fail(t, why); /* cuts the connection where the reply has started */
        return;
    }
    t->is_all = true;
    finish_thread(t);
}

static void on_get_thread_writable(void *arg)
{
    struct transfer *t = arg;
    size_t taken = tar_thread_send(t->thread, buffer_bytes(&t->to_thread), t->to_thread.size);

    buffer_consume(&t->to_thread, taken);
    if (t->guest != NULL)
        guest_call_consume(t->guest, taken);
    finish_thread(t);
}

static void on_get_thread_data(void *arg, const uint8_t *data, size_t size)
{
    struct transfer *t = arg;
    struct exchange *x = t->exchange;

    if (!exchange_started(x)) {
        exchange_set_header(x, "X-Cloche-Skipped", "%" PRIu64, tar_thread_skipped(t->thread));
        exchange_start(x, 200, "application/x-tar", EXCHANGE_LENGTH_UNKNOWN, on_get_drain);
    }
    if (exchange_is_head(x)) {
        stop(t);
        exchange_end(x);
    } else if (exchange_write(x, data, size) != 0) {
        stop(t);
        exchange_abort(x);
    } else if (exchange_queued(x) > QUEUE_HIGH) {
        tar_thread_pause(t->thread);
    }
}

/* The guest sent what is no tree: that is the end of its sandbox. */
static void accuse(struct transfer *t, const struct error *why)
{
    struct error e = ERROR_INIT;
    struct sandbox *s = api_sandbox(t->exchange, &e);

    if (s != NULL)
        agent_link_accuse(sandbox_agent(s), why->message);
    (void)error_set(&e, ERR_SANDBOX_GONE, "the sandbox's agent broke its protocol");
    (void)error_cause(&e, "%.200s", why->message);
    fail(t, &e);
}

static void on_get_thread_end(void *arg, const struct error *why)
{
    struct transfer *t = arg;

    t->thread = NULL;
    if (why == NULL)
        exchange_end(t->exchange);
    else if (why->code == ERR_BAD_REQUEST)
        accuse(t, why);
    else
        fail(t, why);
}

void api_tree_get(struct exchange *x)
{
    static const struct tar_thread_calls thread_calls = {.on_data = on_get_thread_data,
                                                         .on_writable = on_get_thread_writable,
                                                         .on_end = on_get_thread_end};
    static const struct guest_call_events guest_calls = {.on_data = on_get_guest_data,
                                                         .on_end = on_get_guest_end};
    struct error e = ERROR_INIT;

    if (begin(x, TAR_PACK, &thread_calls, &guest_calls, &e) == NULL)
        exchange_reply_error(x, &e);
}
