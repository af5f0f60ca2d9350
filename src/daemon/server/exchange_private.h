/*
 * The exchange as the server's own files see it. They lean one way only:
 *
 *   conversation > dispatch > exchange_key, exchange_deadline > exchange_body > exchange_reply
 *                > exchange_request > connection
 *
 * What stands lower speaks to what stands higher through callbacks that it was given.
 */
#pragma once

#include "base/buffer.h"
#include "daemon/server/connection.h"
#include "daemon/server/exchange.h"
#include "daemon/server/service.h"

/* READER_AHEAD is the server's: it reads the body before the handler is called, and for it. */
enum exchange_reader { READER_NONE, READER_AHEAD, READER_WHOLE, READER_STREAM };

/* One who wants to know how an exchange ends. */
struct exchange_watch {
    /* The handler replies, whether its client is there or not. */
    void (*on_reply)(void *arg, struct exchange *x, int status, const char *content_type,
                     const void *data, size_t size);
    /* The exchange is finished, with a whole reply or not: the last call. */
    void (*on_finish)(void *arg, struct exchange *x);
};

struct exchange {
    const struct service *service;
    struct connection *connection;
    void *user;

    char *head_text; /* the head's bytes, in which names and values have become C strings */
    struct http_head head;
    struct http_target target;
    struct route_match match;
    char request_id[HTTP_REQUEST_ID_MAX];
    uint64_t arrival_ns;
    uint64_t begun_ms; /* loop time */

    void (*on_gone)(struct exchange *x);
    void (*on_close)(struct exchange *x);

    enum exchange_reader reader;
    bool read_called;
    bool continue_pending; /* the client may be waiting for our 100 and send no body without it */
    bool paused;
    uint64_t read_max;
    uint64_t read_bytes;
    struct buffer body; /* READER_AHEAD, READER_WHOLE */
    struct error failure;
    void (*on_body)(struct exchange *x, const void *data, size_t size);
    void (*on_data)(struct exchange *x, const void *data, size_t size);
    void (*on_end)(struct exchange *x, const struct error *failure);

    const struct exchange_watch *watch; /* or NULL */
    void *watch_arg;
    bool undone;         /* the handler has left nothing behind */
    uint64_t timeout_ms; /* Request-Timeout; 0: there is none */
    bool late;           /* it is over: nothing from the handler counts any more */

    bool gone;        /* the handler knows, or need not know */
    bool started;     /* the reply's head is written */
    bool finished;    /* by the handler: nothing more comes from it */
    bool discard;     /* what is written of the body is dropped */
    bool close_after; /* the reply said that the connection ends with it */
    bool chunked;
    bool upgraded;
    bool is_records; /* NDJSON */
    bool in_record;  /* the last byte written was not a record's end */
    bool drain_wanted;
    bool has_retry_after;
    uint64_t length_left;
    uint64_t held_bytes; /* exchange_hold: charged to the budget */
    struct buffer headers;
    void (*on_drain)(struct exchange *x);
};

/* -- exchange_reply.c */

/* Ends the exchange from the handler's side. */
void exchange_finish(struct exchange *x);

/* Begins the reply that makes the connection a stream of bytes both ways. */
void exchange_start_upgrade(struct exchange *x, const char *protocol,
                            void (*on_drain)(struct exchange *x));

/* Answers in the handler's place, for which the client is gone: with the error, or, where the reply
 * `was_started`, with it as the last record, or with a cut. */
void exchange_reply_late(struct exchange *x, const struct error *e, bool was_started);

/* -- exchange_body.c */

/* Moves the reading of the body on by one callback; true when it did. */
bool exchange_body_step(struct exchange *x);

/* Whether bytes of the body are waited for, and must not stall. */
bool exchange_body_wanted(const struct exchange *x);

/* Ends the reading with an error, which the handler or the client gets. */
void exchange_body_fail(struct exchange *x, const struct error *failure);

/* Drops the part of a body that is being read whole. */
void exchange_body_drop(struct exchange *x);

/* Reads the body whole for the server: `on_data` for each piece, then `on_body`, after which it
 * stays for the handler to ask for as if it had not been read. */
void exchange_read_ahead(struct exchange *x,
                         void (*on_data)(struct exchange *x, const void *data, size_t size),
                         void (*on_body)(struct exchange *x, const void *data, size_t size));

/* Tells the handler, once, that the client is gone. */
void exchange_tell_gone(struct exchange *x);
