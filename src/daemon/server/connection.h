/*
 * One client's connection: its socket, what has come and not been handled, what is to be sent. What
 * the bytes mean is its owner's business, which it calls back through a table.
 *
 * All work happens in connection_advance, which has the owner take steps until there is nothing to
 * do and then sets what to wait for. Functions of this header only change state and, where they are
 * not called from a step, kick: the timer brings connection_advance at the next turn of the loop.
 * So callbacks never nest, and nothing is freed below a caller's feet.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/buffer.h"
#include "base/error.h"
#include "http/chunked.h"
#include "http/head.h"

struct connection;

/* So much is asked for at once while no body is expected: most heads are small, and most
 * connections idle. */
#define CONNECTION_READ_HEAD 4096u

struct connection_owner {
    /* Deals with what has come or changed; true when another step may follow. */
    bool (*step)(struct connection *c);
    /* Loop time at which the current wait ends, or 0 for never. */
    uint64_t (*deadline_ms)(const struct connection *c);
    /* The last call, after connection_close: the memory is the owner's again. */
    void (*on_closed)(struct connection *c);
};

/* Embedded in its owner's own struct. */
struct connection {
    const struct connection_owner *owner;
    uv_loop_t *loop;
    int fd; /* -1: the client is gone */
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned handles; /* open ones */
    int events;       /* what poll waits for */
    bool advancing;
    bool kicked;
    bool closed;      /* waits for the handles' close callbacks */
    bool eof;         /* the client has closed its sending side and all bytes are in `in` */
    bool half_closed; /* the same, but bytes are left in the socket */
    bool broken;      /* the client is gone, or to be cut off; not yet told */
    bool timed_out;   /* a deadline has passed; for the owner to deal with and reset */

    struct buffer in;
    size_t read_max;     /* asked for at once; the owner's to set */
    uint64_t read_ns;    /* CLOCK_MONOTONIC of the last read */
    uint64_t read_at_ms; /* loop time of the last progress in each direction */
    uint64_t sent_at_ms;

    /* The body of the current request. */
    enum http_framing framing;
    uint64_t body_left; /* with HTTP_BODY_LENGTH */
    struct http_chunked chunked;
    bool body_done;
    bool body_bad; /* its framing is lost: nothing behind it can be read */

    struct buffer out;   /* heads and streamed bodies; sent before `whole` */
    struct buffer whole; /* a reply's body that was handed over in one piece */
};

/* Opens a connection on an accepted socket, which it owns from then on; asks its owner for a
 * deadline at once. -1 when that fails: the socket is closed then, and nothing was called. */
int connection_open(struct connection *c, const struct connection_owner *owner, uv_loop_t *loop,
                    int fd) __attribute__((nonnull, warn_unused_result));

/* Takes steps. Not from inside one. */
void connection_advance(struct connection *c);

/* Has connection_advance run soon. From anywhere. */
void connection_kick(struct connection *c);

/* The client is to be cut off: what is queued is dropped. Takes effect in connection_advance. */
void connection_break(struct connection *c);

/* Sends what the socket takes. A failure shows up as `broken`. */
void connection_flush(struct connection *c);
size_t connection_queued(const struct connection *c);
/* Where to append what is to be sent. */
struct buffer *connection_out(struct connection *c);

/* Closes the descriptor of a client that is gone, and drops what is buffered. */
void connection_cut(struct connection *c);

/* Cuts, and ends the connection: on_closed follows from the loop. Once. */
void connection_close(struct connection *c);

/* A request begins whose head says this about its body. */
void connection_body_begin(struct connection *c, const struct http_head *head);

/*
 * The next piece of the request's body at the front of `in`. `*ret_used` bytes are to be consumed
 * when the piece has been dealt with. HTTP_DONE: that was all of it; HTTP_BAD: `e` is set.
 */
enum http_result connection_body_next(struct connection *c, struct http_span *ret_piece,
                                      size_t *ret_used, struct error *e);
