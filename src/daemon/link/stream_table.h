/* The streams of a link by their numbers, and what a stream is made of: agent_send.c (what is said
 * to the guest) and agent_receive.c (what the guest says) share it; for no one else. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/buffer.h"
#include "cloche/channel.h"
#include "daemon/link/agent_stream.h"

#define STREAM_BUCKETS 64u

struct agent_sender;

/* A lane on which the guest sends. received <= granted, consumed <= received. */
struct agent_lane {
    bool legal;
    bool eof;
    uint64_t received;
    uint64_t granted; /* the initial window and all CREDIT that went out */
    uint64_t consumed;
};

struct agent_stream {
    struct agent_sender *sender;
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
    bool reset_sent;        /* or it needs none */
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

struct stream_table {
    struct agent_stream_list buckets[STREAM_BUCKETS];
    size_t count;
    uint32_t last_number;
};

/* A stream with the next number, in the table, with an empty queue and nothing legal; NULL where
 * memory is short. The owner's part and the lanes are for the caller to fill. */
struct agent_stream *stream_table_add(struct stream_table *table);

/* NULL where none has that number. */
struct agent_stream *stream_table_find(struct stream_table *table, uint32_t number);

/* Any of those that are left, or NULL. */
struct agent_stream *stream_table_first(struct stream_table *table);

void stream_table_remove(struct stream_table *table, struct agent_stream *stream);

/* The end of a stream that is in no table and on no list any more: tells its owner, and frees it.
 * `end` as in agent_stream_calls. */
void agent_stream_finish(struct agent_stream *stream, enum agent_outcome outcome,
                         const struct agent_end *end);
