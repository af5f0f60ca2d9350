/*
 * The streams that the host has opened: one slot each, and what every operation has in common
 * (requests in pieces, credit, the END that comes last). Which operations there are is told by a
 * table that the agent's main hands in; what one does is behind its `struct stream_op`, and its
 * state is its own. Its handlers may end the stream, after which the slot is somebody else's, so a
 * caller does not touch the stream again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/wire.h"
#include "cloche/channel.h"
#include "guest/channel/port.h"

struct stream;

struct stream_op {
    uint16_t op; /* enum channel_op */
    /* Of s->state, which is all zero when `start` is called. */
    size_t state_bytes;
    /* Reads the request (only what follows the op) and starts; -1: the request is malformed. */
    int (*start)(struct stream *s, struct wire_reader *reader);
    /* DATA and EOF on lane 0; -1: the host had no right to send it. NULL: never has. */
    int (*data)(struct stream *s, const uint8_t *bytes, size_t size);
    int (*eof)(struct stream *s);
    /* NULL: ignored */
    void (*signal)(struct stream *s, enum channel_signal_scope scope, uint32_t number);
    /* -1: it has no terminal. NULL: never has. */
    int (*resize)(struct stream *s, uint16_t rows, uint16_t columns);
    /* NULL: it ends at once. */
    void (*reset)(struct stream *s);
    /* A short step: sends at most one frame of each lane, where there is something to send and
     * credit for it. Returns true where calling again at once may do more. NULL: it has no steps */
    bool (*pump)(struct stream *s);
    /* What epoll says of a descriptor that was watched with this tag. */
    void (*event)(struct stream *s, unsigned tag, uint32_t events);
    /* s->wake_at_ns has passed, and is 0 again. */
    void (*wake)(struct stream *s);
    /* A child of the agent has ended and was reaped; true: it was this stream's. NULL: it has
     * none. */
    bool (*child)(struct stream *s, pid_t pid, int status, const struct rusage *usage);
    /* Frees what the state holds, also where `start` went only half of the way. */
    void (*fini)(struct stream *s);
};

/* A row of the table of operations. */
struct stream_row {
    const struct stream_op *op;
    void *shared; /* what all streams of this operation have in common; the core does not look */
};

struct stream {
    uint32_t id; /* 0: the slot is free */
    struct streams *streams;
    const struct stream_op *op; /* NULL: the request is not complete */
    void *shared;               /* of the operation's row */
    void *state;                /* the operation's own */
    uint64_t wake_at_ns;        /* the operation may set it: `wake` is called then; 0: never */

    struct buffer request;                    /* pieces of an OPEN, until its last */
    uint64_t send_credit[CHANNEL_LANE_COUNT]; /* what we may send */
    uint32_t receive_credit;                  /* what the host may send on lane 0 ... */
    uint32_t receive_due;                     /* ... and what it gets back with the next CREDIT */
    bool receive_eof;
};

struct streams {
    struct stream slots[CHANNEL_STREAMS_MAX];
    unsigned used_count; /* slots from here on are all free */
    unsigned pump_next;  /* where the next round begins */
    uint32_t id_last;    /* the highest that the host has opened */
    uint8_t *states;     /* STREAM_STATE_BYTES for each slot */
    struct port *port;   /* the port, epoll set and table are borrowed */
    int epoll_fd;
    const struct stream_row *rows;
    size_t row_count;
};

/* A state of this size is there before the snapshot and costs nothing; a larger one is allocated.
 */
#define STREAM_STATE_BYTES 704u

int streams_init(struct streams *t, struct port *port, int epoll_fd, const struct stream_row *rows,
                 size_t row_count, struct error *e) __attribute__((warn_unused_result));
/* Ends every stream without a word to the host; for the end of the service. */
void streams_fini(struct streams *t);

/* Handles a frame of the host's; -1 where it breaks the protocol. */
int streams_frame(struct streams *t, const struct channel_header *h, const uint8_t *payload,
                  struct error *e) __attribute__((warn_unused_result));

/* One round over all streams while the port has room; true where another may send more. */
bool streams_pump(struct streams *t);

/* An event of epoll's, for a descriptor that stream_watch() has added; `data` is never below
 * STREAM_EVENT_MIN there. */
#define STREAM_EVENT_MIN 256u
void streams_event(struct streams *t, uint64_t data, uint32_t events);

/* A child of the agent was reaped, which may be no stream's: PID 1 inherits every orphan. */
void streams_child(struct streams *t, pid_t pid, int status, const struct rusage *usage);

/* When the first stream wants to be woken, UINT64_MAX: none does; and wakes those whose time has
 * come. */
uint64_t streams_next_wake_ns(const struct streams *t);
void streams_wake(struct streams *t);

/* --- For operations ----------------------------------------------------------------------------
 */

/* How long a step may take, but for its last system call, while other streams wait. A count of
 * calls would not do: where the kernel is interpreted, one that removes a file takes 40 ms. */
#define STREAM_STEP_NS (5 * NS_PER_MS)

static inline bool stream_step_is_over(uint64_t begin_ns)
{
    return clock_mono_ns() - begin_ns >= STREAM_STEP_NS;
}

/* The host gives up on an operation that is silent for long. */
#define STREAM_SILENCE_NS_MAX (5 * NS_PER_S)

/* Adds a descriptor to the epoll set; closing it removes it, and so does stream_unwatch(). `tag`
 * (below STREAM_EVENT_MIN) comes back with each event. Returns 0, or -1 with errno. */
int stream_watch(struct stream *s, unsigned tag, int fd, uint32_t events)
    __attribute__((warn_unused_result));
void stream_unwatch(struct stream *s, int fd);

/* `size` bytes of lane 0 have been dealt with: grants the host as much again, in large portions. */
void stream_receive_done(struct stream *s, size_t size);

/* INFO: the request has started. */
void stream_info(struct stream *s, const void *payload, size_t size);

/* Nothing more comes on this lane. */
void stream_eof(struct stream *s, enum channel_lane lane);

/*
 * A DATA frame, filled in place: where to write to, and in *ret_size how much of `wanted` bytes
 * credit and port allow now; NULL: none. stream_data_end() says how many bytes (at least 1) became
 * the payload; not calling it drops the frame.
 */
uint8_t *stream_data_begin(struct stream *s, enum channel_lane lane, size_t wanted,
                           size_t *ret_size) __attribute__((warn_unused_result));
void stream_data_end(struct stream *s, enum channel_lane lane, size_t size);

/* The same for the first frame of lane 0 when the request starts, which always has credit for
 * CHANNEL_PAYLOAD_MAX bytes. An INFO of `info_size` bytes is put in front of it before
 * stream_data_end(): what it says may depend on what has been read. */
uint8_t *stream_data_begin_first(struct stream *s, size_t info_size, size_t size)
    __attribute__((warn_unused_result));

/* END with status 0 and the operation's fields, or with an errno and a text; frees the slot. */
void stream_end(struct stream *s, const void *fields, size_t size);
void stream_fail(struct stream *s, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
