/*
 * PUT and GET /v1/sandboxes/{id}/files?path=: one file as a raw body, streamed both ways, GET also
 * a range of it. Each side waits for the other: a body is read as fast as the guest takes it, a
 * file as fast as the client does.
 */
#include <inttypes.h>
#include <sha2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "cloche/limits.h"
#include "daemon/api/common/pump_ends.h"
#include "daemon/api/files/file_path.h"
#include "daemon/api/files/handlers.h"
#include "daemon/link/file_mode.h"
#include "daemon/link/guest_call.h"
#include "daemon/server/exchange.h"
#include "http/range.h"
#include "json/json_write.h"

/* One transfer; lives until the exchange closes. */
struct transfer {
    struct exchange *exchange;
    struct guest_call *guest; /* NULL when over */
    struct pump pump;
    char path[CHANNEL_PATH_MAX];
    SHA2_CTX sha256; /* PUT */
    uint64_t left;   /* GET: bytes of Content-Length that have not come */
    bool is_unsized; /* GET: the guest says 0 bytes */
    bool has_range;  /* GET */
    struct http_range range;
};

static void stop(struct transfer *transfer)
{
    pump_stop(&transfer->pump);
    guest_call_abandon(transfer->guest);
    transfer->guest = NULL;
}

static void on_close(struct exchange *x)
{
    struct transfer *transfer = exchange_user(x);

    stop(transfer);
    free(transfer);
}

/* The client has vanished: a file half written is dropped. */
static void on_gone(struct exchange *x)
{
    stop(exchange_user(x));
    exchange_abort(x);
}

static void on_broken(void *arg, const struct error *why)
{
    struct transfer *transfer = arg;

    stop(transfer);
    exchange_reply_error(transfer->exchange, why);
}

static struct transfer *transfer_new(struct exchange *x, const char *path, struct error *e)
{
    struct transfer *transfer = calloc(1, sizeof(*transfer));

    if (transfer == NULL) {
        (void)error_set(e, ERR_INTERNAL, "out of memory for a file transfer");
        return NULL;
    }
    transfer->exchange = x;
    (void)snprintf(transfer->path, sizeof(transfer->path), "%s", path);
    exchange_set_user(x, transfer);
    exchange_on_close(x, on_close);
    exchange_on_gone(x, on_gone);
    return transfer;
}

/* --- PUT ----------------------------------------------------------------------------------------
 */

static void reply_put(struct transfer *transfer, uint64_t bytes)
{
    struct buffer body = BUFFER_INIT(8 * CHANNEL_PATH_MAX);
    char digest[SHA256_DIGEST_STRING_LENGTH];
    struct json_writer w;

    (void)SHA256End(&transfer->sha256, digest);
    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_put_bytes(&w, "path", transfer->path, strlen(transfer->path));
    json_put_int(&w, "size", (int64_t)bytes);
    json_put_text(&w, "sha256", digest);
    json_end_object(&w);
    exchange_reply_written(transfer->exchange, 201, &w);
}

static void on_put_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct transfer *transfer = arg;

    transfer->guest = NULL;
    pump_stop(&transfer->pump);
    if (why != NULL)
        exchange_reply_error(transfer->exchange, why);
    else
        reply_put(transfer, end->bytes);
}

static void on_put_writable(void *arg)
{
    struct transfer *transfer = arg;

    pump_run(&transfer->pump);
}

static void on_put_data(struct exchange *x, const void *data, size_t size)
{
    struct transfer *transfer = exchange_user(x);

    SHA256Update(&transfer->sha256, data, size);
    pump_data(&transfer->pump, data, size);
}

static void on_put_body_end(struct exchange *x, const struct error *failure)
{
    struct transfer *transfer = exchange_user(x);

    if (failure == NULL) {
        pump_end(&transfer->pump);
    } else {
        stop(transfer);
        exchange_reply_error(x, failure);
    }
}

static int start_put(struct exchange *x, struct agent_link *link, const char *path, struct error *e)
{
    static const struct guest_call_events events = {.on_writable = on_put_writable,
                                                    .on_end = on_put_end};
    struct transfer *transfer = transfer_new(x, path, e);
    uint32_t mode = 0;

    if (transfer == NULL || file_mode_parse(exchange_query(x, "mode"), &mode, e) != 0 ||
        guest_call_write(exchange_loop(x), link, path, mode, &events, transfer, &transfer->guest,
                         e) != 0)
        return -1;
    const struct pump_spec spec = {.source = &pump_from_body,
                                   .from = x,
                                   .sink = &pump_to_guest,
                                   .to = transfer->guest,
                                   .leftover_max = PUMP_BODY_LEFTOVER_MAX,
                                   .on_broken = on_broken,
                                   .arg = transfer};
    pump_init(&transfer->pump, &spec);
    SHA256Init(&transfer->sha256);
    exchange_read_stream(x, UINT64_MAX, on_put_data, on_put_body_end);
    return 0;
}

void api_file_put(struct exchange *x)
{
    static const char *const query[] = {"path", "mode", NULL};
    static const struct file_path_call call = {.query = query, .is_file = true, .start = start_put};

    file_path_begin(x, &call);
}

/* --- GET ----------------------------------------------------------------------------------------
 */

/* A range that depends on a validator is ignored: replies have none. */
static void take_range(const struct exchange *x, struct transfer *transfer)
{
    const char *value = exchange_header(x, "range");

    if (value != NULL && !exchange_is_head(x) && exchange_header(x, "if-range") == NULL)
        transfer->has_range =
            http_range_parse((struct http_span){value, strlen(value)}, &transfer->range);
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
    struct transfer *transfer = exchange_user(x);

    pump_run(&transfer->pump);
}

static void refuse_range(struct transfer *transfer, const struct agent_info *info)
{
    struct exchange *x = transfer->exchange;
    struct error e = ERROR_INIT;

    stop(transfer);
    exchange_set_header(x, "Content-Range", "bytes */%" PRIu64, info->size);
    (void)error_set(&e, ERR_RANGE,
                    "the range has nothing of \"%.300s\", a file of %" PRIu64 " bytes",
                    transfer->path, info->size);
    (void)error_remedy(&e, "Ask for bytes that the file has, or leave out the Range header.");
    exchange_reply_error(x, &e);
}

static void on_get_info(void *arg, const struct agent_info *info)
{
    struct transfer *transfer = arg;
    struct exchange *x = transfer->exchange;
    uint64_t first = 0;
    int status = 200;

    transfer->left = info->size;
    /* Files of /proc claim to be empty and are not: what comes decides. */
    transfer->is_unsized = info->size == 0;
    if (transfer->has_range && !transfer->is_unsized) {
        if (!http_range_resolve(&transfer->range, info->size, &first, &transfer->left)) {
            refuse_range(transfer, info);
            return;
        }
        status = 206;
    }
    /* A file that the guest knew no size of comes whole. */
    if (!transfer->is_unsized && first != info->offset) {
        status = 200;
        transfer->left = info->size;
    }
    set_headers(x, info);
    if (transfer->is_unsized)
        return;
    if (status == 206)
        exchange_set_header(x, "Content-Range", "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, first,
                            first + transfer->left - 1, info->size);
    exchange_start(x, status, "application/octet-stream", transfer->left, on_get_drain);
    if (exchange_is_head(x)) {
        stop(transfer);
        exchange_end(x);
    }
}

static void on_get_data(void *arg, const uint8_t *data, size_t size)
{
    struct transfer *transfer = arg;
    size_t wanted = transfer->is_unsized || size < transfer->left ? size : (size_t)transfer->left;

    if (transfer->is_unsized && !exchange_started(transfer->exchange))
        exchange_start(transfer->exchange, 200, "application/octet-stream", EXCHANGE_LENGTH_UNKNOWN,
                       on_get_drain);
    transfer->left -= transfer->is_unsized ? 0 : wanted;
    pump_data(&transfer->pump, data, wanted);
    if (wanted < size) {
        /* A file that grows while it is read ends where it did when the reading began. */
        guest_call_abandon(transfer->guest);
        transfer->guest = NULL;
        pump_end(&transfer->pump);
    }
}

static void on_get_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct transfer *transfer = arg;
    struct exchange *x = transfer->exchange;

    (void)end;
    transfer->guest = NULL;
    if (why == NULL && transfer->left == 0) {
        if (!exchange_started(x))
            exchange_start(x, 200, "application/octet-stream", 0, on_get_drain);
        pump_end(&transfer->pump);
        return;
    }
    stop(transfer);
    if (why != NULL)
        exchange_reply_error(x, why); /* cuts the connection where the reply has started */
    else
        exchange_abort(x); /* it shrank: a short body must not pass for a whole one */
}

static int start_get(struct exchange *x, struct agent_link *link, const char *path, struct error *e)
{
    static const struct guest_call_events events = {
        .on_info = on_get_info, .on_data = on_get_data, .on_end = on_get_end};
    struct guest_call_range range = {0, UINT64_MAX};
    struct transfer *transfer = transfer_new(x, path, e);

    if (transfer == NULL)
        return -1;
    take_range(x, transfer);
    if (transfer->has_range)
        range = (struct guest_call_range){transfer->range.is_suffix ? CHANNEL_READ_TAIL
                                                                    : transfer->range.first,
                                          transfer->range.length};
    if (guest_call_read(exchange_loop(x), link, path, &range, &events, transfer, &transfer->guest,
                        e) != 0)
        return -1;
    const struct pump_spec spec = {.source = &pump_from_guest,
                                   .from = transfer->guest,
                                   .sink = &pump_to_reply,
                                   .to = x,
                                   .leftover_max = PUMP_GUEST_LEFTOVER_MAX,
                                   .on_broken = on_broken,
                                   .arg = transfer};
    pump_init(&transfer->pump, &spec);
    return 0;
}

void api_file_get(struct exchange *x)
{
    static const char *const query[] = {"path", NULL};
    static const struct file_path_call call = {.query = query, .is_file = true, .start = start_get};

    file_path_begin(x, &call);
}
