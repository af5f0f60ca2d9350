#include "daemon/process/process.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"

void process_get(struct process *p)
{
    p->references++;
}

void process_put(struct process *p)
{
    assert(p->references > 0);
    if (--p->references > 0)
        return;
    assert(p->exec == NULL && LIST_EMPTY(&p->writers));
    if (p->memory != NULL)
        p->memory->bytes -= p->memory_bytes;
    output_ring_fini(&p->ring);
    free(p->stdin_copy);
    free(p->cwd);
    free(p);
}

/* --- memory -------------------------------------------------------------------------------------
 */

static uint64_t memory_needed(const struct process *p)
{
    size_t capacity = p->state == PROCESS_ENDED ? p->ring.capacity : p->ring.capacity_max;

    return output_ring_bytes(capacity) + (p->stdin_copy != NULL ? p->stdin_size : 0);
}

/* It needs less now. */
static void give_memory_back(struct process *p)
{
    if (p->memory == NULL)
        return;
    p->memory->bytes -= p->memory_bytes - memory_needed(p);
    p->memory_bytes = memory_needed(p);
}

static int take_memory(struct process *p, struct process_memory *memory, uint64_t bytes,
                       struct error *e)
{
    if (bytes > PROCESSES_BYTES_MAX - memory->bytes) {
        (void)error_set(e, ERR_NO_CAPACITY,
                        "the processes in the background hold too much output and input together");
        return error_remedy(e, "Remove those that have ended (DELETE .../processes/{pid}), ask for "
                               "less with keep_output_bytes, or try again later.");
    }
    memory->bytes += bytes;
    p->memory = memory;
    p->memory_bytes = bytes;
    return 0;
}

/* What came with the request is done with, or will never be taken. */
static void drop_stdin(struct process *p)
{
    free(p->stdin_copy);
    p->stdin_copy = NULL;
    p->stdin_size = p->stdin_used;
    give_memory_back(p);
}

/* --- output -------------------------------------------------------------------------------------
 */

static uint64_t slowest_offset(const struct process *p)
{
    const struct process_follower *follower;
    uint64_t offset = p->ring.end;

    LIST_FOREACH (follower, &p->followers, entry) {
        if (follower->offset < offset)
            offset = follower->offset;
    }
    return offset;
}

/*
 * Gives the guest credit where no follower is so far behind that what it may still send (a window
 * for each output) would push bytes out of the ring that somebody waits for.
 */
static void settle(struct process *p)
{
    uint64_t slowest = slowest_offset(p);

    if (!p->is_background)
        output_ring_drop(&p->ring, slowest);
    if (p->source == NULL ||
        p->ring.end - slowest + EXEC_OUTPUT_COUNT * CHANNEL_WINDOW_BYTES > p->ring.capacity_max)
        return;
    for (unsigned i = 0; i < EXEC_OUTPUT_COUNT; i++) {
        size_t held = p->held[i];

        p->held[i] = 0;
        if (held > 0)
            p->source->consume(p->source_context, i, held);
    }
}

/* Calls each follower, whichever of them come and go meanwhile. All stay in the list, so that what
 * one has taken is not dropped before the others have it. */
static void tell_followers(struct process *p)
{
    process_get(p);
    for (struct process_follower *follower = LIST_FIRST(&p->followers); follower != NULL;
         follower = p->next_told) {
        p->next_told = LIST_NEXT(follower, entry);
        follower->on_news(follower);
    }
    process_put(p);
}

void process_follow(struct process *p, struct process_follower *follower, uint64_t offset)
{
    assert(offset <= p->ring.end);
    process_get(p);
    follower->process = p;
    follower->offset = offset;
    LIST_INSERT_HEAD(&p->followers, follower, entry);
}

void process_unfollow(struct process_follower *follower)
{
    struct process *p = follower->process;

    if (p == NULL)
        return;
    if (p->next_told == follower)
        p->next_told = LIST_NEXT(follower, entry);
    LIST_REMOVE(follower, entry);
    follower->process = NULL;
    settle(p);
    process_put(p);
}

uint64_t process_missed(struct process_follower *follower)
{
    uint64_t start = follower->process->ring.start;
    uint64_t missed = follower->offset < start ? start - follower->offset : 0;

    follower->offset += missed;
    return missed;
}

size_t process_peek(const struct process_follower *follower, uint8_t *to, size_t size_max,
                    enum exec_output *ret_which)
{
    assert(follower->offset >= follower->process->ring.start);
    return output_ring_read(&follower->process->ring, follower->offset, to, size_max, ret_which);
}

void process_take(struct process_follower *follower, size_t size)
{
    assert(size <= follower->process->ring.end - follower->offset);
    follower->offset += size;
    settle(follower->process);
}

/* --- stdin --------------------------------------------------------------------------------------
 */

/* What came with the request goes first; then it is closed, or open to a writer. */
static void feed_stdin(struct process *p)
{
    if (p->stdin_used < p->stdin_size) {
        p->stdin_used +=
            exec_send(p->exec, p->stdin_data + p->stdin_used, p->stdin_size - p->stdin_used);
        if (p->stdin_used < p->stdin_size)
            return;
        drop_stdin(p);
    }
    if (!p->keeps_stdin && p->is_stdin_open) {
        p->is_stdin_open = false;
        exec_finish_stdin(p->exec);
    }
}

bool process_takes_stdin(const struct process *p)
{
    return p->is_stdin_open && p->keeps_stdin;
}

int process_write_begin(struct process *p, struct process_writer *writer, struct error *e)
{
    if (!process_takes_stdin(p)) {
        (void)error_set(e, ERR_CONFLICT, "stdin of process %u is closed", p->pid);
        return error_remedy(e, "Start the command with \"stdin_open\": true to write to it later.");
    }
    if (!LIST_EMPTY(&p->writers) && !p->is_terminal) {
        (void)error_set(e, ERR_CONFLICT, "another request writes to stdin of process %u", p->pid);
        return error_remedy(e, "Wait until that one has ended.");
    }
    process_get(p);
    writer->process = p;
    LIST_INSERT_HEAD(&p->writers, writer, entry);
    return 0;
}

size_t process_write(struct process_writer *writer, const void *data, size_t size)
{
    struct process *p = writer->process;

    /* Behind what came with the request; on_stdin_writable follows. */
    return p->stdin_used < p->stdin_size ? 0 : exec_send(p->exec, data, size);
}

/* Nothing may be written any more. */
static void close_writers(struct process *p)
{
    struct process_writer *writer;

    while ((writer = LIST_FIRST(&p->writers)) != NULL) {
        process_write_end(writer, false);
        writer->on_closed(writer);
    }
}

void process_write_end(struct process_writer *writer, bool closes)
{
    struct process *p = writer->process;

    if (p == NULL)
        return;
    writer->process = NULL;
    LIST_REMOVE(writer, entry);
    if (closes && p->exec != NULL) {
        p->keeps_stdin = false;
        feed_stdin(p);
        if (!p->is_stdin_open)
            close_writers(p);
    }
    process_put(p);
}

/* --- from its start to its end ------------------------------------------------------------------
 */

void process_feed_start(struct process *p, uint32_t pid)
{
    p->pid = pid;
    p->state = PROCESS_RUNNING;
    tell_followers(p);
}

void process_feed_output(struct process *p, enum exec_output which, const uint8_t *data,
                         size_t size)
{
    /* Without memory the bytes are missing, which those who follow are told. */
    (void)!output_ring_append(&p->ring, which, data, size);
    p->held[which] += size;
    process_get(p);
    tell_followers(p);
    settle(p);
    process_put(p);
}

void process_feed_end(struct process *p, const struct exec_result *result)
{
    process_get(p);
    p->source = NULL;
    p->exec = NULL;
    p->result = *result;
    p->state = PROCESS_ENDED;
    p->is_stdin_open = false;
    p->ended_real_ns = clock_real_ns();
    drop_stdin(p);
    if (p->on_ended != NULL)
        p->on_ended(p);
    close_writers(p);
    tell_followers(p);
    process_put(p);
}

struct process *process_new(const struct process_source *source, void *context, size_t ring_bytes)
{
    struct process *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return NULL;
    LIST_INIT(&p->followers);
    LIST_INIT(&p->writers);
    output_ring_init(&p->ring, ring_bytes);
    p->references = 1;
    p->source = source;
    p->source_context = context;
    p->started_real_ns = clock_real_ns();
    return p;
}

/* --- an exec as the source ----------------------------------------------------------------------
 */

static void on_start(void *arg, uint32_t pid)
{
    process_feed_start(arg, pid);
}

static void on_output(void *arg, enum exec_output which, const uint8_t *data, size_t size)
{
    process_feed_output(arg, which, data, size);
}

static void on_stdin_writable(void *arg)
{
    struct process *p = arg;

    feed_stdin(p);
    if (p->stdin_used < p->stdin_size)
        return;
    process_get(p);
    for (struct process_writer *writer = LIST_FIRST(&p->writers), *next; writer != NULL;
         writer = next) {
        next = LIST_NEXT(writer, entry); /* it may detach itself, or by closing stdin all of them */
        writer->on_writable(writer);
        if (!p->is_stdin_open)
            break;
    }
    process_put(p);
}

static void on_end(void *arg, const struct exec_result *result)
{
    process_feed_end(arg, result);
}

static void source_consume(void *context, enum exec_output which, size_t size)
{
    exec_consume(context, which, size);
}

static void source_signal(void *context, enum channel_signal_scope scope, uint32_t signal_number)
{
    exec_signal(context, scope, signal_number);
}

static void source_kill(void *context)
{
    exec_kill(context);
}

/* A command line for people: cut, and not inside a character. */
static void set_command(struct process *p, const char *command)
{
    size_t size = strnlen(command, sizeof(p->command) - 1);

    while (!utf8_valid(command, size) && size > sizeof(p->command) - 5)
        size--;
    memcpy(p->command, command, size);
    p->command[size] = '\0';
}

/* In the background it has nobody's memory but its own. */
static int keep_own(struct process *p, struct process_memory *memory,
                    const struct process_spec *spec, struct error *e)
{
    p->stdin_data = spec->stdin_data;
    p->stdin_size = spec->stdin_size;
    if (!spec->is_background)
        return 0;
    if (take_memory(p, memory, memory_needed(p) + spec->stdin_size, e) != 0)
        return -1;
    if (spec->stdin_size == 0)
        return 0;
    p->stdin_copy = malloc(spec->stdin_size);
    if (p->stdin_copy == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for stdin");
    memcpy(p->stdin_copy, spec->stdin_data, spec->stdin_size);
    p->stdin_data = p->stdin_copy;
    return 0;
}

int process_new_exec(uv_loop_t *loop, struct agent_link *link, struct process_memory *memory,
                     const struct process_spec *spec, struct process **ret_process, struct error *e)
{
    static const struct process_source source = {
        .consume = source_consume, .signal = source_signal, .kill = source_kill};
    static const struct exec_calls calls = {.on_start = on_start,
                                            .on_output = on_output,
                                            .on_stdin_writable = on_stdin_writable,
                                            .on_end = on_end};
    struct process *p = process_new(&source, NULL, spec->ring_bytes);

    if (p == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for a process");
    p->is_background = spec->is_background;
    p->is_terminal = spec->exec.has_pty;
    p->is_stdin_open = spec->exec.has_stdin;
    p->keeps_stdin = spec->keeps_stdin;
    set_command(p, spec->command);
    if (keep_own(p, memory, spec, e) != 0 ||
        exec_start(loop, link, &spec->exec, &calls, p, &p->exec, e) != 0) {
        process_put(p);
        return -1;
    }
    p->source_context = p->exec;
    if (spec->exec.has_stdin)
        feed_stdin(p);
    *ret_process = p;
    return 0;
}

void process_resize(struct process *p, uint16_t rows, uint16_t columns)
{
    if (p->exec != NULL)
        exec_resize(p->exec, rows, columns);
}

void process_signal(struct process *p, enum channel_signal_scope scope, uint32_t signal_number)
{
    if (p->source != NULL)
        p->source->signal(p->source_context, scope, signal_number);
}

void process_kill_tree(struct process *p)
{
    drop_stdin(p); /* the rest may belong to an owner who goes now */
    if (p->source != NULL)
        p->source->kill(p->source_context);
}
