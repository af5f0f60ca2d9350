/*
 * The agent's end of the channel (cloche/channel.h): frames in and out of the console port, both
 * buffered, nothing blocks. The output buffer never overflows: nobody makes DATA or takes another
 * frame from the host unless port_has_room(), and what else a stream can still say then (INFO, EOF,
 * CREDIT, END) is bounded by the number of streams.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "cloche/channel.h"

struct port {
    int fd; /* borrowed */
    struct buffer in;
    struct buffer out;
    bool closed;  /* the host has hung up */
    bool blocked; /* the last flush could not write everything */
};

/* Buffers are made at once, and the part that every request uses is touched: in a guest the first
 * use of a page is dear, and this happens before the snapshot. Sets `fd` non-blocking. */
int port_init(struct port *p, int fd, struct error *e) __attribute__((warn_unused_result));
void port_fini(struct port *p);

/* Reads what has come, as far as there is room. At end of file `closed` is set. */
int port_fill(struct port *p, struct error *e) __attribute__((warn_unused_result));

/*
 * The next whole frame: 1, with a payload that stays valid until port_drop; 0 when more bytes are
 * needed; -1 when the bytes are no frame. port_drop removes that frame.
 */
int port_next(struct port *p, struct channel_header *ret_header, const uint8_t **ret_payload,
              struct error *e) __attribute__((warn_unused_result));
void port_drop(struct port *p, const struct channel_header *h);

bool port_has_room(const struct port *p);

/* A frame that is not DATA. */
void port_put(struct port *p, uint32_t stream, enum channel_type type, enum channel_lane lane,
              const void *payload, size_t size);

/*
 * A DATA frame, filled in place: `size` (at most CHANNEL_PAYLOAD_MAX) bytes to write to, of which
 * port_data_end() says how many (at least 1) became the payload. Not calling it drops the frame.
 * Frames of `before` bytes, headers included, must be put between the two calls.
 */
uint8_t *port_data_begin(struct port *p, size_t before, size_t size);
void port_data_end(struct port *p, uint32_t stream, enum channel_lane lane, size_t size);

/* Writes as much as the port takes now. */
int port_flush(struct port *p, struct error *e) __attribute__((warn_unused_result));
