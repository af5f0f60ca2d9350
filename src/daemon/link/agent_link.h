/*
 * The daemon's end of a sandbox's agent channel (cloche/channel.h): many streams over one
 * non-blocking SOCK_STREAM socket, in a libuv loop. Single-threaded, as all of the daemon.
 *
 * The guest is hostile. Every frame is judged against the state of its stream (it exists, the type
 * and the lane are legal now, the credit suffices, INFO at most once and first, END last); the
 * first that does not fit breaks the link for good. What a guest can make the daemon hold is
 * bounded: one frame header and one INFO/END payload per link; DATA is handed on as it is read and
 * not kept, and the guest gets credit for a byte only when the stream's owner said that it has been
 * consumed.
 *
 * Towards the guest each stream has a bounded queue, and streams with something to say take turns
 * by the frame in a bounded link buffer, so that no stream can keep another from the socket.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/buffer.h"
#include "base/error.h"
#include "cloche/channel.h"
#include "daemon/link/agent_stream.h"

struct agent_link;

/*
 * The link is over: `why->code` is ERR_SANDBOX_GONE where the monitor closed the channel, and
 * ERR_BAD_REQUEST where the guest broke the protocol (the owner destroys the sandbox then). Called
 * at most once, before the streams' on_end and never from inside a call into the link. The owner
 * may free the link in it.
 */
typedef void (*agent_broken_fn)(void *arg, const struct error *why);

/* Takes `fd` (closed also on failure). `on_broken` may be called from then on. */
int agent_link_new(uv_loop_t *loop, int fd, agent_broken_fn on_broken, void *arg,
                   struct agent_link **ret_link, struct error *e)
    __attribute__((warn_unused_result));

/* Ends every open stream with AGENT_GONE, from inside this call, then closes; on_broken is not
 * called any more. The memory goes when the loop has run its close callback. Accepts NULL. */
void agent_link_free(struct agent_link *link);

/* The guest broke the protocol in a way that only a stream's owner could see. Breaks the link in
 * the next turn of the loop. */
void agent_link_accuse(struct agent_link *link, const char *what);

/*
 * Opens a stream with a request of agent_request_*() whose bytes move out of `request`. `sends`:
 * lane 0 will carry our bytes (stdin, a file's content). Returns 0, or -1 with ERR_SANDBOX_GONE
 * (the link is over), ERR_TOO_MANY (CHANNEL_STREAMS_MAX are open) or ERR_INTERNAL (memory).
 */
int agent_stream_open(struct agent_link *link, enum channel_op op, bool sends,
                      struct buffer *request, const struct agent_stream_calls *calls, void *arg,
                      struct agent_stream **ret_stream, struct error *e)
    __attribute__((warn_unused_result));
