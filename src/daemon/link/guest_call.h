/*
 * The one way to ask the agent for something that is no command: a file read or written, streamed
 * in either direction with the channel's flow control, of any size, and what else the agent does
 * with files, whose records come as the content of a file does. The daemon holds no more of it than
 * a queue's worth.
 *
 * A call whose guest makes no progress for GUEST_CALL_STALL_MS while it is the guest's turn ends
 * with ERR_UNREACHABLE (a WATCH may be silent once it has started); a slow client is the HTTP
 * server's business.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "daemon/link/agent_link.h"

struct buffer;

#define GUEST_CALL_STALL_MS 60000u

struct guest_call;

/* What of a file is read: `length` bytes from `offset` on, or the last `length` of it with
 * CHANNEL_READ_TAIL. The agent may send less, or all of a file without a size: see agent_info. */
struct guest_call_range {
    uint64_t offset;
    uint64_t length;
};

/*
 * on_end is called exactly once unless the call is abandoned; the call is dead when it returns.
 * `why` is NULL where all was done that was asked for; then `end` is the guest's. No callback is
 * made from inside a call into this module.
 */
struct guest_call_events {
    void (*on_info)(void *arg, const struct agent_info *info);    /* read, ask; may be NULL */
    void (*on_data)(void *arg, const uint8_t *data, size_t size); /* read, ask */
    void (*on_writable)(void *arg);                               /* write; may be NULL */
    void (*on_end)(void *arg, const struct error *why, const struct agent_end *end);
};

/* An absolute path of at most CHANNEL_PATH_MAX - 1 bytes without NUL, `..` component or trailing
 * '/'. Returns 0, or -1 with ERR_INVALID_PATH, a message that names the path and a remedy. `size`
 * counts the bytes before the final NUL, so that a NUL inside is seen. */
int guest_call_check_path(const char *path, size_t size, struct error *e)
    __attribute__((warn_unused_result));

/* Start a call; 0, or -1 with an error of agent_stream_open(). `path` has been checked and is
 * not kept. `range`: NULL for the whole file. `mode`: permission bits of the new file. */
int guest_call_read(uv_loop_t *loop, struct agent_link *link, const char *path,
                    const struct guest_call_range *range, const struct guest_call_events *events,
                    void *arg, struct guest_call **ret_call, struct error *e)
    __attribute__((warn_unused_result));
int guest_call_write(uv_loop_t *loop, struct agent_link *link, const char *path, uint32_t mode,
                     const struct guest_call_events *events, void *arg,
                     struct guest_call **ret_call, struct error *e)
    __attribute__((warn_unused_result));

/*
 * Starts an operation of AGENT_OP_RECORDS or AGENT_OP_TREE; as above. `request` is of
 * agent_request_*(), whose bytes move out. `verb` (static) and `path` tell in errors what failed.
 */
int guest_call_ask(uv_loop_t *loop, struct agent_link *link, enum channel_op op, const char *verb,
                   const char *path, struct buffer *request, const struct guest_call_events *events,
                   void *arg, struct guest_call **ret_call, struct error *e)
    __attribute__((warn_unused_result));

/* Read: `size` bytes of on_data are done with. */
void guest_call_consume(struct guest_call *call, size_t size);

/* Write, tree: returns how many bytes were taken; where that is less than `size`, on_writable
 * follows. */
size_t guest_call_send(struct guest_call *call, const void *data, size_t size)
    __attribute__((warn_unused_result));

/* Write, tree: that was all; the guest puts the file in its place and on_end follows. */
void guest_call_finish(struct guest_call *call);

/* Gives up: no more callbacks; a file that was being written is left as it was before. Accepts
 * NULL. */
void guest_call_abandon(struct guest_call *call);
