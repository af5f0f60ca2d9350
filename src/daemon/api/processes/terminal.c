#include "daemon/api/processes/terminal.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/process/process.h"
#include "daemon/server/websocket.h"
#include "json/json.h"
#include "json/json_write.h"

#define PIECE_BYTES (16 * KIB)
#define QUEUE_HIGH  (2 * HTTP_REPLY_QUEUE_LOW) /* no output is queued beyond it */
#define MESSAGE_MAX (8 * KIB)
/* What comes behind a pause (websocket_pause), and the piece that made us pause. */
#define TYPED_MAX (4 * HTTP_UPGRADED_PIECE)

_Static_assert(QUEUE_HIGH + PIECE_BYTES + 3 * MESSAGE_MAX <= WEBSOCKET_QUEUE_MAX,
               "output never fills the queue alone");
_Static_assert(QUEUE_HIGH > HTTP_REPLY_QUEUE_LOW, "a full queue is followed by on_room");

struct terminal {
    struct websocket *socket;
    struct process_follower follower; /* detached: the end was told */
    struct process_writer writer;     /* detached: the process has ended */
    struct buffer typed;              /* what the guest did not take at once */
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

/* Hands on what there is to hand on, as far as the client takes it. */
static void advance(struct terminal *t)
{
    const struct process *p = t->follower.process;
    uint8_t piece[PIECE_BYTES];
    enum exec_output which;
    size_t size = 1;

    if (p == NULL)
        return;
    uint64_t missed = process_missed(&t->follower);
    if (missed > 0)
        send_missed(t, missed);
    while (websocket_queued(t->socket) < QUEUE_HIGH &&
           (size = process_peek(&t->follower, piece, sizeof(piece), &which)) > 0) {
        websocket_send_bytes(t->socket, piece, size);
        process_take(&t->follower, size);
    }
    if (p->state != PROCESS_ENDED || size > 0)
        return;
    send_end(t, p);
    websocket_close(t->socket, WEBSOCKET_NORMAL, "the command has ended");
    process_unfollow(&t->follower);
}

static void on_news(struct process_follower *f)
{
    advance(f->owner);
}

static void on_room(void *arg)
{
    advance(arg);
}

static void on_bytes(void *arg, const uint8_t *data, size_t size)
{
    struct terminal *t = arg;

    if (t->writer.process == NULL)
        return; /* nobody is there to read it any more */
    size_t taken = t->typed.size > 0 ? 0 : process_write(&t->writer, data, size);
    if (taken == size)
        return;
    websocket_pause(t->socket);
    if (buffer_append(&t->typed, data + taken, size - taken) != 0)
        websocket_close(t->socket, WEBSOCKET_INTERNAL, "out of memory");
}

static void on_writable(struct process_writer *w)
{
    struct terminal *t = w->owner;

    if (t->typed.size == 0)
        return;
    buffer_consume(&t->typed, process_write(w, buffer_bytes(&t->typed), t->typed.size));
    if (t->typed.size == 0)
        websocket_resume(t->socket);
}

static void on_writer_closed(struct process_writer *w)
{
    struct terminal *t = w->owner;

    buffer_fini(&t->typed);
    websocket_resume(t->socket);
}

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

static void on_close(void *arg)
{
    struct terminal *t = arg;

    process_unfollow(&t->follower);
    process_write_end(&t->writer, false);
    buffer_fini(&t->typed);
    free(t);
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
    t->typed = (struct buffer)BUFFER_INIT(TYPED_MAX);
    t->follower.owner = t->writer.owner = t;
    t->follower.on_news = on_news;
    t->writer.on_writable = on_writable;
    t->writer.on_closed = on_writer_closed;
    process_follow(p, &t->follower, 0);
    /* Of a process that has ended there is only something to read. */
    (void)!process_write_begin(p, &t->writer, &no_input);
    send_start(t, p);
    advance(t);
    return 0;
}
