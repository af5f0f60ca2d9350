/*
 * One client's connection: the state machine under server.h and exchange.h, private to them.
 *
 *   HEAD      between requests, or a head is coming        -> EXCHANGE, CLOSED
 *   EXCHANGE  a request is being handled, its reply sent   -> HEAD, SKIP, LINGER, CLOSED
 *   SKIP      the rest of a body that nobody read          -> HEAD, CLOSED
 *   LINGER    we have closed our side, after a refusal: what still comes is thrown away, so that
 *             the client gets to read the reply            -> CLOSED
 *   CLOSED    waits for the handles' close callbacks, then the memory goes
 *
 * All work happens in connection_advance, which runs steps until there is nothing to do and then
 * sets what to wait for. Functions of exchange.h only change state and, where they are not called
 * from a step, kick: the timer brings connection_advance at the next turn of the loop. So callbacks
 * never nest, and nothing is freed below a caller's feet.
 *
 * A client that is gone loses its descriptor at once (connection_cut), but the connection stays in
 * EXCHANGE until the handler has finished.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "base/buffer.h"
#include "base/error.h"
#include "http/chunked.h"
#include "http/head.h"

struct exchange;
struct server;

enum connection_phase {
    CONNECTION_HEAD,
    CONNECTION_EXCHANGE,
    CONNECTION_SKIP,
    CONNECTION_LINGER,
    CONNECTION_CLOSED
};

struct connection {
    struct server *server;
    LIST_ENTRY(connection) entry;
    enum connection_phase phase;
    int fd;
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned handles; /* open ones */
    int events;       /* what poll waits for */
    bool advancing;
    bool kicked;
    bool eof;         /* the client has closed its sending side and all bytes are in `in` */
    bool half_closed; /* the same, but bytes are left in the socket */
    bool broken;      /* the client is gone; not yet told */
    bool timed_out;   /* a deadline has passed; the step of the phase deals with it */

    struct buffer in;
    size_t scanned;      /* of the head that is coming */
    uint64_t read_ns;    /* CLOCK_MONOTONIC of the last read */
    uint64_t read_at_ms; /* loop time of the last progress in each direction */
    uint64_t sent_at_ms;
    uint64_t phase_since_ms; /* in HEAD: of the first byte, once there is one */

    /* The body of the current request. */
    enum http_framing framing;
    uint64_t body_left; /* with HTTP_BODY_LENGTH */
    struct http_chunked chunked;
    bool body_done;
    bool body_bad; /* its framing is lost: nothing behind it can be read */
    uint64_t skipped_bytes;

    struct buffer out;   /* heads and streamed bodies; sent before `whole` */
    struct buffer whole; /* a reply's body that was handed over in one piece */
    bool close_after;    /* the reply said that the connection ends with it */
    struct exchange *exchange;
};

/* Makes the connection for an accepted socket, which it owns, in HEAD or (one that was turned away)
 * in LINGER; -1 when that fails (the socket is closed then). */
int connection_new(struct server *s, int fd, enum connection_phase phase);

/* Runs the state machine. Not from inside a step. */
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

/* Closes a connection that has no exchange. */
void connection_close(struct connection *c);

/* Closes the descriptor of a client that is gone. */
void connection_cut(struct connection *c);

/*
 * The next piece of the request's body at the front of `in`. `*ret_used` bytes are to be consumed
 * when the piece has been dealt with. HTTP_DONE: that was all of it; HTTP_BAD: `e` is set.
 */
enum http_result connection_body_next(struct connection *c, struct http_span *ret_piece,
                                      size_t *ret_used, struct error *e);

/* One step of the current phase (connection_step.c); true when another may follow. */
bool connection_step(struct connection *c);

/* Loop time at which the current wait ends, or 0 for never (connection_step.c). */
uint64_t connection_deadline_ms(const struct connection *c);
