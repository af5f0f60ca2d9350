/*
 * The reply to a request that starts or follows a command: its output gathered for a buffered
 * reply, or handed out as NDJSON records while it runs. Used by the handlers of POST .../exec,
 * GET .../processes/{pid}/output and POST /v1/run, which own the exchange.
 *
 * Streaming, a reader that is slow stops the command (daemon/process.h). The reply starts when the
 * command has; one that cannot be started still gets an error reply.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/process/exec.h"
#include "daemon/process/process.h"
#include "json/json_write.h"

struct buffer;
struct exchange;

/* A reply with all output, every byte of it a control character that JSON writes with six. */
#define EXEC_REPLY_BYTES_MAX (6 * EXEC_OUTPUT_BYTES_MAX + 64 * KIB)

struct exec_reply_spec {
    struct exchange *exchange;
    /* Not NULL: output is streamed. Given to exchange_start; it calls exec_reply_drain(). */
    void (*on_drain)(struct exchange *x);
    /* The command is over and all its output is handed out; or, with a `result` of NULL, all that
     * there is now, where the reply does not follow. Streaming and `result->end` other than
     * EXEC_FAILED: the reply has started. Called once; not after exec_reply_free(). */
    void (*on_end)(void *context, const struct exec_result *result);
    void *context;
    bool is_owner; /* the command is killed when the reply is freed before its end */
    bool follows;  /* to the end of the command */
    uint64_t from; /* offset of the first byte of output that is wanted */
};

struct exec_reply;

/* Begins a reply about `p`. Returns 0, or -1 with ERR_INTERNAL; an owned process is killed then. */
int exec_reply_start(const struct exec_reply_spec *spec, struct process *p,
                     struct exec_reply **ret_reply, struct error *e)
    __attribute__((warn_unused_result));

/* The exchange takes more; also to be called when a reply about a process that runs already has
 * been started. May call on_end. Accepts NULL. */
void exec_reply_drain(struct exec_reply *reply);

/* Offset of the next byte that was not handed out. */
uint64_t exec_reply_offset(const struct exec_reply *reply);

/* Streamed, from on_end on: hands out `last`, which moves out of it, as the reply's last records,
 * and ends the exchange behind them. */
void exec_reply_finish(struct exec_reply *reply, struct buffer *last);

/* Appends what was gathered as "stdout" and "stderr" to an object that was begun. */
void exec_reply_put_output(const struct exec_reply *reply, struct json_writer *w);

/* Ends the command where the reply is its owner, and frees. Accepts NULL. */
void exec_reply_free(struct exec_reply *reply);
