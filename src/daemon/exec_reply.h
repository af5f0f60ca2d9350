/*
 * The command of one request: an exec whose stdin is fed from the request and whose output is
 * gathered for a buffered reply, or goes out as NDJSON records while it runs. Used by the handlers
 * of POST .../exec and POST /v1/run, which own the exchange.
 *
 * Streaming, a reader that is slow stops the command: the guest gets credit for what was handed to
 * the exchange while that has little queued. The reply starts when the command has; one that cannot
 * be started still gets an error reply.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/exec.h"
#include "daemon/exec_request.h"
#include "json/json_write.h"

struct agent_link;
struct exec_reply;
struct exchange;

/* A reply with all output, every byte of it a control character that JSON writes with six. */
#define EXEC_REPLY_BYTES_MAX (6 * EXEC_OUTPUT_BYTES_MAX + 64 * KIB)

#define NDJSON_TYPE "application/x-ndjson"

struct exec_reply_spec {
    struct exchange *exchange;
    const struct exec_request *request; /* complete; outlives the command */
    /* Not NULL: output is streamed. Given to exchange_start; it calls exec_reply_drain(). */
    void (*on_drain)(struct exchange *x);
    /* The command is over and all its output is handed out. Streaming and `result->end` other than
     * EXEC_FAILED: the reply has started. Called once, from the loop; not after exec_reply_free().
     */
    void (*on_end)(void *context, const struct exec_result *result);
    void *context;
};

/* Starts it; 0, or -1 with an error of exec_start(). */
int exec_reply_start(const struct exec_reply_spec *spec, struct agent_link *link,
                     struct exec_reply **ret_reply, struct error *e)
    __attribute__((warn_unused_result));

/* The exchange takes more. Accepts NULL. */
void exec_reply_drain(struct exec_reply *c);

/* Appends {"end", "exit_code", ..., "times"} to an object that was begun; with the gathered output
 * unless it was streamed. */
void exec_reply_put_result(const struct exec_reply *c, const struct exec_result *result,
                           struct json_writer *w);

/* Kills the command where it still runs, and frees. Accepts NULL. */
void exec_reply_free(struct exec_reply *c);
