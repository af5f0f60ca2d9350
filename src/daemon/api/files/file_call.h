/* What the calls that ask about files or change them have in common (api_file_query.c,
 * api_file_change.c): one exchange, one operation of the agent, its records held until its end. A
 * call's own struct begins with one of these. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "cloche/channel.h"

struct agent_link;
struct exchange;
struct guest_call;

/* Lives until the exchange closes. */
struct file_call {
    struct exchange *exchange;
    struct guest_call *guest; /* NULL before and after the operation */
    struct buffer records;
    void (*on_done)(struct file_call *call, uint32_t flags);
    char path[CHANNEL_PATH_MAX];
};

/* Makes the exchange's call: `size` zeroed bytes that begin with the struct file_call. `path` is
 * checked, or "" for one that the call takes from a body. NULL with an error. */
void *file_call_new(struct exchange *x, size_t size, const char *path, struct error *e)
    __attribute__((warn_unused_result));

/*
 * Starts the operation; `request` is one of agent_request_*(), whose bytes move out. `verb`
 * (static) tells in errors what failed, beside the path. `on_done` is called when it has succeeded
 * and owes the reply; any failure is answered here. Returns 0, or -1 with an error, which the
 * caller owes.
 */
int file_call_start(struct file_call *call, struct agent_link *link, enum channel_op op,
                    const char *verb, struct buffer *request,
                    void (*on_done)(struct file_call *call, uint32_t flags), struct error *e)
    __attribute__((warn_unused_result));

/* What came makes no sense: ends the sandbox, and answers so. */
void file_call_accuse(struct file_call *call, const struct error *why);
