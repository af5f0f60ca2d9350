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

static void gather(struct exec_reply *reply)
{
    uint8_t data[OUTPUT_PIECE_BYTES];
    enum exec_output which = EXEC_STDOUT;
    size_t size;

    if (process_missed(&reply->follower) > 0)
        reply->has_failed = true;
    while (!reply->has_failed &&
           (size = process_peek(&reply->follower, data, sizeof(data), &which)) > 0) {
        if (exchange_hold(reply->spec.exchange, size, &reply->failure) != 0 ||
            buffer_append(&reply->output[which], data, size) != 0)
            reply->has_failed = true;
        process_take(&reply->follower, size);
    }
}

/* The owner may free the reply in its on_end, so that gets a copy. */
static void tell(struct exec_reply *reply)
{
    struct process *p = reply->follower.process;
    bool is_over = reply->has_failed || p->state == PROCESS_ENDED;
    struct exec_result copy;

    reply->is_told = true;
    if (reply->has_failed) {
        copy = (struct exec_result){.end = EXEC_FAILED, .error = reply->failure};
        /* With its output lost there is no point in letting it go on. */
        if (reply->spec.is_owner)
            process_kill_tree(p);
    } else if (is_over) {
        copy = p->result;
    }
    process_get(p); /* parts of the result are its own */
    process_unfollow(&reply->follower);
    reply->spec.on_end(reply->spec.context, is_over ? &copy : NULL);
    process_put(p);
}

/* --- a stream of records ------------------------------------------------------------------------
 */

static int pull_record(void *from, struct buffer *to, struct error *e)
{
    struct exec_reply *reply = from;
    int result = output_record_append(to, &reply->follower);

    return result >= 0 ? result : error_set(e, ERR_INTERNAL, "out of memory for a record");
}

static size_t write_record(void *to, const uint8_t *data, size_t size)
{
    struct exec_reply *reply = to;

    return pump_to_reply.write(reply->spec.exchange, data, size);
}

static void end_records(void *to)
{
    tell(to);
}

static void on_broken(void *arg, const struct error *why)
{
    struct exec_reply *reply = arg;

    (void)why; /* `failure` says what it means for the command */
    reply->has_failed = true;
    tell(reply);
}

static int write_start(struct exec_reply *reply)
{
    struct buffer line = BUFFER_INIT(OUTPUT_RECORD_MAX);
    uint32_t pid = reply->follower.process->pid;
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
        result = exchange_write(reply->spec.exchange, buffer_bytes(&line), line.size);
    buffer_fini(&line);
    return result;
}

static void start_stream(struct exec_reply *reply)
{
    static const struct pump_source source = {.pull = pull_record};
    static const struct pump_sink sink = {.write = write_record, .end = end_records};
    const struct pump_spec spec = {.source = &source,
                                   .from = reply,
                                   .sink = &sink,
                                   .to = reply,
                                   .leftover_max = OUTPUT_RECORD_MAX,
                                   .on_broken = on_broken,
                                   .arg = reply};

    exchange_start(reply->spec.exchange, 200, NDJSON_TYPE, EXCHANGE_LENGTH_UNKNOWN,
                   reply->spec.on_drain);
    pump_init(&reply->pump, &spec);
    reply->has_failed = write_start(reply) != 0;
}

/* --- its course ---------------------------------------------------------------------------------
 */

static void advance(struct exec_reply *reply)
{
    const struct process *p = reply->follower.process;
    bool never_started = p->state == PROCESS_ENDED && p->result.end == EXEC_FAILED && p->pid == 0;
    bool is_streamed = reply->spec.on_drain != NULL && !never_started;

    if (p->state == PROCESS_STARTING)
        return;
    if (reply->spec.on_drain == NULL)
        gather(reply);
    else if (is_streamed && !exchange_started(reply->spec.exchange))
        start_stream(reply);
    bool is_last = p->state == PROCESS_ENDED || !reply->spec.follows;
    if (reply->has_failed || (is_last && !is_streamed)) {
        pump_stop(&reply->pump);
        tell(reply);
    } else if (is_streamed && is_last) {
        pump_end(&reply->pump);
    } else if (is_streamed) {
        pump_run(&reply->pump);
    }
}

static void on_news(struct process_follower *follower)
{
    advance(follower->owner);
}

int exec_reply_start(const struct exec_reply_spec *spec, struct process *p,
                     struct exec_reply **ret_reply, struct error *e)
{
    struct exec_reply *reply = calloc(1, sizeof(*reply));

    if (reply == NULL) {
        if (spec->is_owner)
            process_kill_tree(p);
        return error_set(e, ERR_INTERNAL, "out of memory for a reply");
    }
    reply->spec = *spec;
    (void)error_set(&reply->failure, ERR_INTERNAL, "the command's output could not be kept");
    (void)error_remedy(&reply->failure, "Try again with a smaller max_output_bytes.");
    reply->follower.on_news = on_news;
    reply->follower.owner = reply;
    for (unsigned i = 0; i < EXEC_OUTPUT_COUNT; i++)
        reply->output[i] = (struct buffer)BUFFER_INIT(EXEC_OUTPUT_BYTES_MAX);
    process_follow(p, &reply->follower, spec->from);
    *ret_reply = reply;
    return 0;
}

void exec_reply_drain(struct exec_reply *reply)
{
    if (reply == NULL)
        return;
    if (reply->is_told)
        pump_run(&reply->pump);
    else
        advance(reply);
}

/* --- what comes behind it -----------------------------------------------------------------------
 */

static int pull_last(void *from, struct buffer *to, struct error *e)
{
    struct exec_reply *reply = from;

    (void)e;
    if (reply->last.size == 0)
        return 0;
    buffer_fini(to);
    *to = reply->last;
    reply->last = (struct buffer){0};
    return 1;
}

static void on_last_broken(void *arg, const struct error *why)
{
    struct exec_reply *reply = arg;

    exchange_reply_error(reply->spec.exchange, why);
}

void exec_reply_finish(struct exec_reply *reply, struct buffer *last)
{
    static const struct pump_source source = {.pull = pull_last};
    const struct pump_spec spec = {.source = &source,
                                   .from = reply,
                                   .sink = &pump_to_reply,
                                   .to = reply->spec.exchange,
                                   .on_broken = on_last_broken,
                                   .arg = reply};

    reply->last = *last;
    *last = (struct buffer)BUFFER_INIT(last->size_max);
    pump_init(&reply->pump, &spec);
    pump_end(&reply->pump);
}

uint64_t exec_reply_offset(const struct exec_reply *reply)
{
    return reply->follower.offset;
}

void exec_reply_put_output(const struct exec_reply *reply, struct json_writer *w)
{
    json_put_bytes(w, "stdout", buffer_bytes(&reply->output[EXEC_STDOUT]),
                   reply->output[EXEC_STDOUT].size);
    json_put_bytes(w, "stderr", buffer_bytes(&reply->output[EXEC_STDERR]),
                   reply->output[EXEC_STDERR].size);
}

void exec_reply_free(struct exec_reply *reply)
{
    if (reply == NULL)
        return;
    if (reply->spec.is_owner && reply->follower.process != NULL)
        process_kill_tree(reply->follower.process);
    process_unfollow(&reply->follower);
    for (unsigned i = 0; i < EXEC_OUTPUT_COUNT; i++)
        buffer_fini(&reply->output[i]);
    pump_stop(&reply->pump);
    buffer_fini(&reply->last);
    free(reply);
}
