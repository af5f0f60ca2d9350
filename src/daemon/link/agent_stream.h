/*
 * A stream of the agent channel, as its owner sees it: one request to the guest, what goes with it,
 * and what the guest says to it until its END. agent_stream_open() (agent_link.h) makes one.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cloche/channel.h"
#include "daemon/link/agent_message.h"

struct agent_stream;

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

/* When (clock_mono_ns) the last of its request was ready for the socket; 0: not yet. */
uint64_t agent_stream_opened_ns(const struct agent_stream *stream);

/* Queues bytes for lane 0; returns how many were taken. Where that is less than `size`, on_writable
 * follows. After agent_stream_eof() nothing may be sent; after a reset everything is taken and
 * dropped. */
size_t agent_stream_send(struct agent_stream *stream, const void *data, size_t size)
    __attribute__((warn_unused_result));

/* Nothing more on lane 0, after what is queued. */
void agent_stream_eof(struct agent_stream *stream);

/* The owner is done with `size` bytes that on_data gave it: the guest may send as many more. */
void agent_stream_consume(struct agent_stream *stream, enum channel_lane lane, size_t size);

/* Sends a signal (1 to 64) to processes of the exec. */
void agent_stream_signal(struct agent_stream *stream, enum channel_signal_scope scope,
                         uint32_t signal_number);

/* Tells the exec's terminal a new size; only for one that has a terminal. */
void agent_stream_resize(struct agent_stream *stream, uint16_t rows, uint16_t columns);

/* Asks the guest to stop. What it still sends is swallowed; on_end follows when it says END. */
void agent_stream_reset(struct agent_stream *stream);

/* Resets, and makes no more callbacks: the pointer is dead for the caller. The link remembers the
 * stream until its END. Accepts NULL. */
void agent_stream_abandon(struct agent_stream *stream);
