#include "daemon/api/common/exec_reply.h"

#include <stdlib.h>

#include "base/buffer.h"
#include "daemon/process/output_record.h"
#include "daemon/server/exchange.h"

/* Streamed records go to the exchange while it has less than this queued; one more fits always. */
#define QUEUE_HIGH (256 * KIB)

_Static_assert(QUEUE_HIGH + OUTPUT_RECORD_MAX <= HTTP_REPLY_QUEUE_MAX,
               "a record always fits the exchange's queue");
_Static_assert(QUEUE_HIGH > HTTP_REPLY_QUEUE_LOW, "a full queue is followed by a drain");

struct exec_reply {
    struct exec_reply_spec spec;
    struct process_follower follower;
    struct buffer output[EXEC_OUTPUT_COUNT]; /* gathered */
    struct buffer line;
    bool has_failed;      /* out of memory, or the exchange refused */
    struct error failure; /* told then: of memory, where nothing else is known */
    bool is_told;         /* on_end was called */
};

static void write_line(struct exec_reply *c)
{
    if (exchange_write(c->spec.exchange, buffer_bytes(&c->line), c->line.size) != 0)
        c->has_failed = true;
    buffer_consume(&c->line, c->line.size);
}

static void start_stream(struct exec_reply *c)
{
    const struct process *p = c->follower.process;
    struct json_writer w;

    exchange_start(c->spec.exchange, 200, NDJSON_TYPE, EXCHANGE_LENGTH_UNKNOWN, c->spec.on_drain);
    if (p->pid == 0)
        return; /* it was lost before it was seen to start */
    json_writer_init(&w, &c->line);
    json_begin_object(&w, NULL);
    json_put_text(&w, "type", "start");
    json_put_int(&w, "pid", p->pid);
    json_end_object(&w);
    if (w.failed || buffer_append_text(&c->line, "\n") != 0)
        c->has_failed = true;
    write_line(c);
}

/* Hands output to the exchange as far as it may; true when all there is has gone. */
static bool stream(struct exec_reply *c)
{
    while (!c->has_failed && exchange_queued(c->spec.exchange) < QUEUE_HIGH) {
        int result = output_record_append(&c->line, &c->follower);

        if (result == 0)
            return true;
        if (result < 0)
            c->has_failed = true;
        else
            write_line(c);
    }
    return c->has_failed;
}

static void gather(struct exec_reply *c)
{
    uint8_t data[OUTPUT_PIECE_BYTES];
    enum exec_output which = EXEC_STDOUT;
    size_t size;

    if (process_missed(&c->follower) > 0)
        c->has_failed = true;
    while (!c->has_failed && (size = process_peek(&c->follower, data, sizeof(data), &which)) > 0) {
        if (exchange_hold(c->spec.exchange, size, &c->failure) != 0 ||
            buffer_append(&c->output[which], data, size) != 0)
            c->has_failed = true;
        process_take(&c->follower, size);
    }
}

/* The owner may free the reply in its on_end, so that gets a copy. */
static void tell(struct exec_reply *c, const struct exec_result *result)
{
    struct process *p = c->follower.process;
    struct exec_result copy;

    c->is_told = true;
    if (c->has_failed) {
        copy = (struct exec_result){.end = EXEC_FAILED, .error = c->failure};
        /* With its output lost there is no point in letting it go on. */
        if (c->spec.is_owner)
            process_kill_tree(p);
    } else if (result != NULL) {
        copy = *result;
    }
    process_get(p); /* parts of the result are its own */
    process_unfollow(&c->follower);
    c->spec.on_end(c->spec.context, result != NULL || c->has_failed ? &copy : NULL);
    process_put(p);
}

static void advance(struct exec_reply *c)
{
    const struct process *p = c->follower.process;
    bool never_started = p->state == PROCESS_ENDED && p->result.end == EXEC_FAILED && p->pid == 0;

    if (p->state == PROCESS_STARTING)
        return;
    if (c->spec.on_drain == NULL) {
        gather(c);
    } else if (!never_started) {
        if (!exchange_started(c->spec.exchange))
            start_stream(c);
        if (!stream(c))
            return;
    }
    if (c->has_failed || p->state == PROCESS_ENDED)
        tell(c, &p->result);
    else if (!c->spec.follows)
        tell(c, NULL);
}

static void on_news(struct process_follower *f)
{
    advance(f->owner);
}

int exec_reply_start(const struct exec_reply_spec *spec, struct process *p,
                     struct exec_reply **ret_reply, struct error *e)
{
    struct exec_reply *c = calloc(1, sizeof(*c));

    if (c == NULL) {
        if (spec->is_owner)
            process_kill_tree(p);
        return error_set(e, ERR_INTERNAL, "out of memory for a reply");
    }
    c->spec = *spec;
    (void)error_set(&c->failure, ERR_INTERNAL, "the command's output could not be kept");
    (void)error_remedy(&c->failure, "Try again with a smaller max_output_bytes.");
    c->follower.on_news = on_news;
    c->follower.owner = c;
    for (unsigned i = 0; i < EXEC_OUTPUT_COUNT; i++)
        c->output[i] = (struct buffer)BUFFER_INIT(EXEC_OUTPUT_BYTES_MAX);
    c->line = (struct buffer)BUFFER_INIT(OUTPUT_RECORD_MAX);
    process_follow(p, &c->follower, spec->from);
    *ret_reply = c;
    return 0;
}

void exec_reply_drain(struct exec_reply *c)
{
    if (c != NULL && !c->is_told)
        advance(c);
}

uint64_t exec_reply_offset(const struct exec_reply *c)
{
    return c->follower.offset;
}

void exec_reply_put_output(const struct exec_reply *c, struct json_writer *w)
{
    json_put_bytes(w, "stdout", buffer_bytes(&c->output[EXEC_STDOUT]), c->output[EXEC_STDOUT].size);
    json_put_bytes(w, "stderr", buffer_bytes(&c->output[EXEC_STDERR]), c->output[EXEC_STDERR].size);
}

void exec_reply_free(struct exec_reply *c)
{
    if (c == NULL)
        return;
    if (c->spec.is_owner && c->follower.process != NULL)
        process_kill_tree(c->follower.process);
    process_unfollow(&c->follower);
    for (unsigned i = 0; i < EXEC_OUTPUT_COUNT; i++)
        buffer_fini(&c->output[i]);
    buffer_fini(&c->line);
    free(c);
}
