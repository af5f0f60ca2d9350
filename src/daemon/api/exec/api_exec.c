/*
 * POST /v1/sandboxes/{id}/exec: runs one command in a sandbox.
 *
 * In the foreground the command belongs to the request: the reply comes at its end (or while it
 * runs, as NDJSON), and it is killed when the client goes. In the background it goes on by itself:
 * the reply comes when it has started, or follows it as NDJSON for as long as the client stays.
 */
#include <stdlib.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api/common/api.h"
#include "daemon/api/common/exec_reply.h"
#include "daemon/api/common/exec_request.h"
#include "daemon/api/exec/handlers.h"
#include "daemon/process/exec_changes.h"
#include "daemon/process/process.h"
#include "daemon/process/session.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/server/exchange.h"
#include "json/json.h"
#include "json/json_write.h"

/* Everything of one call; lives until the exchange closes. */
struct exec_call {
    cJSON *tree; /* the request's body */
    struct exec_request request;
    bool is_background;
    bool keeps_stdin;
    int64_t keep_output_bytes; /* 0: absent */
    const char *session;       /* NULL: absent */
    bool wants_changes;
    struct exec_changes *changes;
    struct exec_request_life life;
    struct exec_reply *reply;
    struct process *process;         /* whose parts `result` may have */
    struct exec_result result;       /* while the changes are asked for */
    struct process_follower started; /* in the background, until it has */
};

static const struct json_field fields[] = {
    EXEC_FIELD_ROWS(offsetof(struct exec_call, request.fields)),
    EXEC_FIELD_ENV(offsetof(struct exec_call, request.fields)),
    {.name = "background", .type = JSON_BOOL, .offset = offsetof(struct exec_call, is_background)},
    {.name = "changes", .type = JSON_BOOL, .offset = offsetof(struct exec_call, wants_changes)},
    {.name = "stdin_open", .type = JSON_BOOL, .offset = offsetof(struct exec_call, keeps_stdin)},
    {.name = "keep_output_bytes",
     .type = JSON_INTEGER,
     .min = 1,
     .max = PROCESS_RING_BYTES_MAX,
     .offset = offsetof(struct exec_call, keep_output_bytes)},
    {.name = "session",
     .type = JSON_STRING,
     .max = 4096,
     .offset = offsetof(struct exec_call, session)},
};

static void on_close(struct exchange *x)
{
    struct exec_call *call = exchange_user(x);

    exec_reply_free(call->reply);
    exec_changes_free(call->changes);
    process_unfollow(&call->started);
    if (call->process != NULL)
        process_put(call->process);
    exec_request_fini(&call->request);
    cJSON_Delete(call->tree);
    free(call);
}

/* The client has vanished: a command in the foreground goes with it. */
static void on_gone(struct exchange *x)
{
    struct exec_call *call = exchange_user(x);

    exec_reply_free(call->reply);
    call->reply = NULL;
    exec_changes_free(call->changes);
    call->changes = NULL;
    process_unfollow(&call->started);
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
        exec_result_describe(result, &w);
        if (!is_streamed)
            exec_reply_put_output(call->reply, &w);
        if (call->changes != NULL)
            exec_changes_put(call->changes, &w);
    }
    json_end_object(&w);
    if (w.failed || buffer_append_text(out, "\n") != 0)
        buffer_fini(out);
}

static void finish(struct exchange *x, const struct exec_result *result)
{
    struct exec_call *call = exchange_user(x);
    struct buffer out = BUFFER_INIT(EXEC_REPLY_BYTES_MAX + EXEC_CHANGES_BYTES_MAX);
    struct error e = ERROR_INIT;

    if (result->end == EXEC_FAILED && !exchange_started(x)) {
        exchange_reply_error(x, &result->error);
        return;
    }
    put_end(x, result, &out);
    if (out.size == 0) {
        (void)error_set(&e, ERR_INTERNAL, "out of memory for the reply");
        exchange_reply_error(x, &e);
    } else if (exchange_hold(x, out.size, &e) != 0) {
        exchange_reply_error(x, &e);
    } else if (!exchange_started(x)) {
        exchange_reply_buffer(x, 200, "application/json", &out);
    } else {
        exec_reply_finish(call->reply, &out);
    }
    buffer_fini(&out);
}

static void on_command_end(void *context, const struct exec_result *result)
{
    struct exchange *x = context;
    struct exec_call *call = exchange_user(x);

    if (call->changes != NULL && result->end != EXEC_FAILED && exec_changes_ask(call->changes))
        call->result = *result; /* and the reply waits for them */
    else
        finish(x, result);
}

static void on_changes_told(void *arg)
{
    struct exchange *x = arg;
    struct exec_call *call = exchange_user(x);
    struct error e = ERROR_INIT;

    if (exchange_hold(x, exec_changes_bytes(call->changes), &e) != 0)
        exchange_reply_error(x, &e);
    else
        finish(x, &call->result);
}

/* The reply to a command in the background: that it runs. */
static void on_started(struct process_follower *follower)
{
    struct exchange *x = follower->owner;
    struct process *p = follower->process;
    struct buffer out = BUFFER_INIT(PROCESS_DESCRIPTION_MAX);
    struct error e = ERROR_INIT;
    struct json_writer w;

    if (p->state == PROCESS_STARTING)
        return;
    if (p->pid == 0) {
        process_start_error(p, &e);
        exchange_reply_error(x, &e);
    } else {
        json_writer_init(&w, &out);
        json_begin_object(&w, NULL);
        process_describe(p, &w);
        json_end_object(&w);
        exchange_reply_written(x, 201, &w);
    }
    process_unfollow(follower);
}

/* Which reply the command gets; `p` has just been started. */
static int begin_reply(struct exchange *x, struct exec_call *call, struct process *p,
                       struct error *e)
{
    bool is_streamed = exchange_accepts(x, NDJSON_TYPE);
    const struct exec_reply_spec spec = {.exchange = x,
                                         .on_drain = is_streamed ? on_drain : NULL,
                                         .on_end = on_command_end,
                                         .context = x,
                                         .is_owner = !call->is_background,
                                         .follows = true};

    process_get(p);
    call->process = p;
    if (is_streamed || !call->is_background)
        return exec_reply_start(&spec, p, &call->reply, e);
    call->started.on_news = on_started;
    call->started.owner = x;
    process_follow(p, &call->started, 0);
    return 0;
}

/* What a session's command cannot have. */
static int check_session(const struct exec_call *call, bool exists, struct error *e)
{
    const struct exec_fields *f = &call->request.fields;
    const char *field = call->is_background                                ? "background"
                        : call->keeps_stdin                                ? "stdin_open"
                        : f->argv != NULL                                  ? "argv"
                        : f->stdin_text != NULL || f->stdin_base64 != NULL ? "stdin"
                        : exists && f->cwd != NULL                         ? "cwd"
                        : exists && f->env != NULL                         ? "env"
                        : exists && f->user != NULL                        ? "user"
                        : exists && f->umask != NULL                       ? "umask"
                        : exists && f->limits != NULL                      ? "limits"
                                                                           : NULL;

    if (session_check_name(call->session, e) != 0)
        return -1;
    if (field == NULL)
        return 0;
    (void)error_set(e, ERR_INVALID_FIELD, "%s does not go with session \"%s\"", field,
                    call->session);
    return error_remedy(e, "%s",
                        exists && (field[0] == 'c' || field[0] == 'e')
                            ? "The session has begun: use cd and export in \"shell\"."
                            : "Give \"shell\"; what the shell starts with (cwd, env, user, "
                              "umask, limits) goes with the session's first command.");
}

static int start_process(struct exchange *x, struct exec_call *call,
                         const struct exec_request_life *life, struct sandbox *s,
                         struct process **ret_process, struct error *e)
{
    if (exec_request_start(&call->request, life, exchange_loop(x), s, ret_process, e) == 0)
        return 0;
    exchange_set_undone(x);
    return -1;
}

/* A command in a session, which is made where there is none of that name. */
static int start_in_session(struct exchange *x, struct exec_call *call, struct sandbox *s,
                            struct error *e)
{
    struct exec_request_life *life = &call->life;
    struct process_table *table = sandbox_processes(s);
    struct session *session = session_find(table, call->session);
    int64_t limit = call->request.fields.max_output_bytes;
    const struct session_command command = {
        .text = call->request.fields.shell,
        .timeout_ms = (uint64_t)call->request.fields.timeout_ms,
        .output_bytes_max = limit > 0 ? (uint64_t)limit : life->output_bytes_default,
        .arrived_ns = life->arrived_ns};
    struct process *p = NULL;

    if (check_session(call, session != NULL, e) != 0)
        return -1;
    life->is_session = life->is_background = life->keeps_stdin = true;
    life->output_bytes_default = UINT64_MAX;
    if (session == NULL &&
        (start_process(x, call, life, s, &p, e) != 0 ||
         session_new(exchange_loop(x), table, call->session, p, &session, e) != 0))
        return -1;
    if (session_run(session, &command, &p, e) != 0)
        return -1;
    return begin_reply(x, call, p, e);
}

static int run(struct exchange *x, struct exec_call *call, struct error *e)
{
    struct sandbox *s = api_sandbox(x, e);
    struct process *p = NULL;

    if (s == NULL)
        return -1;
    if (call->session != NULL)
        return start_in_session(x, call, s, e);
    if (start_process(x, call, &call->life, s, &p, e) != 0)
        return -1;
    return begin_reply(x, call, p, e);
}

/* The state of the files is remembered: now the command may change them. */
static void on_changes_ready(void *arg, const struct error *why)
{
    struct exchange *x = arg;
    struct error e = ERROR_INIT;

    if (why != NULL) {
        exchange_set_undone(x);
        exchange_reply_error(x, why);
    } else if (run(x, exchange_user(x), &e) != 0) {
        exchange_reply_error(x, &e);
    }
}

static int start_with_changes(struct exchange *x, struct exec_call *call, struct sandbox *s,
                              struct error *e)
{
    static const struct exec_changes_calls calls = {.on_ready = on_changes_ready,
                                                    .on_told = on_changes_told};

    if (call->is_background) {
        (void)error_set(e, ERR_INVALID_FIELD, "changes does not go with background");
        return error_remedy(e, "Watch the files with GET .../files/watch.");
    }
    return exec_changes_new(exchange_loop(x), sandbox_agent(s), &calls, x, &call->changes, e);
}

static int check_call(struct exec_call *call, struct error *e)
{
    if (exec_request_check(&call->request, e) != 0)
        return -1;
    if (call->keep_output_bytes == 0 || call->is_background)
        return 0;
    (void)error_set(e, ERR_INVALID_FIELD, "keep_output_bytes is given without background");
    return error_remedy(e, "Output is kept of commands in the background (\"background\": true).");
}

static int start(struct exchange *x, struct exec_call *call, const void *data, size_t size,
                 struct error *e)
{
    struct exec_request_life *life = &call->life;

    if (json_parse_object(data, size, &call->tree, e) != 0 ||
        json_read(call->tree, "", fields, sizeof(fields) / sizeof(fields[0]), call, e) != 0 ||
        check_call(call, e) != 0)
        return -1;
    struct sandbox *s = api_sandbox(x, e);
    if (s == NULL ||
        exec_request_complete(&call->request, sandbox_template(s), sandbox_env(s), e) != 0)
        return -1;
    bool is_buffered = !call->is_background && !exchange_accepts(x, NDJSON_TYPE);
    *life = (struct exec_request_life){.is_background = call->is_background,
                                       .keeps_stdin = call->keeps_stdin,
                                       .output_bytes_default =
                                           is_buffered ? EXEC_OUTPUT_BYTES_DEFAULT : UINT64_MAX,
                                       .ring_bytes = PROCESS_RING_BYTES_MIN,
                                       .arrived_ns = exchange_arrival_ns(x)};
    if (call->keep_output_bytes > (int64_t)life->ring_bytes)
        life->ring_bytes = (uint64_t)call->keep_output_bytes;
    return call->wants_changes ? start_with_changes(x, call, s, e) : run(x, call, e);
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

    if (exchange_check_query(x, no_query, &e) != 0 || api_sandbox(x, &e) == NULL) {
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
