#include "daemon/exec_reply.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "daemon/exchange.h"
#include "daemon/output_record.h"

/* Streamed records go to the exchange while it has less than this queued; one more fits always. */
#define QUEUE_HIGH  (256 * KIB)
#define PIECE_BYTES (32 * KIB)

_Static_assert(QUEUE_HIGH + OUTPUT_RECORD_MAX(PIECE_BYTES) <= HTTP_REPLY_QUEUE_MAX,
               "a record always fits the exchange's queue");
_Static_assert(QUEUE_HIGH > HTTP_REPLY_QUEUE_LOW, "a full queue is followed by a drain");

struct exec_reply {
    struct exec_reply_spec spec;
    struct exec *exec; /* NULL when over */
    size_t stdin_used;
    /* Buffered: the output. Streamed: what the exchange has not taken, at most a window each. */
    struct buffer output[EXEC_OUTPUT_COUNT];
    struct output_tail tails[EXEC_OUTPUT_COUNT];
    struct buffer line;
    bool is_streamed;
    bool has_failed; /* out of memory, or the exchange refused */
    bool is_ended;   /* `result` is there, and waits for the output to be handed out */
    bool is_told;    /* on_end was called */
    struct exec_result result;
};

static const char *const output_names[EXEC_OUTPUT_COUNT] = {
    [EXEC_STDOUT] = "stdout", [EXEC_STDERR] = "stderr"};

static void write_line(struct exec_reply *c)
{
    if (exchange_write(c->spec.exchange, buffer_bytes(&c->line), c->line.size) != 0)
        c->has_failed = true;
    buffer_consume(&c->line, c->line.size);
}

/* Starts the reply's stream; `pid` 0 where the command was never seen to start. */
static void start_reply(struct exec_reply *c, uint32_t pid)
{
    struct json_writer w;

    exchange_start(c->spec.exchange, 200, NDJSON_TYPE, EXCHANGE_LENGTH_UNKNOWN, c->spec.on_drain);
    if (pid == 0)
        return;
    json_writer_init(&w, &c->line);
    json_begin_object(&w, NULL);
    json_put_text(&w, "type", "start");
    json_put_int(&w, "pid", pid);
    json_end_object(&w);
    if (w.failed || buffer_append_text(&c->line, "\n") != 0)
        c->has_failed = true;
    write_line(c);
}

static void put_record(struct exec_reply *c, enum exec_output which, const uint8_t *data,
                       size_t size, bool is_last)
{
    if (output_record_append(&c->line, output_names[which], &c->tails[which], data, size,
                             is_last) != 0)
        c->has_failed = true;
    else if (c->line.size > 0)
        write_line(c);
}

/* Hands held output to the exchange as far as it may; true when nothing is held any more. */
static bool pump(struct exec_reply *c)
{
    for (unsigned i = 0; i < EXEC_OUTPUT_COUNT; i++) {
        struct buffer *held = &c->output[i];

        while (held->size > 0) {
            size_t size = held->size < PIECE_BYTES ? held->size : PIECE_BYTES;

            if (exchange_queued(c->spec.exchange) >= QUEUE_HIGH)
                return false;
            put_record(c, i, buffer_bytes(held), size, false);
            buffer_consume(held, size);
            if (c->exec != NULL)
                exec_consume(c->exec, i, size);
        }
    }
    return true;
}

/* Tells the owner of the end once all output is out. */
static void tell_end(struct exec_reply *c)
{
    if (!c->is_ended || c->is_told)
        return;
    if (c->is_streamed) {
        if (!c->has_failed && !pump(c))
            return;
        if (c->result.end != EXEC_FAILED && !exchange_started(c->spec.exchange))
            start_reply(c, 0);
        for (unsigned i = 0; i < EXEC_OUTPUT_COUNT; i++)
            put_record(c, i, NULL, 0, true);
    }
    if (c->has_failed) {
        c->result.end = EXEC_FAILED;
        (void)error_set(&c->result.error, ERR_INTERNAL, "the command's output could not be kept");
        (void)error_remedy(&c->result.error, "Try again with a smaller max_output_bytes.");
    }
    c->is_told = true;
    /* The owner may free the command in this call, so it gets a copy. */
    struct exec_result result = c->result;

    c->spec.on_end(c->spec.context, &result);
}

/* With its output lost there is no point in letting the command go on. */
static void end_failed(struct exec_reply *c)
{
    if (!c->has_failed || c->exec == NULL)
        return;
    exec_abandon(c->exec);
    c->exec = NULL;
    c->is_ended = true;
    tell_end(c);
}

static void on_start(void *arg, uint32_t pid)
{
    struct exec_reply *c = arg;

    if (c->is_streamed)
        start_reply(c, pid);
    end_failed(c);
}

static void on_output(void *arg, enum exec_output which, const uint8_t *data, size_t size)
{
    struct exec_reply *c = arg;

    if (buffer_append(&c->output[which], data, size) != 0)
        c->has_failed = true;
    else if (c->is_streamed)
        (void)pump(c);
    else
        exec_consume(c->exec, which, size);
    end_failed(c);
}

static void feed_stdin(void *arg)
{
    struct exec_reply *c = arg;
    const struct exec_request *r = c->spec.request;

    c->stdin_used +=
        exec_send(c->exec, r->stdin_data + c->stdin_used, r->stdin_size - c->stdin_used);
    if (c->stdin_used == r->stdin_size)
        exec_finish_stdin(c->exec);
}

static void on_end(void *arg, const struct exec_result *result)
{
    struct exec_reply *c = arg;

    c->exec = NULL;
    c->result = *result;
    c->is_ended = true;
    tell_end(c);
}

int exec_reply_start(const struct exec_reply_spec *spec, struct agent_link *link,
                     struct exec_reply **ret_reply, struct error *e)
{
    static const struct exec_calls calls = {.on_start = on_start,
                                            .on_output = on_output,
                                            .on_stdin_writable = feed_stdin,
                                            .on_end = on_end};
    bool is_streamed = spec->on_drain != NULL;
    struct exec_spec exec_spec;
    struct exec_reply *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for a command");
    exec_request_spec(spec->request, exchange_arrival_ns(spec->exchange),
                      is_streamed ? UINT64_MAX : EXEC_OUTPUT_BYTES_DEFAULT, &exec_spec);
    if (exec_start(exchange_loop(spec->exchange), link, &exec_spec, &calls, c, &c->exec, e) != 0) {
        free(c);
        return -1;
    }
    c->spec = *spec;
    c->is_streamed = is_streamed;
    for (unsigned i = 0; i < EXEC_OUTPUT_COUNT; i++)
        c->output[i] =
            (struct buffer)BUFFER_INIT(is_streamed ? CHANNEL_WINDOW_BYTES : EXEC_OUTPUT_BYTES_MAX);
    c->line = (struct buffer)BUFFER_INIT(OUTPUT_RECORD_MAX(PIECE_BYTES));
    if (exec_spec.has_stdin)
        feed_stdin(c);
    *ret_reply = c;
    return 0;
}

void exec_reply_drain(struct exec_reply *c)
{
    if (c == NULL)
        return;
    (void)pump(c);
    if (c->is_ended)
        tell_end(c);
    else
        end_failed(c);
}

static void put_usage(const struct exec_result *r, struct json_writer *w)
{
    json_begin_object(w, "usage");
    json_put_ms(w, "wall_ms", r->wall_ns);
    if (r->has_guest_usage) {
        json_put_ms(w, "user_ms", r->user_us * NS_PER_US);
        json_put_ms(w, "system_ms", r->system_us * NS_PER_US);
        json_put_int(w, "max_rss_bytes", (int64_t)r->max_rss_bytes);
    } else {
        json_put_null(w, "user_ms");
        json_put_null(w, "system_ms");
        json_put_null(w, "max_rss_bytes");
    }
    json_end_object(w);
}

void exec_reply_put_result(const struct exec_reply *c, const struct exec_result *r,
                           struct json_writer *w)
{
    json_put_text(w, "end", exec_end_name(r->end));
    if (r->end == EXEC_EXITED)
        json_put_int(w, "exit_code", r->exit_code);
    else
        json_put_null(w, "exit_code");
    if (r->end == EXEC_SIGNALED)
        json_put_int(w, "signal", r->signal);
    else
        json_put_null(w, "signal");
    for (unsigned i = 0; !c->is_streamed && i < EXEC_OUTPUT_COUNT; i++)
        json_put_bytes(w, output_names[i], buffer_bytes(&c->output[i]), c->output[i].size);
    json_put_bool(w, "truncated", r->truncated);
    put_usage(r, w);
    json_begin_object(w, "times");
    if (r->first_output_ns != 0)
        json_put_ms(w, "first_output_ms", r->first_output_ns);
    else
        json_put_null(w, "first_output_ms");
    json_end_object(w);
}

void exec_reply_free(struct exec_reply *c)
{
    if (c == NULL)
        return;
    exec_abandon(c->exec);
    for (unsigned i = 0; i < EXEC_OUTPUT_COUNT; i++)
        buffer_fini(&c->output[i]);
    buffer_fini(&c->line);
    free(c);
}
