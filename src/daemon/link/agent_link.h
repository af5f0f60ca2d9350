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
#include "daemon/link/agent_message.h"

struct agent_link;
struct agent_stream;

/*
 * The link is over: `why->code` is ERR_SANDBOX_GONE where the monitor closed the channel, and
 * ERR_BAD_REQUEST where the guest broke the protocol (the owner destroys the sandbox then). Called
 * at most once, before the streams' on_end and never from inside a call into the link. The owner
 * may free the link in it.
 */
typedef void (*agent_broken_fn)(void *arg, const struct error *why);

/* How a stream came to its end. */
enum agent_outcome {
    AGENT_ENDED,    /* the guest said END */
    AGENT_CANCELED, /* it was reset before any of its request went out: nothing ran */
    AGENT_GONE,     /* the link ended first; the result is unknown */
};

/*
 * A stream's owner. on_end is called exactly once unless the stream is abandoned, is the last call,
 * and the stream is dead when it returns. No callback is made from inside agent_stream_open, _send,
 * _eof, _signal, _resize, _reset, _consume or _abandon. All of these may be called from callbacks.
 * Any callback but on_end may be NULL.
 */
struct agent_stream_calls {
    void (*on_info)(void *arg, const struct agent_info *info);
    /* At most CHANNEL_WINDOW_BYTES a lane come before agent_stream_consume() grants more. */
    void (*on_data)(void *arg, enum channel_lane lane, const uint8_t *data, size_t size);
    void (*on_eof)(void *arg, enum channel_lane lane);
    /* There is room again after agent_stream_send() took less than it was given. */
    void (*on_writable)(void *arg);
    /* `end` is NULL unless the outcome is AGENT_ENDED. */
    void (*on_end)(void *arg, enum agent_outcome outcome, const struct agent_end *end);
};

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

/* Streams that are open now, those included that only wait for their END. */
size_t agent_link_stream_count(const struct agent_link *link);

/*
 * Opens a stream with a request of agent_request_*() whose bytes move out of `request`. `sends`:
 * lane 0 will carry our bytes (stdin, a file's content). Returns 0, or -1 with ERR_SANDBOX_GONE
 * (the link is over), ERR_TOO_MANY (CHANNEL_STREAMS_MAX are open) or ERR_INTERNAL (memory).
 */
int agent_stream_open(struct agent_link *link, enum channel_op op, bool sends,
                      struct buffer *request, const struct agent_stream_calls *calls, void *arg,
                      struct agent_stream **ret_stream, struct error *e)
    __attribute__((warn_unused_result));

/* When (clock_mono_ns) the last of its request was ready for the socket; 0: not yet. */
uint64_t agent_stream_opened_ns(const struct agent_stream *s);

/* Queues bytes for lane 0; returns how many were taken. Where that is less than `size`, on_writable
 * follows. After agent_stream_eof() nothing may be sent; after a reset everything is taken and
 * dropped. */
size_t agent_stream_send(struct agent_stream *s, const void *data, size_t size)
    __attribute__((warn_unused_result));

/* Nothing more on lane 0, after what is queued. */
void agent_stream_eof(struct agent_stream *s);

/* The owner is done with `size` bytes that on_data gave it: the guest may send as many more. */
void agent_stream_consume(struct agent_stream *s, enum channel_lane lane, size_t size);

/* Sends a signal (1 to 64) to processes of the exec. */
void agent_stream_signal(struct agent_stream *s, enum channel_signal_scope scope,
                         uint32_t signal_number);

/* Tells the exec's terminal a new size; only for one that has a terminal. */
void agent_stream_resize(struct agent_stream *s, uint16_t rows, uint16_t columns);

/* Asks the guest to stop. What it still sends is swallowed; on_end follows when it says END. */
void agent_stream_reset(struct agent_stream *s);

/* Resets, and makes no more callbacks: the pointer is dead for the caller. The link remembers the
 * stream until its END. Accepts NULL. */
void agent_stream_abandon(struct agent_stream *s);
