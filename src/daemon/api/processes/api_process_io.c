/*
 * Input and output of a process that runs: POST .../processes/{pid}/stdin takes a raw body of any
 * length, GET .../processes/{pid}/output gives NDJSON records from any offset on. Both keep the
 * pace of the slower side.
 */
#include <stdlib.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api/common/exec_reply.h"
#include "daemon/api/common/pump_ends.h"
#include "daemon/api/processes/handlers.h"
#include "daemon/api/processes/process_find.h"
#include "daemon/process/process.h"
#include "daemon/server/exchange.h"

/* --- stdin --------------------------------------------------------------------------------------
 */

struct input {
    struct exchange *exchange;
    struct process_writer writer;
    struct pump pump;
    uint64_t bytes;
    bool closes;
};

/* What was written stays so, and stdin stays open. */
static void stop_input(struct input *in)
{
    pump_stop(&in->pump);
    process_write_end(&in->writer, false);
}

static void on_input_close(struct exchange *x)
{
    struct input *in = exchange_user(x);

    stop_input(in);
    free(in);
}

static void on_input_gone(struct exchange *x)
{
    stop_input(exchange_user(x));
    exchange_abort(x);
}

static size_t write_input(void *to, const uint8_t *data, size_t size)
{
    struct input *in = to;

    return process_write(&in->writer, data, size);
}

static void finish_input(void *to)
{
    struct input *in = to;
    struct buffer body = BUFFER_INIT(KIB);
    struct json_writer w;

    process_write_end(&in->writer, in->closes);
    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_put_int(&w, "bytes", (int64_t)in->bytes);
    json_put_bool(&w, "stdin_open", !in->closes);
    json_end_object(&w);
    exchange_reply_written(in->exchange, 200, &w);
}

static void on_input_broken(void *arg, const struct error *why)
{
    struct input *in = arg;

    stop_input(in);
    exchange_reply_error(in->exchange, why);
}

static void on_process_closed(struct process_writer *writer)
{
    struct error e = ERROR_INIT;

    (void)error_set(&e, ERR_CONFLICT,
                    "the process ended, or its stdin was closed, before it was given all of this");
    on_input_broken(writer->owner, &e);
}

static void on_process_writable(struct process_writer *writer)
{
    struct input *in = writer->owner;

    pump_run(&in->pump);
}

static void on_input_data(struct exchange *x, const void *data, size_t size)
{
    struct input *in = exchange_user(x);

    in->bytes += size;
    pump_data(&in->pump, data, size);
}

/* A body that broke off leaves stdin open. What came of it was written; how much that was, the
 * process's usage says at its end. */
static void on_input_end(struct exchange *x, const struct error *failure)
{
    struct input *in = exchange_user(x);

    if (failure == NULL)
        pump_end(&in->pump);
    else
        on_input_broken(in, failure);
}

static int start_input(struct exchange *x, struct error *e)
{
    static const char *const query[] = {"close", NULL};
    static const struct pump_sink sink = {.write = write_input, .end = finish_input};
    struct process *p = process_find(x, query, e);
    bool closes = false;

    if (p == NULL || exchange_query_bool(x, "close", &closes, e) != 0)
        return -1;
    struct input *in = calloc(1, sizeof(*in));
    if (in == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    exchange_set_user(x, in);
    exchange_on_close(x, on_input_close);
    exchange_on_gone(x, on_input_gone);
    in->exchange = x;
    in->closes = closes;
    in->writer.owner = in;
    in->writer.on_writable = on_process_writable;
    in->writer.on_closed = on_process_closed;
    if (process_write_begin(p, &in->writer, e) != 0)
        return -1;
    const struct pump_spec spec = {.source = &pump_from_body,
                                   .from = x,
                                   .sink = &sink,
                                   .to = in,
                                   .leftover_max = PUMP_BODY_LEFTOVER_MAX,
                                   .on_broken = on_input_broken,
                                   .arg = in};
    pump_init(&in->pump, &spec);
    exchange_read_stream(x, UINT64_MAX, on_input_data, on_input_end);
    return 0;
}

void api_process_stdin(struct exchange *x)
{
    struct error e = ERROR_INIT;

    if (start_input(x, &e) != 0)
        exchange_reply_error(x, &e);
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
    if (w.failed || buffer_append_text(&out, "\n") != 0)
        exchange_abort(x);
    else
        exec_reply_finish(exchange_user(x), &out);
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
