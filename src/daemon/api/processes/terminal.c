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

static void send_message(struct terminal *terminal, struct json_writer *w)
{
    json_end_object(w);
    if (!w->failed)
        websocket_send_text(terminal->socket, (const char *)buffer_bytes(w->out), w->out->size);
    else
        websocket_close(terminal->socket, WEBSOCKET_INTERNAL, "out of memory");
    buffer_fini(w->out);
}

static void send_start(struct terminal *terminal, const struct process *p)
{
    struct buffer out = BUFFER_INIT(MESSAGE_MAX);
    struct json_writer w;

    begin_message(&w, &out, "start");
    json_put_int(&w, "pid", p->pid);
    json_put_text(&w, "command", p->command);
    send_message(terminal, &w);
}

static void send_missed(struct terminal *terminal, uint64_t bytes)
{
    struct buffer out = BUFFER_INIT(MESSAGE_MAX);
    struct json_writer w;

    begin_message(&w, &out, "missed");
    json_put_int(&w, "bytes", (int64_t)bytes);
    send_message(terminal, &w);
}

static void send_error(struct terminal *terminal, const struct error *e)
{
    struct buffer out = BUFFER_INIT(MESSAGE_MAX);
    struct json_writer w;

    begin_message(&w, &out, "error");
    json_put_error_member(&w, e, NULL);
    send_message(terminal, &w);
}

static void send_end(struct terminal *terminal, const struct process *p)
{
    struct buffer out = BUFFER_INIT(MESSAGE_MAX);
    struct json_writer w;

    if (p->result.end == EXEC_FAILED) {
        send_error(terminal, &p->result.error);
        return;
    }
    begin_message(&w, &out, "end");
    exec_result_describe(&p->result, &w);
    send_message(terminal, &w);
}

/* --- what the command writes --------------------------------------------------------------------
 */

static int pull_output(void *from, struct buffer *to, struct error *e)
{
    struct terminal *terminal = from;
    uint8_t *piece = buffer_reserve(to, PIECE_BYTES);
    uint64_t missed = process_missed(&terminal->follower);
    enum exec_output which;

    if (piece == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    if (missed > 0)
        send_missed(terminal, missed);
    size_t size = process_peek(&terminal->follower, piece, PIECE_BYTES, &which);
    buffer_commit(to, size);
    process_take(&terminal->follower, size);
    return size > 0 ? 1 : 0;
}

static size_t write_output(void *to, const uint8_t *data, size_t size)
{
    struct terminal *terminal = to;

    if (websocket_queued(terminal->socket) >= HTTP_REPLY_QUEUE_HIGH)
        return 0;
    websocket_send_bytes(terminal->socket, data, size);
    return size;
}

static void end_output(void *to)
{
    struct terminal *terminal = to;

    send_end(terminal, terminal->follower.process);
    websocket_close(terminal->socket, WEBSOCKET_NORMAL, "the command has ended");
    process_unfollow(&terminal->follower);
}

static void on_news(struct process_follower *follower)
{
    struct terminal *terminal = follower->owner;

    if (follower->process->state == PROCESS_ENDED)
        pump_end(&terminal->output);
    else
        pump_run(&terminal->output);
}

static void on_room(void *arg)
{
    struct terminal *terminal = arg;

    pump_run(&terminal->output);
}

/* --- what is typed ------------------------------------------------------------------------------
 */

static void pause_socket(void *from)
{
    struct terminal *terminal = from;

    websocket_pause(terminal->socket);
}

static void resume_socket(void *from)
{
    struct terminal *terminal = from;

    websocket_resume(terminal->socket);
}

static size_t write_typed(void *to, const uint8_t *data, size_t size)
{
    struct terminal *terminal = to;

    return process_write(&terminal->writer, data, size);
}

static void on_bytes(void *arg, const uint8_t *data, size_t size)
{
    struct terminal *terminal = arg;

    pump_data(&terminal->typed, data, size);
}

static void on_writable(struct process_writer *writer)
{
    struct terminal *terminal = writer->owner;

    pump_run(&terminal->typed);
}

/* Nobody is there to read it any more. */
static void on_writer_closed(struct process_writer *writer)
{
    struct terminal *terminal = writer->owner;

    pump_discard(&terminal->typed);
}

static void on_broken(void *arg, const struct error *why)
{
    struct terminal *terminal = arg;

    websocket_close(terminal->socket, WEBSOCKET_INTERNAL, why->message);
}

/* --- messages -----------------------------------------------------------------------------------
 */

/* A message's fields. */
struct message {
    const char *type;
    int64_t rows, columns;
};

static int take_message(struct terminal *terminal, const cJSON *tree, struct error *e)
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
    if (terminal->follower.process != NULL)
        process_resize(terminal->follower.process, (uint16_t)m.rows, (uint16_t)m.columns);
    return 0;
}

static void on_text(void *arg, const char *text, size_t size)
{
    struct terminal *terminal = arg;
    JSON_AUTO cJSON *tree = NULL;
    struct error e = ERROR_INIT;

    if (json_parse_object(text, size, &tree, &e) != 0 || take_message(terminal, tree, &e) != 0)
        send_error(terminal, &e);
}

/* --- its client ---------------------------------------------------------------------------------
 */

static void on_close(void *arg)
{
    struct terminal *terminal = arg;

    pump_stop(&terminal->output);
    pump_stop(&terminal->typed);
    process_unfollow(&terminal->follower);
    process_write_end(&terminal->writer, false);
    free(terminal);
}

static void begin_pumps(struct terminal *terminal, bool takes_input)
{
    static const struct pump_source from_follower = {.pull = pull_output};
    static const struct pump_sink to_socket = {.write = write_output, .end = end_output};
    static const struct pump_source from_socket = {.pause = pause_socket, .resume = resume_socket};
    static const struct pump_sink to_process = {.write = write_typed};
    const struct pump_spec output = {.source = &from_follower,
                                     .from = terminal,
                                     .sink = &to_socket,
                                     .to = terminal,
                                     .leftover_max = PIECE_BYTES,
                                     .on_broken = on_broken,
                                     .arg = terminal};
    const struct pump_spec typed = {.source = &from_socket,
                                    .from = terminal,
                                    .sink = &to_process,
                                    .to = terminal,
                                    .leftover_max = TYPED_MAX,
                                    .on_broken = on_broken,
                                    .arg = terminal};

    pump_init(&terminal->output, &output);
    if (takes_input)
        pump_init(&terminal->typed, &typed);
}

int terminal_attach(struct exchange *x, struct process *p, struct error *e)
{
    static const struct websocket_calls calls = {
        .on_bytes = on_bytes, .on_text = on_text, .on_room = on_room, .on_close = on_close};
    struct terminal *terminal = calloc(1, sizeof(*terminal));
    struct error no_input = ERROR_INIT;

    if (terminal == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for a terminal");
    if (websocket_accept(x, 0, &calls, terminal, &terminal->socket, e) != 0) {
        free(terminal);
        return -1;
    }
    terminal->follower.owner = terminal->writer.owner = terminal;
    terminal->follower.on_news = on_news;
    terminal->writer.on_writable = on_writable;
    terminal->writer.on_closed = on_writer_closed;
    process_follow(p, &terminal->follower, 0);
    /* Of a process that has ended there is only something to read. */
    begin_pumps(terminal, process_write_begin(p, &terminal->writer, &no_input) == 0);
    send_start(terminal, p);
    on_news(&terminal->follower);
    return 0;
}
