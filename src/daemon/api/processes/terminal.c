#include "daemon/api/processes/terminal.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api/common/pump.h"
#include "daemon/process/process.h"
#include "daemon/server/websocket.h"
#include "json/json.h"
#include "json/json_write.h"

#define PIECE_BYTES (16 * KIB)
#define MESSAGE_MAX (8 * KIB)
/* What comes behind a pause (websocket_pause), and the piece that made us pause. */
#define TYPED_MAX (4 * HTTP_UPGRADED_PIECE)

_Static_assert(HTTP_REPLY_QUEUE_HIGH + PIECE_BYTES + 3 * MESSAGE_MAX <= WEBSOCKET_QUEUE_MAX,
               "output never fills the queue alone");

struct terminal {
    struct websocket *socket;
    struct process_follower follower; /* detached: the end was told */
    struct process_writer writer;     /* detached: the process has ended */
    struct pump output;
    struct pump typed;
};

static void begin_message(struct json_writer *w, struct buffer *out, const char *type)
{
    json_writer_init(w, out);
    json_begin_object(w, NULL);
    json_put_text(w, "type", type);
}

static void send_message(struct terminal *t, struct json_writer *w)
{
    json_end_object(w);
    if (!w->failed)
        websocket_send_text(t->socket, (const char *)buffer_bytes(w->out), w->out->size);
    else
        websocket_close(t->socket, WEBSOCKET_INTERNAL, "out of memory");
    buffer_fini(w->out);
}

static void send_start(struct terminal *t, const struct process *p)
{
    struct buffer out = BUFFER_INIT(MESSAGE_MAX);
    struct json_writer w;

    begin_message(&w, &out, "start");
    json_put_int(&w, "pid", p->pid);
    json_put_text(&w, "command", p->command);
    send_message(t, &w);
}

static void send_missed(struct terminal *t, uint64_t bytes)
{
    struct buffer out = BUFFER_INIT(MESSAGE_MAX);
    struct json_writer w;

    begin_message(&w, &out, "missed");
    json_put_int(&w, "bytes", (int64_t)bytes);
    send_message(t, &w);
}

static void send_error(struct terminal *t, const struct error *e)
{
    struct buffer out = BUFFER_INIT(MESSAGE_MAX);
    struct json_writer w;

    begin_message(&w, &out, "error");
    json_put_error_member(&w, e, NULL);
    send_message(t, &w);
}

static void send_end(struct terminal *t, const struct process *p)
{
    struct buffer out = BUFFER_INIT(MESSAGE_MAX);
    struct json_writer w;

    if (p->result.end == EXEC_FAILED) {
        send_error(t, &p->result.error);
        return;
    }
    begin_message(&w, &out, "end");
    exec_result_describe(&p->result, &w);
    send_message(t, &w);
}

/* --- what the command writes --------------------------------------------------------------------
 */

static int pull_output(void *from, struct buffer *to, struct error *e)
{
    struct terminal *t = from;
    uint8_t *piece = buffer_reserve(to, PIECE_BYTES);
    uint64_t missed = process_missed(&t->follower);
    enum exec_output which;

    if (piece == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    if (missed > 0)
        send_missed(t, missed);
    size_t size = process_peek(&t->follower, piece, PIECE_BYTES, &which);
    buffer_commit(to, size);
    process_take(&t->follower, size);
    return size > 0 ? 1 : 0;
}

static size_t write_output(void *to, const uint8_t *data, size_t size)
{
    struct terminal *t = to;

    if (websocket_queued(t->socket) >= HTTP_REPLY_QUEUE_HIGH)
        return 0;
    websocket_send_bytes(t->socket, data, size);
    return size;
}

static void end_output(void *to)
{
    struct terminal *t = to;

    send_end(t, t->follower.process);
    websocket_close(t->socket, WEBSOCKET_NORMAL, "the command has ended");
    process_unfollow(&t->follower);
}

static void on_news(struct process_follower *f)
{
    struct terminal *t = f->owner;

    if (f->process->state == PROCESS_ENDED)
        pump_end(&t->output);
    else
        pump_run(&t->output);
}

static void on_room(void *arg)
{
    struct terminal *t = arg;

    pump_run(&t->output);
}

/* --- what is typed ------------------------------------------------------------------------------
 */

static void pause_socket(void *from)
{
    struct terminal *t = from;

    websocket_pause(t->socket);
}

static void resume_socket(void *from)
{
    struct terminal *t = from;

    websocket_resume(t->socket);
}

static size_t write_typed(void *to, const uint8_t *data, size_t size)
{
    struct terminal *t = to;

    return process_write(&t->writer, data, size);
}

static void on_bytes(void *arg, const uint8_t *data, size_t size)
{
    struct terminal *t = arg;

    pump_data(&t->typed, data, size);
}

static void on_writable(struct process_writer *w)
{
    struct terminal *t = w->owner;

    pump_run(&t->typed);
}

/* Nobody is there to read it any more. */
static void on_writer_closed(struct process_writer *w)
{
    struct terminal *t = w->owner;

    pump_discard(&t->typed);
}

static void on_broken(void *arg, const struct error *why)
{
    struct terminal *t = arg;

    websocket_close(t->socket, WEBSOCKET_INTERNAL, why->message);
}

/* --- messages -----------------------------------------------------------------------------------
 */

/* A message's fields. */
struct message {
    const char *type;
    int64_t rows, columns;
};

static int take_message(struct terminal *t, const cJSON *tree, struct error *e)
{
    static const struct json_field fields[] = {
        {.name = "type",
         .type = JSON_STRING,
         .required = true,
         .min = 1,
         .max = 32,
         .offset = offsetof(struct message, type)},
        {.name = "rows",
         .type = JSON_INTEGER,
         .min = 1,
         .max = TERMINAL_SIDE_MAX,
         .offset = offsetof(struct message, rows)},
        {.name = "cols",
         .type = JSON_INTEGER,
         .min = 1,
         .max = TERMINAL_SIDE_MAX,
         .offset = offsetof(struct message, columns)},
    };
    struct message m = {0};

    if (json_read(tree, "", fields, sizeof(fields) / sizeof(fields[0]), &m, e) != 0)
        return -1;
    if (strcmp(m.type, "resize") != 0 || m.rows == 0 || m.columns == 0) {
        (void)error_set(e, ERR_INVALID_FIELD, "a message of type \"%.32s\"%s", m.type,
                        strcmp(m.type, "resize") == 0 ? " without rows or cols" : "");
        return error_remedy(e, "Known is {\"type\":\"resize\",\"rows\":24,\"cols\":80}; what is "
                               "typed goes as binary messages.");
    }
    if (t->follower.process != NULL)
        process_resize(t->follower.process, (uint16_t)m.rows, (uint16_t)m.columns);
    return 0;
}

static void on_text(void *arg, const char *text, size_t size)
{
    struct terminal *t = arg;
    JSON_AUTO cJSON *tree = NULL;
    struct error e = ERROR_INIT;

    if (json_parse_object(text, size, &tree, &e) != 0 || take_message(t, tree, &e) != 0)
        send_error(t, &e);
}

/* --- its client ---------------------------------------------------------------------------------
 */

static void on_close(void *arg)
{
    struct terminal *t = arg;

    pump_stop(&t->output);
    pump_stop(&t->typed);
    process_unfollow(&t->follower);
    process_write_end(&t->writer, false);
    free(t);
}

static void begin_pumps(struct terminal *t, bool takes_input)
{
    static const struct pump_source from_follower = {.pull = pull_output};
    static const struct pump_sink to_socket = {.write = write_output, .end = end_output};
    static const struct pump_source from_socket = {.pause = pause_socket, .resume = resume_socket};
    static const struct pump_sink to_process = {.write = write_typed};
    const struct pump_spec output = {.source = &from_follower,
                                     .from = t,
                                     .sink = &to_socket,
                                     .to = t,
                                     .leftover_max = PIECE_BYTES,
                                     .on_broken = on_broken,
                                     .arg = t};
    const struct pump_spec typed = {.source = &from_socket,
                                    .from = t,
                                    .sink = &to_process,
                                    .to = t,
                                    .leftover_max = TYPED_MAX,
                                    .on_broken = on_broken,
                                    .arg = t};

    pump_init(&t->output, &output);
    if (takes_input)
        pump_init(&t->typed, &typed);
}

int terminal_attach(struct exchange *x, struct process *p, struct error *e)
{
    static const struct websocket_calls calls = {
        .on_bytes = on_bytes, .on_text = on_text, .on_room = on_room, .on_close = on_close};
    struct terminal *t = calloc(1, sizeof(*t));
    struct error no_input = ERROR_INIT;

    if (t == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for a terminal");
    if (websocket_accept(x, 0, &calls, t, &t->socket, e) != 0) {
        free(t);
        return -1;
    }
    t->follower.owner = t->writer.owner = t;
    t->follower.on_news = on_news;
    t->writer.on_writable = on_writable;
    t->writer.on_closed = on_writer_closed;
    process_follow(p, &t->follower, 0);
    /* Of a process that has ended there is only something to read. */
    begin_pumps(t, process_write_begin(p, &t->writer, &no_input) == 0);
    send_start(t, p);
    on_news(&t->follower);
    return 0;
}
