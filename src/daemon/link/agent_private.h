/* What agent_link.c (the socket, and judging what the guest says) and agent_send.c (what is said to
 * the guest) share; for no one else. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "base/buffer.h"
#include "base/error.h"
#include "cloche/channel.h"
#include "daemon/link/agent_link.h"

/* Small frames keep the turns of other streams short: on a KVM that interprets the guest's kernel
 * the guest takes in 3 MB/s, that is 10 ms for one of these. */
#define AGENT_FRAME_PAYLOAD (32 * KIB)
#define AGENT_FRAME_MAX     (CHANNEL_HEADER_BYTES + AGENT_FRAME_PAYLOAD)
#define AGENT_WIRE_MAX      (2 * AGENT_FRAME_MAX) /* a link's bytes on their way to the socket */
#define AGENT_QUEUE_MAX     (128 * KIB)           /* a stream's bytes on their way to that */
#define AGENT_GRANT_MIN     (CHANNEL_WINDOW_BYTES / 4) /* no CREDIT for less, unless it is needed */
#define AGENT_BUCKETS       64u

_Static_assert(AGENT_FRAME_PAYLOAD <= CHANNEL_PAYLOAD_MAX, "a frame that the agent takes");

/* A lane on which the guest sends. received <= granted, consumed <= received. */
struct agent_lane {
    bool legal;
    bool eof;
    uint64_t received;
    uint64_t granted; /* the initial window and all CREDIT that went out */
    uint64_t consumed;
};

struct agent_stream {
    struct agent_link *link;
    uint32_t number;
    enum channel_op op;
    struct agent_stream_calls calls;
    void *arg;

    bool reset; /* RESET is due or sent: what comes is judged, then dropped */
    bool ended; /* on_end runs or ran */

    /* From the guest */
    bool has_info;
    struct agent_lane lanes[CHANNEL_LANE_COUNT];

    /* To the guest */
    bool sends;      /* lane 0 is ours to fill */
    bool opened;     /* all of the request is in the wire buffer */
    bool open_begun; /* some of it is */
    uint64_t opened_ns;
    bool eof_wanted; /* nothing follows what is in `queue` */
    bool eof_sent;
    bool reset_sent;
    bool wants_room;        /* a send took less than it was given */
    bool is_turn, is_roomy; /* on the list of that name */
    uint64_t signals[2];    /* by scope; bit n - 1: signal n is due */
    bool resize_due;        /* of the sizes that were set since the last frame, the newest counts */
    uint16_t rows, columns;
    uint64_t credit; /* the guest has room for so many bytes */
    uint64_t sent;
    struct buffer request;
    struct buffer queue;

    LIST_ENTRY(agent_stream) bucket;
    TAILQ_ENTRY(agent_stream) opening; /* while !opened, in order of number */
    TAILQ_ENTRY(agent_stream) turn;    /* has something to say */
    TAILQ_ENTRY(agent_stream) roomy;   /* on_writable is due; a canceled stream's on_end is */
};

TAILQ_HEAD(agent_stream_queue, agent_stream);
LIST_HEAD(agent_stream_list, agent_stream);

struct agent_link {
    uv_poll_t poll;
    uv_timer_t deferred; /* fires in the next turn of the loop */
    unsigned open_handles;
    int fd;
    int events; /* what `poll` waits for */
    bool over;  /* nothing is read, written or opened any more */
    bool freed;
    bool deaf; /* the peer takes nothing any more */
    agent_broken_fn on_broken;
    void *arg;
    struct error accusation; /* code ERR_NONE: none */

    struct agent_stream_list buckets[AGENT_BUCKETS];
    size_t stream_count;
    uint32_t last_number;

    /* From the guest: the frame that is being read. */
    uint8_t header_bytes[CHANNEL_HEADER_BYTES];
    size_t header_used;
    struct channel_header header;
    struct agent_stream *current;
    size_t payload_used;
    uint8_t message[AGENT_MESSAGE_MAX]; /* INFO, END and CREDIT; DATA is not kept */

    /* To the guest. */
    struct buffer wire;
    struct agent_stream_queue opening;
    struct agent_stream_queue turns;
    struct agent_stream_queue roomy;
    struct agent_stream_queue canceled;
};

/* agent_link.c: waits for what there is to do now; runs on_deferred in the loop's next turn. */
void agent_link_watch(struct agent_link *link);
void agent_link_defer(struct agent_link *link);

/* agent_send.c: the stream has something to say, maybe. */
void agent_stream_wake(struct agent_stream *s);
/* Takes the stream off every list of its link. */
void agent_stream_unlink(struct agent_stream *s);
/* Moves frames to the wire buffer, in turns, and the wire buffer to the socket. */
void agent_link_flush(struct agent_link *link);
/* Calls on_writable of the streams that wait for it and have room. */
void agent_link_tell_room(struct agent_link *link);
