/*
 * Input and output of a process that runs: POST .../processes/{pid}/stdin takes a raw body of any
 * length, GET .../processes/{pid}/output gives NDJSON records from any offset on. Both keep the
 * pace of the slower side.
 */
#include <stdlib.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api/common/exec_reply.h"
#include "daemon/api/processes/handlers.h"
#include "daemon/api/processes/process_find.h"
#include "daemon/process/process.h"
#include "daemon/server/exchange.h"

/* --- stdin --------------------------------------------------------------------------------------
 */

struct input {
    struct process_writer writer;
    struct buffer pending; /* what the guest did not take at once */
    uint64_t bytes;
    bool closes;
    bool is_whole; /* the body's end has come */
};

static void on_input_close(struct exchange *x)
{
    struct input *in = exchange_user(x);

    process_write_end(&in->writer, false);
    buffer_fini(&in->pending);
    free(in);
}

static void on_input_gone(struct exchange *x)
{
    struct input *in = exchange_user(x);

    process_write_end(&in->writer, false);
    exchange_abort(x);
}

static void finish_input(struct exchange *x)
{
    struct input *in = exchange_user(x);
    struct buffer body = BUFFER_INIT(KIB);
    struct json_writer w;

    process_write_end(&in->writer, in->closes);
    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_put_int(&w, "bytes", (int64_t)in->bytes);
    json_put_bool(&w, "stdin_open", !in->closes);
    json_end_object(&w);
    exchange_reply_written(x, 200, &w);
}

static void on_process_closed(struct process_writer *w)
{
    struct exchange *x = w->owner;
    struct error e = ERROR_INIT;

    (void)error_set(&e, ERR_CONFLICT,
                    "the process ended, or its stdin was closed, before it was given all of this");
    exchange_reply_error(x, &e);
}

static void on_process_writable(struct process_writer *w)
{
    struct exchange *x = w->owner;
    struct input *in = exchange_user(x);

    buffer_consume(&in->pending, process_write(w, buffer_bytes(&in->pending), in->pending.size));
    if (in->pending.size > 0)
        return;
    if (in->is_whole)
        finish_input(x);
    else
        exchange_resume(x);
}

static void on_input_data(struct exchange *x, const void *data, size_t size)
{
    struct input *in = exchange_user(x);
    struct error e = ERROR_INIT;

    if (in->writer.process == NULL)
        return; /* replied already */
    in->bytes += size;
    size_t taken = in->pending.size > 0 ? 0 : process_write(&in->writer, data, size);
    if (taken == size)
        return;
    exchange_pause(x);
    if (buffer_append(&in->pending, (const uint8_t *)data + taken, size - taken) == 0)
        return;
    process_write_end(&in->writer, false);
    (void)error_set(&e, ERR_INTERNAL, "out of memory for stdin");
    exchange_reply_error(x, &e);
}

/* A body that broke off leaves stdin open: what came of it was written, and the count says how
 * much is in `usage` at the end. */
static void on_input_end(struct exchange *x, const struct error *failure)
{
    struct input *in = exchange_user(x);

    if (in->writer.process == NULL)
        return;
    in->is_whole = true;
    if (failure != NULL) {
        process_write_end(&in->writer, false);
        exchange_reply_error(x, failure);
    } else if (in->pending.size == 0) {
        finish_input(x);
    }
}

void api_process_stdin(struct exchange *x)
{
    static const char *const query[] = {"close", NULL};
    struct error e = ERROR_INIT;
    bool closes = false;
    struct process *p = process_find(x, query, &e);
    struct input *in = NULL;

    if (p != NULL && exchange_query_bool(x, "close", &closes, &e) == 0 &&
        (in = calloc(1, sizeof(*in))) == NULL)
        (void)error_set(&e, ERR_INTERNAL, "out of memory");
    if (in != NULL && process_write_begin(p, &in->writer, &e) != 0) {
        free(in);
        in = NULL;
    }
    if (in == NULL) {
        exchange_reply_error(x, &e);
        return;
    }
    in->writer.owner = x;
    in->writer.on_writable = on_process_writable;
    in->writer.on_closed = on_process_closed;
    in->pending = (struct buffer)BUFFER_INIT(HTTP_INPUT_BYTES_MAX);
    in->closes = closes;
    exchange_set_user(x, in);
    exchange_on_close(x, on_input_close);
    exchange_on_gone(x, on_input_gone);
    exchange_read_stream(x, UINT64_MAX, on_input_data, on_input_end);
}

/* --- output -------------------------------------------------------------------------------------
 */

static void on_output_close(struct exchange *x)
{
    exec_reply_free(exchange_user(x));
}

static void on_output_gone(struct exchange *x)
{
    exec_reply_free(exchange_user(x));
    exchange_set_user(x, NULL);
    exchange_abort(x);
}

static void on_output_drain(struct exchange *x)
{
    exec_reply_drain(exchange_user(x));
}

/* The last record: how the process ended, or where to go on later. */
static void on_output_end(void *context, const struct exec_result *result)
{
    struct exchange *x = context;
    struct buffer out = BUFFER_INIT(PROCESS_DESCRIPTION_MAX);
    struct json_writer w;

    json_writer_init(&w, &out);
    json_begin_object(&w, NULL);
    if (result == NULL) {
        json_put_text(&w, "type", "running");
        json_put_int(&w, "offset", (int64_t)exec_reply_offset(exchange_user(x)));
    } else if (result->end == EXEC_FAILED) {
        json_put_text(&w, "type", "error");
        json_put_error_member(&w, &result->error, exchange_request_id(x));
    } else {
        json_put_text(&w, "type", "end");
        exec_result_describe(result, &w);
    }
    json_end_object(&w);
    if (w.failed || buffer_append_text(&out, "\n") != 0 ||
        exchange_write(x, buffer_bytes(&out), out.size) != 0)
        exchange_abort(x);
    else
        exchange_end(x);
    buffer_fini(&out);
}

/* "from": an offset that has come already, or absent for all that is kept. */
static int parse_from(struct exchange *x, const struct process *p, uint64_t *ret_from,
                      struct error *e)
{
    const char *text = exchange_query(x, "from");
    char *end = NULL;

    if (text == NULL) {
        *ret_from = p->ring.start;
        return 0;
    }
    unsigned long long from = strtoull(text, &end, 10);
    if (text[0] >= '0' && text[0] <= '9' && *end == '\0' && from <= p->ring.end) {
        *ret_from = from;
        return 0;
    }
    (void)error_set(e, ERR_INVALID_FIELD, "from is \"%.40s\"", text);
    return error_remedy(e, "Give an offset from 0 to %llu, the end of the output so far.",
                        (unsigned long long)p->ring.end);
}

void api_process_output(struct exchange *x)
{
    static const char *const query[] = {"from", "follow", NULL};
    struct exec_reply_spec spec = {
        .exchange = x, .on_drain = on_output_drain, .on_end = on_output_end, .context = x};
    struct exec_reply *reply = NULL;
    struct error e = ERROR_INIT;
    struct process *p = process_find(x, query, &e);

    if (p == NULL || exchange_query_bool(x, "follow", &spec.follows, &e) != 0 ||
        parse_from(x, p, &spec.from, &e) != 0 || exec_reply_start(&spec, p, &reply, &e) != 0) {
        exchange_reply_error(x, &e);
        return;
    }
    exchange_set_user(x, reply);
    exchange_on_close(x, on_output_close);
    exchange_on_gone(x, on_output_gone);
    exec_reply_drain(reply);
}
