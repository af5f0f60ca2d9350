/*
 * The streams that the host has opened: one slot each, and what every operation has in common
 * (requests in pieces, credit, the END that comes last). What an operation does is behind its
 * `struct stream_op`; its handlers may end the stream, after which the slot is somebody else's, so
 * a caller does not touch the stream again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/wire.h"
#include "cloche/channel.h"
#include "guest/exec/command.h"
#include "guest/files/fileop.h"

struct service;
struct stream;

struct stream_op {
    uint16_t op; /* enum channel_op */
    /* Reads the request (only what follows the op) and starts; -1: the request is malformed. */
    int (*start)(struct service *v, struct stream *s, struct wire_reader *r);
    /* DATA and EOF on lane 0; -1: the host had no right to send it. NULL: never has. */
    int (*data)(struct service *v, struct stream *s, const uint8_t *bytes, size_t size);
    int (*eof)(struct service *v, struct stream *s);
    /* NULL: ignored */
    void (*signal)(struct service *v, struct stream *s, enum channel_signal_scope scope,
                   uint32_t number);
    /* -1: it has no terminal. NULL: never has. */
    int (*resize)(struct stream *s, uint16_t rows, uint16_t columns);
    void (*reset)(struct service *v, struct stream *s);
    /* Sends at most one frame of each lane, where there is something to send and credit for it.
     * Returns true where calling again at once may send more. */
    bool (*pump)(struct service *v, struct stream *s);
    /* Frees what the operation holds; called when the stream ends. */
    void (*fini)(struct service *v, struct stream *s);
};

struct stream {
    uint32_t id; /* 0: the slot is free */
    const struct stream_op *op;
    struct buffer request;                    /* pieces of an OPEN, until its last */
    uint64_t send_credit[CHANNEL_LANE_COUNT]; /* what we may send */
    uint32_t receive_credit;                  /* what the host may send on lane 0 ... */
    uint32_t receive_due;                     /* ... and what it gets back with the next CREDIT */
    bool receive_eof;
    union {
        struct command command;
        struct file_read read;
        struct file_write write;
        struct file_query query;
        struct tree_in *tree_in;
    };
};

struct streams {
    struct stream slots[CHANNEL_STREAMS_MAX];
    unsigned used_count; /* slots from here on are all free */
    uint32_t id_last;    /* the highest that the host has opened */
};

/* Handles a frame of the host's; -1 where it breaks the protocol. */
int streams_frame(struct service *v, const struct channel_header *h, const uint8_t *payload,
                  struct error *e) __attribute__((warn_unused_result));

struct stream *streams_find(struct streams *t, uint32_t id);

/* One round over all streams while the port has room; true where another may send more. */
bool streams_pump(struct service *v);

/* Ends every stream without a word to the host; for the end of the service. */
void streams_fini(struct service *v);

/* `size` bytes of lane 0 have been dealt with: grants the host as much again, in large portions. */
void stream_receive_done(struct service *v, struct stream *s, size_t size);

/* How much of `wanted` may go into one DATA frame on this lane now. */
size_t stream_send_room(const struct stream *s, enum channel_lane lane, size_t wanted);

/* END with status 0 and the operation's fields, or with an errno and a text; frees the slot. */
void stream_end(struct service *v, struct stream *s, const void *fields, size_t size);
void stream_fail(struct service *v, struct stream *s, int status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
