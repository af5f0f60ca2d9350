/*
 * PUT and GET /v1/sandboxes/{id}/files?path=: one file as a raw body, streamed both ways, GET also
 * a range of it. Each side waits for the other: a body is read as fast as the guest takes it, a
 * file as fast as the client does.
 */
#include <inttypes.h>
#include <sha2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "cloche/limits.h"
#include "daemon/api/common/api.h"
#include "daemon/api/files/file_call.h"
#include "daemon/api/files/handlers.h"
#include "daemon/link/file_mode.h"
#include "daemon/link/guest_call.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/server/exchange.h"
#include "http/range.h"
#include "json/json_write.h"

#define QUEUE_HIGH (256 * KIB) /* of a reply, before the guest has to wait */

_Static_assert(QUEUE_HIGH + CHANNEL_WINDOW_BYTES <= HTTP_REPLY_QUEUE_MAX,
               "what the guest may still send always fits the exchange's queue");

/* One transfer; lives until the exchange closes. */
struct transfer {
    struct guest_call *file; /* NULL when over */
    const char *path;        /* the exchange's */
    uint32_t mode;
    SHA2_CTX sha256;       /* PUT */
    struct buffer pending; /* PUT: what the guest did not take at once */
    uint64_t left;         /* GET: bytes of Content-Length that have not come */
    bool is_unsized;       /* GET: the guest says 0 bytes */
    bool has_range;        /* GET */
    struct http_range range;
    size_t unconsumed; /* GET: bytes the guest gets no credit for yet */
};

static void on_close(struct exchange *x)
{
    struct transfer *t = exchange_user(x);

    guest_call_abandon(t->file);
    buffer_fini(&t->pending);
    free(t);
}

/* The client has vanished: a file half written is dropped. */
static void on_gone(struct exchange *x)
{
    struct transfer *t = exchange_user(x);

    guest_call_abandon(t->file);
    t->file = NULL;
    exchange_abort(x);
}

/* What both directions start with: a transfer for a checked path in a running sandbox. */
static struct transfer *begin(struct exchange *x, const char *const *query,
                              struct agent_link **ret_link, struct error *e)
{
    const char *path = NULL;

    if (exchange_check_query(x, query, e) != 0 || file_call_query_path(x, &path, e) != 0 ||
        guest_call_check_path(path, strlen(path), e) != 0)
        return NULL;
    struct sandbox *s = api_sandbox(x, e);
    if (s == NULL)
        return NULL;
    struct transfer *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        (void)error_set(e, ERR_INTERNAL, "out of memory for a file transfer");
        return NULL;
    }
    t->path = path;
    t->pending = (struct buffer)BUFFER_INIT(HTTP_INPUT_BYTES_MAX);
    *ret_link = sandbox_agent(s);
    exchange_set_user(x, t);
    exchange_on_close(x, on_close);
    exchange_on_gone(x, on_gone);
    return t;
}

/* --- PUT ----------------------------------------------------------------------------------------
 */

static void reply_put(struct exchange *x, uint64_t bytes)
{
    struct transfer *t = exchange_user(x);
    struct buffer body = BUFFER_INIT(8 * CHANNEL_PATH_MAX);
    char digest[SHA256_DIGEST_STRING_LENGTH];
    struct json_writer w;

    (void)SHA256End(&t->sha256, digest);
    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_put_bytes(&w, "path", t->path, strlen(t->path));
    json_put_int(&w, "size", (int64_t)bytes);
    json_put_text(&w, "sha256", digest);
    json_end_object(&w);
    exchange_reply_written(x, 201, &w);
}

static void on_put_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct exchange *x = arg;
    struct transfer *t = exchange_user(x);

    t->file = NULL;
    if (why != NULL)
        exchange_reply_error(x, why);
    else
        reply_put(x, end->bytes);
}

/* The guest takes more: what was left over first, then the body goes on. */
static void on_put_writable(void *arg)
{
    struct exchange *x = arg;
    struct transfer *t = exchange_user(x);

    buffer_consume(&t->pending,
                   guest_call_send(t->file, buffer_bytes(&t->pending), t->pending.size));
    if (t->pending.size == 0)
        exchange_resume(x);
}

static void on_put_data(struct exchange *x, const void *data, size_t size)
{
    struct transfer *t = exchange_user(x);
    struct error e = ERROR_INIT;

    if (t->file == NULL)
        return; /* replied already, with an error */
    SHA256Update(&t->sha256, data, size);
    size_t taken = guest_call_send(t->file, data, size);
    if (taken == size)
        return;
    exchange_pause(x);
    if (buffer_append(&t->pending, (const uint8_t *)data + taken, size - taken) == 0)
        return;
    guest_call_abandon(t->file);
    t->file = NULL;
    (void)error_set(&e, ERR_INTERNAL, "out of memory for a file transfer");
    exchange_reply_error(x, &e);
}

static void on_put_body_end(struct exchange *x, const struct error *failure)
{
    struct transfer *t = exchange_user(x);

    if (t->file == NULL)
        return;
    if (failure == NULL) {
        guest_call_finish(t->file);
        return;
    }
    guest_call_abandon(t->file);
    t->file = NULL;
    exchange_reply_error(x, failure);
}

void api_file_put(struct exchange *x)
{
    static const char *const query[] = {"path", "mode", NULL};
    static const struct guest_call_events calls = {.on_writable = on_put_writable,
                                                   .on_end = on_put_end};
    struct agent_link *link = NULL;
    struct error e = ERROR_INIT;
    uint32_t mode = 0;

    struct transfer *t = begin(x, query, &link, &e);
    if (t == NULL || file_mode_parse(exchange_query(x, "mode"), &mode, &e) != 0 ||
        guest_call_write(exchange_loop(x), link, t->path, mode, &calls, x, &t->file, &e) != 0) {
        exchange_reply_error(x, &e);
        return;
    }
    SHA256Init(&t->sha256);
    exchange_read_stream(x, UINT64_MAX, on_put_data, on_put_body_end);
}

/* --- GET ----------------------------------------------------------------------------------------
 */

/* A range that depends on a validator is ignored: replies have none. */
static void take_range(const struct exchange *x, struct transfer *t)
{
    const char *value = exchange_header(x, "range");

    if (value != NULL && !exchange_is_head(x) && exchange_header(x, "if-range") == NULL)
        t->has_range = http_range_parse((struct http_span){value, strlen(value)}, &t->range);
}

static void set_headers(struct exchange *x, const struct agent_info *info)
{
    time_t seconds = (time_t)(info->mtime_ns / NS_PER_S);
    char text[64];
    struct tm tm;

    exchange_set_header(x, "X-Cloche-Mode", "%04o", info->mode);
    if (gmtime_r(&seconds, &tm) != NULL &&
        strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm) > 0)
        exchange_set_header(x, "Last-Modified", "%s", text);
    if (info->size > 0)
        exchange_set_header(x, "Accept-Ranges", "bytes");
}

static void on_get_drain(struct exchange *x)
{
    struct transfer *t = exchange_user(x);
    size_t size = t->unconsumed;

    t->unconsumed = 0;
    if (t->file != NULL)
        guest_call_consume(t->file, size);
}

/* Nothing more is wanted of the guest. */
static void stop_reading(struct transfer *t)
{
    guest_call_abandon(t->file);
    t->file = NULL;
}

static void refuse_range(struct exchange *x, const struct agent_info *info)
{
    struct transfer *t = exchange_user(x);
    struct error e = ERROR_INIT;

    stop_reading(t);
    exchange_set_header(x, "Content-Range", "bytes */%" PRIu64, info->size);
    (void)error_set(&e, ERR_RANGE,
                    "the range has nothing of \"%.300s\", a file of %" PRIu64 " bytes", t->path,
                    info->size);
    (void)error_remedy(&e, "Ask for bytes that the file has, or leave out the Range header.");
    exchange_reply_error(x, &e);
}

static void on_get_info(void *arg, const struct agent_info *info)
{
    struct exchange *x = arg;
    struct transfer *t = exchange_user(x);
    uint64_t first = 0;
    int status = 200;

    t->left = info->size;
    /* Files of /proc claim to be empty and are not: what comes decides. */
    t->is_unsized = info->size == 0;
    if (t->has_range && !t->is_unsized) {
        if (!http_range_resolve(&t->range, info->size, &first, &t->left)) {
            refuse_range(x, info);
            return;
        }
        status = 206;
    }
    /* A file that the guest knew no size of comes whole. */
    if (!t->is_unsized && first != info->offset) {
        status = 200;
        t->left = info->size;
    }
    set_headers(x, info);
    if (t->is_unsized)
        return;
    if (status == 206)
        exchange_set_header(x, "Content-Range", "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, first,
                            first + t->left - 1, info->size);
    exchange_start(x, status, "application/octet-stream", t->left, on_get_drain);
    if (exchange_is_head(x)) {
        stop_reading(t);
        exchange_end(x);
    }
}

static void on_get_data(void *arg, const uint8_t *data, size_t size)
{
    struct exchange *x = arg;
    struct transfer *t = exchange_user(x);
    size_t wanted = t->is_unsized || size < t->left ? size : (size_t)t->left;

    if (t->is_unsized && !exchange_started(x))
        exchange_start(x, 200, "application/octet-stream", EXCHANGE_LENGTH_UNKNOWN, on_get_drain);
    if (exchange_write(x, data, wanted) != 0) {
        stop_reading(t);
        exchange_abort(x);
        return;
    }
    t->left -= t->is_unsized ? 0 : wanted;
    if (wanted < size) {
        /* A file that grows while it is read ends where it did when the reading began. */
        stop_reading(t);
        exchange_end(x);
    } else if (exchange_queued(x) > QUEUE_HIGH) {
        t->unconsumed += size;
    } else {
        guest_call_consume(t->file, size);
    }
}

static void on_get_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct exchange *x = arg;
    struct transfer *t = exchange_user(x);

    (void)end;
    t->file = NULL;
    if (why != NULL) {
        exchange_reply_error(x, why); /* cuts the connection where the reply has started */
    } else if (t->left > 0) {
        exchange_abort(x); /* it shrank: a short body must not pass for a whole one */
    } else {
        if (!exchange_started(x))
            exchange_start(x, 200, "application/octet-stream", 0, on_get_drain);
        exchange_end(x);
    }
}

void api_file_get(struct exchange *x)
{
    static const char *const query[] = {"path", NULL};
    static const struct guest_call_events calls = {
        .on_info = on_get_info, .on_data = on_get_data, .on_end = on_get_end};
    struct agent_link *link = NULL;
    struct error e = ERROR_INIT;

    struct transfer *t = begin(x, query, &link, &e);
    struct guest_call_range range = {0, UINT64_MAX};
    if (t != NULL)
        take_range(x, t);
    if (t != NULL && t->has_range)
        range = (struct guest_call_range){t->range.is_suffix ? CHANNEL_READ_TAIL : t->range.first,
                                          t->range.length};
    if (t == NULL ||
        guest_call_read(exchange_loop(x), link, t->path, &range, &calls, x, &t->file, &e) != 0)
        exchange_reply_error(x, &e);
}
