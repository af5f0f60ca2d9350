/*
 * POST /v1/run: a sandbox for one command, in one call.
 *
 *   CREATING -> PUTTING (each of files) -> RUNNING -> COLLECTING (each of collect) -> REPLYING
 *
 * Any failure before the command has started ends the call with an error reply; what cannot be
 * collected is told file by file. Whatever happens, the client's vanishing included, the sandbox is
 * destroyed: at the latest when the exchange closes.
 *
 * The reply is one JSON object, begun when the sandbox is there and added to in each state. As
 * NDJSON it is the last record; a collected file is then a record of its own in front of it, no
 * element of its "files".
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api/common/api.h"
#include "daemon/api/common/exec_reply.h"
#include "daemon/api/common/pump_ends.h"
#include "daemon/api/exec/handlers.h"
#include "daemon/api/exec/run_request.h"
#include "daemon/link/guest_call.h"
#include "daemon/process/process.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/sandbox/sandbox_describe.h"
#include "daemon/sandbox/sandbox_table.h"
#include "daemon/server/exchange.h"
#include "json/json.h"
#include "json/json_write.h"

#define PUT_PIECE       (64 * KIB) /* of a file, copied at a time */
#define REPLY_BYTES_MAX (EXEC_REPLY_BYTES_MAX + 2 * RUN_COLLECT_BYTES_MAX)

/* A collected byte is held as it is and once more in the reply, as base64. */
#define COLLECTED_HELD(bytes) ((bytes) + ((bytes) + 2) / 3 * 4)

_Static_assert(EXEC_OUTPUT_BYTES_MAX + EXEC_REPLY_BYTES_MAX +
                       COLLECTED_HELD(RUN_COLLECT_BYTES_MAX) <=
                   HTTP_REPLIES_BYTES_MAX,
               "the largest reply is possible where it is the only one");

struct run_call {
    struct exchange *exchange;
    struct run_request request;
    bool is_streamed;
    struct sandbox *starting; /* CREATING */
    char id[SANDBOX_ID_BYTES_MAX];
    struct guest_call *guest; /* PUTTING, COLLECTING: the transfer under way */
    size_t file_index;        /* PUTTING: which, and how much of it was taken */
    size_t file_used;
    struct pump put;
    struct exec_reply *reply;
    const cJSON *collect_item; /* COLLECTING: which */
    struct buffer content;     /* COLLECTING: of that one */
    uint64_t collected_bytes;
    struct buffer files; /* streamed: the records of collected files */
    struct buffer end;   /* the reply's object */
    struct json_writer writer;
};

/* Its own, once it runs; NULL with an error when it has ended. */
static struct sandbox *find_sandbox(const struct run_call *call, struct error *e)
{
    const struct api *api = exchange_context(call->exchange);

    return sandbox_find(api->sandboxes, call->id, e);
}

static void destroy_sandbox(struct run_call *call)
{
    struct error e = ERROR_INIT;
    struct sandbox *s = call->starting;

    /* It may have ended by itself. */
    if (s == NULL && call->id[0] != '\0')
        s = find_sandbox(call, &e);
    call->starting = NULL;
    call->id[0] = '\0';
    if (s != NULL)
        sandbox_destroy(s, SANDBOX_END_DELETED, NULL, NULL);
}

/* Stops whatever is under way; nothing calls back after that. */
static void stop(struct run_call *call)
{
    exec_reply_free(call->reply);
    call->reply = NULL;
    pump_stop(&call->put);
    guest_call_abandon(call->guest);
    call->guest = NULL;
    destroy_sandbox(call);
}

static void on_close(struct exchange *x)
{
    struct run_call *call = exchange_user(x);

    stop(call);
    run_request_fini(&call->request);
    buffer_fini(&call->content);
    buffer_fini(&call->files);
    buffer_fini(&call->end);
    free(call);
}

static void on_gone(struct exchange *x)
{
    stop(exchange_user(x));
    exchange_abort(x);
}

/* --- REPLYING -----------------------------------------------------------------------------------
 */

static void reply_error(struct run_call *call, const struct error *e)
{
    stop(call);
    exchange_reply_error(call->exchange, e);
}

static void on_drain(struct exchange *x)
{
    struct run_call *call = exchange_user(x);

    exec_reply_drain(call->reply);
}

static void reply(struct run_call *call)
{
    struct json_writer *w = &call->writer;
    struct buffer *end = &call->end;
    struct error e = ERROR_INIT;
    bool is_whole;

    if (!call->is_streamed)
        json_end_array(w);
    json_end_object(w);
    is_whole = !w->failed && buffer_append_text(end, "\n") == 0;
    if (is_whole && call->is_streamed)
        is_whole = buffer_append(&call->files, buffer_bytes(end), end->size) == 0;
    if (!is_whole) {
        (void)error_set(&e, ERR_INTERNAL, "out of memory for the reply");
        reply_error(call, &e);
        return;
    }
    destroy_sandbox(call);
    if (call->is_streamed)
        exec_reply_finish(call->reply, &call->files);
    else
        exchange_reply_buffer(call->exchange, 200, "application/json", end);
}

/* --- COLLECTING ---------------------------------------------------------------------------------
 */

/* One file's object: its content, or why it has none. */
static void put_file(struct run_call *call, const struct error *why)
{
    struct json_writer line;
    struct json_writer *w = &call->writer;

    if (call->is_streamed) {
        w = &line;
        json_writer_init(w, &call->files);
    }
    json_begin_object(w, NULL);
    if (call->is_streamed)
        json_put_text(w, "type", "file");
    json_put_text(w, "path", call->collect_item->valuestring);
    if (why != NULL) {
        json_put_error_member(w, why, NULL);
    } else {
        json_put_int(w, "size", (int64_t)call->content.size);
        json_put_base64(w, "content", buffer_bytes(&call->content), call->content.size);
        call->collected_bytes += call->content.size;
    }
    json_end_object(w);
    if (call->is_streamed && (w->failed || buffer_append_text(&call->files, "\n") != 0))
        call->writer.failed = true;
    buffer_fini(&call->content);
}

static void collect_next(struct run_call *call);

/* Gives up the file that is under way, and goes on with the next. */
static void refuse_file(struct run_call *call, const struct error *why)
{
    guest_call_abandon(call->guest);
    call->guest = NULL;
    put_file(call, why);
    call->collect_item = call->collect_item->next;
    collect_next(call);
}

static void refuse_large(struct run_call *call)
{
    struct error e = ERROR_INIT;

    (void)error_set(&e, ERR_TOO_LARGE, "collect: the files are larger than %u MiB together",
                    (unsigned)(RUN_COLLECT_BYTES_MAX / MIB));
    (void)error_remedy(&e, "Create a sandbox and fetch the file with GET .../files.");
    refuse_file(call, &e);
}

static void on_collect_info(void *arg, const struct agent_info *info)
{
    struct run_call *call = arg;

    if (info->size > call->content.size_max)
        refuse_large(call);
}

static void on_collect_data(void *arg, const uint8_t *data, size_t size)
{
    struct run_call *call = arg;
    struct error e = ERROR_INIT;

    if (exchange_hold(call->exchange, COLLECTED_HELD(size), &e) != 0)
        refuse_file(call, &e);
    else if (buffer_append(&call->content, data, size) != 0)
        refuse_large(call);
    else
        guest_call_consume(call->guest, size);
}

static void on_collect_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct run_call *call = arg;

    (void)end;
    call->guest = NULL;
    put_file(call, why);
    call->collect_item = call->collect_item->next;
    collect_next(call);
}

/* Starts the next transfer; those that cannot even start are told at once. */
static void collect_next(struct run_call *call)
{
    static const struct guest_call_events events = {
        .on_info = on_collect_info, .on_data = on_collect_data, .on_end = on_collect_end};
    struct exchange *x = call->exchange;

    for (; call->collect_item != NULL; call->collect_item = call->collect_item->next) {
        struct error e = ERROR_INIT;
        struct sandbox *s = find_sandbox(call, &e);

        call->content = (struct buffer)BUFFER_INIT(RUN_COLLECT_BYTES_MAX - call->collected_bytes);
        if (s != NULL &&
            guest_call_read(exchange_loop(x), sandbox_agent(s), call->collect_item->valuestring,
                            NULL, &events, call, &call->guest, &e) == 0)
            return;
        put_file(call, &e);
    }
    reply(call);
}

/* --- RUNNING ------------------------------------------------------------------------------------
 */

static void on_command_end(void *context, const struct exec_result *result)
{
    struct run_call *call = context;
    struct error e = ERROR_INIT;

    if (result->end == EXEC_FAILED) {
        if (!exchange_started(call->exchange)) {
            reply_error(call, &result->error);
            return;
        }
        /* The stream ends with an error in place of its end. */
        buffer_fini(&call->end);
        json_writer_init(&call->writer, &call->end);
        json_begin_object(&call->writer, NULL);
        json_put_text(&call->writer, "type", "error");
        json_put_error_member(&call->writer, &result->error, exchange_request_id(call->exchange));
        reply(call);
        return;
    }
    exec_result_describe(result, &call->writer);
    if (!call->is_streamed) {
        exec_reply_put_output(call->reply, &call->writer);
        exec_reply_free(call->reply);
        call->reply = NULL;
        if (exchange_hold(call->exchange, call->end.size, &e) != 0) {
            reply_error(call, &e);
            return;
        }
        json_begin_array(&call->writer, "files");
    }
    call->collect_item = call->request.collect != NULL ? call->request.collect->child : NULL;
    collect_next(call);
}

static void run_command(struct run_call *call, struct sandbox *s)
{
    struct exchange *x = call->exchange;
    struct exec_request *r = &call->request.exec;
    const struct exec_reply_spec spec = {.exchange = x,
                                         .on_drain = call->is_streamed ? on_drain : NULL,
                                         .on_end = on_command_end,
                                         .context = call,
                                         .is_owner = true,
                                         .follows = true};
    const struct exec_request_life life = {
        .output_bytes_default = call->is_streamed ? UINT64_MAX : EXEC_OUTPUT_BYTES_DEFAULT,
        .ring_bytes = PROCESS_RING_BYTES_MIN,
        .arrived_ns = exchange_arrival_ns(x)};
    struct process *p = NULL;
    struct error e = ERROR_INIT;

    if (exec_request_complete(r, sandbox_template(s), sandbox_env(s), &e) != 0 ||
        exec_request_start(r, &life, exchange_loop(x), s, &p, &e) != 0 ||
        exec_reply_start(&spec, p, &call->reply, &e) != 0)
        reply_error(call, &e);
}

/* --- PUTTING ------------------------------------------------------------------------------------
 */

/* The file's next bytes. */
static int pull_file(void *from, struct buffer *to, struct error *e)
{
    struct run_call *call = from;
    const struct run_file *file = &call->request.files[call->file_index];
    size_t rest = file->size - call->file_used;
    size_t size = rest < PUT_PIECE ? rest : PUT_PIECE;

    if (size > 0 && buffer_append(to, file->data + call->file_used, size) != 0)
        return error_set(e, ERR_INTERNAL, "out of memory for files[%zu]", call->file_index);
    call->file_used += size;
    return size > 0 ? 1 : 0;
}

static void on_put_writable(void *arg)
{
    struct run_call *call = arg;

    pump_run(&call->put);
}

static void on_put_broken(void *arg, const struct error *why)
{
    reply_error(arg, why);
}

static void feed_file(struct run_call *call)
{
    static const struct pump_source file = {.pull = pull_file};
    const struct pump_spec spec = {.source = &file,
                                   .from = call,
                                   .sink = &pump_to_guest,
                                   .to = call->guest,
                                   .leftover_max = PUT_PIECE,
                                   .on_broken = on_put_broken,
                                   .arg = call};

    call->file_used = 0;
    pump_init(&call->put, &spec);
    pump_end(&call->put);
}

static void put_next(struct run_call *call);

static void on_put_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct run_call *call = arg;
    struct error e;

    (void)end;
    call->guest = NULL;
    pump_stop(&call->put);
    if (why != NULL) {
        e = *why;
        (void)error_wrap(&e, "files[%zu]", call->file_index);
        reply_error(call, &e);
        return;
    }
    call->file_index++;
    put_next(call);
}

static void put_next(struct run_call *call)
{
    static const struct guest_call_events events = {.on_writable = on_put_writable,
                                                    .on_end = on_put_end};
    struct exchange *x = call->exchange;
    struct error e = ERROR_INIT;
    struct sandbox *s = find_sandbox(call, &e);

    if (s == NULL) {
        reply_error(call, &e);
        return;
    }
    if (call->file_index == call->request.file_count) {
        run_command(call, s);
        return;
    }
    const struct run_file *file = &call->request.files[call->file_index];
    if (guest_call_write(exchange_loop(x), sandbox_agent(s), file->path, file->mode, &events, call,
                         &call->guest, &e) != 0)
        reply_error(call, &e);
    else
        feed_file(call);
}

/* --- CREATING -----------------------------------------------------------------------------------
 */

static void on_created(struct sandbox *s, const struct error *e, void *context)
{
    struct run_call *call = context;
    struct json_writer *w = &call->writer;

    call->starting = NULL;
    if (s == NULL) {
        reply_error(call, e);
        return;
    }
    (void)snprintf(call->id, sizeof(call->id), "%s", sandbox_id(s));
    json_begin_object(w, NULL);
    if (call->is_streamed)
        json_put_text(w, "type", "end");
    json_begin_object(w, "sandbox");
    json_put_text(w, "id", call->id);
    json_put_text(w, "pool", sandbox_pool_name(s));
    sandbox_describe_times(s, w);
    json_end_object(w);
    put_next(call);
}

static void on_body(struct exchange *x, const void *data, size_t size)
{
    const struct api *api = exchange_context(x);
    struct run_call *call = exchange_user(x);
    struct error e = ERROR_INIT;

    if (run_request_parse(&call->request, data, size, &e) != 0) {
        reply_error(call, &e);
        return;
    }
    const struct sandbox_params params = sandbox_fields_params(&call->request.sandbox);
    call->starting =
        sandbox_create(api->sandboxes, &params, exchange_arrival_ns(x), on_created, call, &e);
    if (call->starting == NULL)
        reply_error(call, &e);
}

void api_run(struct exchange *x)
{
    static const char *const no_query[] = {NULL};
    struct error e = ERROR_INIT;

    if (exchange_check_query(x, no_query, &e) != 0) {
        exchange_reply_error(x, &e);
        return;
    }
    struct run_call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        (void)error_set(&e, ERR_INTERNAL, "out of memory");
        exchange_reply_error(x, &e);
        return;
    }
    call->exchange = x;
    call->is_streamed = exchange_accepts(x, NDJSON_TYPE);
    call->files = (struct buffer)BUFFER_INIT(2 * RUN_COLLECT_BYTES_MAX);
    call->end = (struct buffer)BUFFER_INIT(REPLY_BYTES_MAX);
    json_writer_init(&call->writer, &call->end);
    exchange_set_user(x, call);
    exchange_on_close(x, on_close);
    exchange_on_gone(x, on_gone);
    exchange_read_whole(x, HTTP_JSON_BODY_MAX, on_body);
}
