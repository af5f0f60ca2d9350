/*
 * Which files a command has created, changed or deleted: the agent remembers what there is (DIFF,
 * see cloche/channel.h), and says later what differs. What other commands of the sandbox change in
 * between is among it.
 */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "base/error.h"
#include "json/json_write.h"

struct agent_link;
struct exec_changes;

struct exec_changes_calls {
    /* The state is remembered; or `why` it cannot be, after which nothing follows. */
    void (*on_ready)(void *arg, const struct error *why);
    /* What exec_changes_ask() asked for is there, or (exec_changes_put() tells) it is not. */
    void (*on_told)(void *arg);
};

/* Begins to remember. 0, or -1 with an error of agent_stream_open(). No callback comes from inside
 * this or the other calls. */
int exec_changes_new(uv_loop_t *loop, struct agent_link *link,
                     const struct exec_changes_calls *calls, void *arg,
                     struct exec_changes **ret_changes, struct error *e)
    __attribute__((warn_unused_result));

/* Asks for what has changed since on_ready. False where nothing can be told any more, as the
 * sandbox is gone, say: no call follows then. */
bool exec_changes_ask(struct exec_changes *changes) __attribute__((warn_unused_result));

/* Writes "changes" (an array, or null after a failure) and "changes_truncated" into an object. */
void exec_changes_put(const struct exec_changes *changes, struct json_writer *w);

/* How much memory what was told takes. */
size_t exec_changes_bytes(const struct exec_changes *changes);

/* No more calls. Accepts NULL. */
void exec_changes_free(struct exec_changes *changes);
