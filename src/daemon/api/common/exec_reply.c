#include "daemon/api/common/exec_reply.h"

#include <stdlib.h>

#include "base/buffer.h"
#include "daemon/api/common/pump_ends.h"
#include "daemon/process/output_record.h"
#include "daemon/server/exchange.h"

_Static_assert(OUTPUT_RECORD_MAX <= PUMP_REPLY_PIECE_MAX, "a record is never cut in two");

struct exec_reply {
    struct exec_reply_spec spec;
    struct process_follower follower;
    struct buffer output[EXEC_OUTPUT_COUNT]; /* gathered */
    struct pump pump;     /* streamed: of the output's records, then of the last */
    struct buffer last;   /* exec_reply_finish */
    bool has_failed;      /* out of memory, or the exchange refused */
    struct error failure; /* told then: of memory, where nothing else is known */
    bool is_told;         /* on_end was called */
};

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
static void tell(struct exec_reply *c)
{
    struct process *p = c->follower.process;
    bool is_over = c->has_failed || p->state == PROCESS_ENDED;
    struct exec_result copy;

    c->is_told = true;
    if (c->has_failed) {
        copy = (struct exec_result){.end = EXEC_FAILED, .error = c->failure};
        /* With its output lost there is no point in letting it go on. */
        if (c->spec.is_owner)
            process_kill_tree(p);
    } else if (is_over) {
        copy = p->result;
    }
    process_get(p); /* parts of the result are its own */
    process_unfollow(&c->follower);
    c->spec.on_end(c->spec.context, is_over ? &copy : NULL);
    process_put(p);
}

/* --- a stream of records ------------------------------------------------------------------------
 */

static int pull_record(void *from, struct buffer *to, struct error *e)
{
    struct exec_reply *c = from;
    int result = output_record_append(to, &c->follower);

    return result >= 0 ? result : error_set(e, ERR_INTERNAL, "out of memory for a record");
}

static size_t write_record(void *to, const uint8_t *data, size_t size)
{
    struct exec_reply *c = to;

    return pump_to_reply.write(c->spec.exchange, data, size);
}

static void end_records(void *to)
{
    tell(to);
}

static void on_broken(void *arg, const struct error *why)
{
    struct exec_reply *c = arg;

    (void)why; /* `failure` says what it means for the command */
    c->has_failed = true;
    tell(c);
}

static int write_start(struct exec_reply *c)
{
    struct buffer line = BUFFER_INIT(OUTPUT_RECORD_MAX);
    uint32_t pid = c->follower.process->pid;
    struct json_writer w;
    int result = -1;

    if (pid == 0)
        return 0; /* it was lost before it was seen to start */
    json_writer_init(&w, &line);
    json_begin_object(&w, NULL);
    json_put_text(&w, "type", "start");
    json_put_int(&w, "pid", pid);
    json_end_object(&w);
    if (!w.failed && buffer_append_text(&line, "\n") == 0)
        result = exchange_write(c->spec.exchange, buffer_bytes(&line), line.size);
    buffer_fini(&line);
    return result;
}

static void start_stream(struct exec_reply *c)
{
    static const struct pump_source records = {.pull = pull_record};
    static const struct pump_sink reply = {.write = write_record, .end = end_records};
    const struct pump_spec spec = {.source = &records,
                                   .from = c,
                                   .sink = &reply,
                                   .to = c,
                                   .leftover_max = OUTPUT_RECORD_MAX,
                                   .on_broken = on_broken,
                                   .arg = c};

    exchange_start(c->spec.exchange, 200, NDJSON_TYPE, EXCHANGE_LENGTH_UNKNOWN, c->spec.on_drain);
    pump_init(&c->pump, &spec);
    c->has_failed = write_start(c) != 0;
}

/* --- its course ---------------------------------------------------------------------------------
 */

static void advance(struct exec_reply *c)
{
    const struct process *p = c->follower.process;
    bool never_started = p->state == PROCESS_ENDED && p->result.end == EXEC_FAILED && p->pid == 0;
    bool is_streamed = c->spec.on_drain != NULL && !never_started;

    if (p->state == PROCESS_STARTING)
        return;
    if (c->spec.on_drain == NULL)
        gather(c);
    else if (is_streamed && !exchange_started(c->spec.exchange))
        start_stream(c);
    bool is_last = p->state == PROCESS_ENDED || !c->spec.follows;
    if (c->has_failed || (is_last && !is_streamed)) {
        pump_stop(&c->pump);
        tell(c);
    } else if (is_streamed && is_last) {
        pump_end(&c->pump);
    } else if (is_streamed) {
        pump_run(&c->pump);
    }
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
    process_follow(p, &c->follower, spec->from);
    *ret_reply = c;
    return 0;
}

void exec_reply_drain(struct exec_reply *c)
{
    if (c == NULL)
        return;
    if (c->is_told)
        pump_run(&c->pump);
    else
        advance(c);
}

/* --- what comes behind it -----------------------------------------------------------------------
 */

static int pull_last(void *from, struct buffer *to, struct error *e)
{
    struct exec_reply *c = from;

    (void)e;
    if (c->last.size == 0)
        return 0;
    buffer_fini(to);
    *to = c->last;
    c->last = (struct buffer){0};
    return 1;
}

static void on_last_broken(void *arg, const struct error *why)
{
    struct exec_reply *c = arg;

    exchange_reply_error(c->spec.exchange, why);
}

void exec_reply_finish(struct exec_reply *c, struct buffer *last)
{
    static const struct pump_source source = {.pull = pull_last};
    const struct pump_spec spec = {.source = &source,
                                   .from = c,
                                   .sink = &pump_to_reply,
                                   .to = c->spec.exchange,
                                   .on_broken = on_last_broken,
                                   .arg = c};

    c->last = *last;
    *last = (struct buffer)BUFFER_INIT(last->size_max);
    pump_init(&c->pump, &spec);
    pump_end(&c->pump);
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
    pump_stop(&c->pump);
    buffer_fini(&c->last);
    free(c);
}
