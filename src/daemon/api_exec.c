/* POST /v1/sandboxes/{id}/exec: runs one command in a sandbox. */
#include <stdlib.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api.h"
#include "daemon/exchange.h"
#include "daemon/exec_reply.h"
#include "daemon/exec_request.h"
#include "daemon/sandbox.h"
#include "json/json.h"
#include "json/json_write.h"

/* Everything of one call; lives until the exchange closes. */
struct exec_call {
    cJSON *tree; /* the request's body */
    struct exec_request request;
    struct exec_reply *reply;
};

static const struct json_field fields[] = {
    EXEC_FIELD_ROWS(offsetof(struct exec_call, request.fields)),
    EXEC_FIELD_ENV(offsetof(struct exec_call, request.fields)),
};

static void on_close(struct exchange *x)
{
    struct exec_call *call = exchange_user(x);

    exec_reply_free(call->reply);
    exec_request_fini(&call->request);
    cJSON_Delete(call->tree);
    free(call);
}

/* The client has vanished: the command goes with it. */
static void on_gone(struct exchange *x)
{
    struct exec_call *call = exchange_user(x);

    exec_reply_free(call->reply);
    call->reply = NULL;
    exchange_abort(x);
}

static void on_drain(struct exchange *x)
{
    struct exec_call *call = exchange_user(x);

    exec_reply_drain(call->reply);
}

/* The last record of a stream, or the whole reply; both are one JSON object. */
static void put_end(struct exchange *x, const struct exec_result *result, struct buffer *out)
{
    struct exec_call *call = exchange_user(x);
    bool is_streamed = exchange_started(x);
    struct json_writer w;

    json_writer_init(&w, out);
    json_begin_object(&w, NULL);
    if (is_streamed && result->end == EXEC_FAILED) {
        json_put_text(&w, "type", "error");
        json_put_error_member(&w, &result->error, exchange_request_id(x));
    } else {
        if (is_streamed)
            json_put_text(&w, "type", "end");
        exec_reply_put_result(call->reply, result, &w);
    }
    json_end_object(&w);
    if (w.failed || buffer_append_text(out, "\n") != 0)
        buffer_fini(out);
}

static void on_command_end(void *context, const struct exec_result *result)
{
    struct exchange *x = context;
    struct buffer out = BUFFER_INIT(EXEC_REPLY_BYTES_MAX);
    struct error e = ERROR_INIT;

    if (result->end == EXEC_FAILED && !exchange_started(x)) {
        exchange_reply_error(x, &result->error);
        return;
    }
    put_end(x, result, &out);
    if (out.size == 0) {
        (void)error_set(&e, ERR_INTERNAL, "out of memory for the reply");
        exchange_reply_error(x, &e);
    } else if (!exchange_started(x)) {
        exchange_reply_buffer(x, 200, "application/json", &out);
    } else if (exchange_write(x, buffer_bytes(&out), out.size) != 0) {
        exchange_abort(x);
    } else {
        exchange_end(x);
    }
    buffer_fini(&out);
}

static int start(struct exchange *x, struct exec_call *call, const void *data, size_t size,
                 struct error *e)
{
    struct exec_reply_spec spec = {.exchange = x,
                                   .request = &call->request,
                                   .on_drain = exchange_accepts(x, NDJSON_TYPE) ? on_drain : NULL,
                                   .on_end = on_command_end,
                                   .context = x};

    if (json_parse_object(data, size, &call->tree, e) != 0 ||
        json_read(call->tree, "", fields, sizeof(fields) / sizeof(fields[0]), call, e) != 0 ||
        exec_request_check(&call->request, e) != 0)
        return -1;
    struct sandbox *s = sandbox_find(exchange_context(x), exchange_param(x, "id"), e);
    if (s == NULL ||
        exec_request_complete(&call->request, sandbox_template(s), sandbox_env(s), e) != 0)
        return -1;
    return exec_reply_start(&spec, sandbox_agent(s), &call->reply, e);
}

static void on_body(struct exchange *x, const void *data, size_t size)
{
    struct error e = ERROR_INIT;

    if (start(x, exchange_user(x), data, size, &e) != 0)
        exchange_reply_error(x, &e);
}

void api_exec(struct exchange *x)
{
    static const char *const no_query[] = {NULL};
    struct exec_call *call = NULL;
    struct error e = ERROR_INIT;

    if (exchange_check_query(x, no_query, &e) != 0 ||
        sandbox_find(exchange_context(x), exchange_param(x, "id"), &e) == NULL) {
        exchange_reply_error(x, &e);
        return;
    }
    call = calloc(1, sizeof(*call));
    if (call == NULL) {
        (void)error_set(&e, ERR_INTERNAL, "out of memory");
        exchange_reply_error(x, &e);
        return;
    }
    exchange_set_user(x, call);
    exchange_on_close(x, on_close);
    exchange_on_gone(x, on_gone);
    exchange_read_whole(x, HTTP_JSON_BODY_MAX, on_body);
}
