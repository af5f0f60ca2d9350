/*
 * The way to the guest. A stream that has something to say is on its link's list of turns; each
 * turn takes one frame from it into the wire buffer, then the stream goes to the end of the list.
 * Only the oldest stream whose request is not out yet may send OPEN frames, so the agent puts
 * together one request at a time and the numbers that it sees rise.
 *
 * Nothing here calls a stream's owner, and nothing here knows the link: it hears of what there is
 * to do by the calls that it hands in.
 */
#pragma once

#include <stdbool.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/link/stream_table.h"

/* Small frames keep the turns of other streams short: on a KVM that interprets the guest's kernel
 * the guest takes in 3 MB/s, that is 10 ms for one of these. */
#define AGENT_FRAME_PAYLOAD (32 * KIB)
#define AGENT_FRAME_MAX     (CHANNEL_HEADER_BYTES + AGENT_FRAME_PAYLOAD)
#define AGENT_WIRE_MAX      (2 * AGENT_FRAME_MAX) /* a link's bytes on their way to the socket */
#define AGENT_QUEUE_MAX     (128 * KIB)           /* a stream's bytes on their way to that */
#define AGENT_GRANT_MIN     (CHANNEL_WINDOW_BYTES / 4) /* no CREDIT for less, unless it is needed */

_Static_assert(AGENT_FRAME_PAYLOAD <= CHANNEL_PAYLOAD_MAX, "a frame that the agent takes");

/* What the link does for its sender. Called from inside any call about a stream, so none of them
 * may call an owner at once. */
struct agent_sender_calls {
    /* There is something to write: agent_sender_flush() when the socket takes it. */
    void (*on_output)(void *arg);
    /* A stream came onto `roomy` by another way than agent_sender_flush(). */
    void (*on_roomy)(void *arg);
    /* The stream was reset before any of it went out, so the guest will never say its END. It is on
     * no list of the sender any more. */
    void (*on_canceled)(void *arg, struct agent_stream *stream);
};

struct agent_sender {
    const struct agent_sender_calls *calls;
    void *arg;
    struct buffer wire;
    struct agent_stream_queue opening;
    struct agent_stream_queue turns;
    struct agent_stream_queue roomy; /* for the link to take from, and to tell their owners */
    bool deaf;                       /* the peer takes nothing any more */
};

/* `calls` has static storage. */
void agent_sender_init(struct agent_sender *sender, const struct agent_sender_calls *calls,
                       void *arg);
void agent_sender_fini(struct agent_sender *sender);

/* Takes on a stream whose request is in it; it goes out when its turn comes. */
void agent_sender_add(struct agent_sender *sender, struct agent_stream *stream);

/* Takes a stream off all lists. */
void agent_sender_forget(struct agent_stream *stream);

/* The stream has something to say, maybe. */
void agent_sender_wake(struct agent_stream *stream);

bool agent_sender_has_output(const struct agent_sender *sender);

/* Writes as much as the socket takes without blocking. */
void agent_sender_flush(struct agent_sender *sender, int fd);
