/* The exchange as its connection sees it. */
#pragma once

#include <sha2.h>

#include "base/buffer.h"
#include "daemon/server/connection.h"
#include "daemon/server/exchange.h"

/* READER_AHEAD is the server's: it reads the body before the handler is called, and for it. */
enum exchange_reader { READER_NONE, READER_AHEAD, READER_WHOLE, READER_STREAM };

struct idempotency_entry;

struct exchange {
    struct connection *connection;
    void *user;

    char *head_text; /* the head's bytes, in which names and values have become C strings */
    struct http_head head;
    struct http_target target;
    struct route_match match;
    char request_id[HTTP_REQUEST_ID_MAX];
    uint64_t arrival_ns;

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

    const char *key;                 /* Idempotency-Key, on a route that has it */
    SHA2_CTX sha256;                 /* READER_AHEAD: of what is asked for */
    struct idempotency_entry *claim; /* from the body's end to the reply */
    bool undone;                     /* the handler has left nothing behind */
    uint64_t timeout_ms;             /* Request-Timeout; 0: none */
    bool late;                       /* it is over: nothing from the handler counts any more */

    bool gone;     /* the handler knows, or need not know */
    bool started;  /* the reply's head is written */
    bool finished; /* by the handler: nothing more comes from it */
    bool discard;  /* what is written of the body is dropped */
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

/* An exchange for the request whose head was parsed at `data`, or, with NULL, for one that could
 * not be read. NULL when memory is short. */
struct exchange *exchange_new(struct connection *c, const struct http_head *head, const char *data);
void exchange_free(struct exchange *x);

/* Calls the handler of the request's route, or replies that there is none. */
void exchange_dispatch(struct exchange *x);

/* From here on all that the client sends is the body (exchange_body.c). */
void exchange_read_upgraded(struct exchange *x,
                            void (*on_data)(struct exchange *x, const void *data, size_t size),
                            void (*on_end)(struct exchange *x, const struct error *failure));

/* Moves the reading of the body on by one callback; true when it did (exchange_body.c). */
bool exchange_body_step(struct exchange *x);
/* Reads the body whole, then calls exchange_key_claim; the body stays for the handler. */
void exchange_read_ahead(struct exchange *x);
/* Whether bytes of the body are waited for, and must not stall. */
bool exchange_body_wanted(const struct exchange *x);
/* Ends the reading with an error, which the handler or the client gets. */
void exchange_body_fail(struct exchange *x, const struct error *failure);

/* Ends the exchange from the handler's side. */
void exchange_finish(struct exchange *x);

/* Drops the part of a body that is being read whole. */
void exchange_body_drop(struct exchange *x);

/* Tells the handler, once, that the client is gone. */
void exchange_tell_gone(struct exchange *x);

/* Idempotency-Key (exchange_key.c): the request's route has it. Reads the header; sets x->key. */
int exchange_key_read(struct exchange *x, struct error *e) __attribute__((warn_unused_result));
/* Reads the body ahead, and with it the key's request. */
void exchange_key_begin(struct exchange *x);
void exchange_key_data(struct exchange *x, const void *data, size_t size);
/* The body has been read: calls the handler, or replies without it. */
void exchange_key_claim(struct exchange *x);
/* The handler replies, whether its client is there or not. */
void exchange_key_reply(struct exchange *x, int status, const char *content_type, const void *data,
                        size_t size);
/* The exchange ends, and exchange_key_reply may not have been called. */
void exchange_key_finish(struct exchange *x);

/* Request-Timeout (exchange_deadline.c): reads the header; sets x->timeout_ms. */
int exchange_deadline_read(struct exchange *x, struct error *e) __attribute__((warn_unused_result));
/* Loop time at which it is over, or 0 for never. */
uint64_t exchange_deadline_ms(const struct exchange *x);
/* It is over: stops the handler's work, and tells the client. */
void exchange_expire(struct exchange *x);

/* Answers in the handler's place, for which the client is gone (exchange_reply.c): with the error,
 * or, where the reply `was_started`, with it as the last record, or with a cut. */
void exchange_reply_late(struct exchange *x, const struct error *e, bool was_started);
