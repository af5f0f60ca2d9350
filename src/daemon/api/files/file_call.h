/* What the API's calls about files have in common but for content (api_file_query.c,
 * api_file_change.c): one exchange, one operation of the agent, its records held until its end. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "cloche/channel.h"
#include "daemon/link/agent_message.h"

struct exchange;
struct guest_call;

/* Lives until the exchange closes. */
struct file_call {
    struct exchange *exchange;
    struct guest_call *file; /* NULL before and after the operation */
    struct buffer records;
    void (*on_done)(struct file_call *c, uint32_t flags);
    char path[CHANNEL_PATH_MAX];
    char other[CHANNEL_PATH_MAX]; /* the call's second path or text, where it has one */
    uint32_t number;              /* these two are the call's own */
    const void *detail;
};

/* The query's path as it is; ERR_INVALID_PATH where there is none. */
int file_call_query_path(const struct exchange *x, const char **ret_path, struct error *e)
    __attribute__((warn_unused_result));

/* A path that may be a directory's, the root included: checked as guest_call_check_path() does, and
 * without the slashes at its end. `size` counts the bytes before the final NUL. */
int file_call_take_path(const char *path, size_t size, char ret_path[CHANNEL_PATH_MAX],
                        struct error *e) __attribute__((warn_unused_result));

/* Makes the exchange's call, in a sandbox that is there. NULL with an error. */
struct file_call *file_call_new(struct exchange *x, struct error *e)
    __attribute__((warn_unused_result));

/*
 * Starts the operation; `request` is one of agent_request_*(), whose bytes move out. `verb`
 * (static) tells in errors what failed, beside the path. `on_done` is called when it has succeeded
 * and owes the reply; any failure is answered here. Returns 0, or -1 with an error, which the
 * caller owes.
 */
int file_call_start(struct file_call *c, enum channel_op op, const char *verb,
                    struct buffer *request, void (*on_done)(struct file_call *c, uint32_t flags),
                    struct error *e) __attribute__((warn_unused_result));

/* What came makes no sense: ends the sandbox, and answers so. */
void file_call_accuse(struct file_call *c, const struct error *why);
