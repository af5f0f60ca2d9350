/*
 * An exchange: one request and its reply, as handlers see it.
 *
 * A handler is called when the request's head has come. From then on it owes a reply: one of
 * exchange_reply*, or exchange_start ... exchange_end, or exchange_abort, now or from any later
 * callback of the loop. `x` stays valid until the reply is finished by one of these, whatever
 * happens to the client in between, and a little longer, until on_close has run; on a client that
 * is gone every call is harmless and does nothing. The exception is exchange_read_whole: until its
 * callback runs, the server answers failures itself.
 *
 * Two headers are the server's own business. Request-Timeout: when the time is over, the handler
 * sees its client go, and the client is told why. Idempotency-Key, on routes that have it: a
 * request that came before never gets to a handler.
 *
 * No callback is ever called from inside a function of this header; they come from the loop.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "daemon/server/router.h"
#include "http/head.h"

struct buffer;
struct exchange;
struct json_writer;

/* A streamed reply of JSON objects, each a line. One that is cut ends with a record
 * {"type":"error","error":{...}}. */
#define NDJSON_TYPE "application/x-ndjson"

/* -- The request. Strings live as long as the exchange. */

void *exchange_context(const struct exchange *x); /* what server_options.context was */
uv_loop_t *exchange_loop(const struct exchange *x);
const char *exchange_method(const struct exchange *x);
bool exchange_is_head(const struct exchange *x);       /* HEAD: the body of the reply is dropped */
const char *exchange_target(const struct exchange *x); /* as it came, for logs */
/* A parameter of the route's pattern, decoded; the route must have it. */
const char *exchange_param(const struct exchange *x, const char *name);
/* The first query parameter of that name, decoded, or NULL. */
const char *exchange_query(const struct exchange *x, const char *name);
/* All of them, in their order; `*ret_count` may be 0. */
const struct http_query *exchange_queries(const struct exchange *x, size_t *ret_count);
/* The request's whole head. */
const struct http_head *exchange_head(const struct exchange *x);
/* The value of a header, or NULL; the first where a list header came several times. */
const char *exchange_header(const struct exchange *x, const char *name);
/* Whether Accept names this media type word by word (quality 0 excepted; wildcards do not count).
 */
bool exchange_accepts(const struct exchange *x, const char *media_type);
/* The client's X-Request-Id where it is well-formed, else one of ours; every reply carries it. */
const char *exchange_request_id(const struct exchange *x);
/* CLOCK_MONOTONIC of the read that completed the head. */
uint64_t exchange_arrival_ns(const struct exchange *x);

/* Checks the query's names against a NULL-terminated list: ERR_UNKNOWN_FIELD for one that is not
 * in it, ERR_INVALID_FIELD for one that came twice, unless the list has it as "name*". */
int exchange_check_query(const struct exchange *x, const char *const *names, struct error *e)
    __attribute__((nonnull, warn_unused_result));

/* A parameter as a decimal number from `min` to `max`, or as true or false. Where it is absent
 * *ret_value stays as it is. Returns 0, or -1 with ERR_INVALID_FIELD. */
int exchange_query_number(const struct exchange *x, const char *name, uint32_t min, uint32_t max,
                          uint32_t *ret_value, struct error *e)
    __attribute__((nonnull, warn_unused_result));
int exchange_query_bool(const struct exchange *x, const char *name, bool *ret_value,
                        struct error *e) __attribute__((nonnull, warn_unused_result));

/* The handler's own pointer for this exchange. */
void exchange_set_user(struct exchange *x, void *user);
void *exchange_user(const struct exchange *x);

/*
 * `on_gone` is called at most once, when the client has vanished (or was cut off: a reader that
 * stalled, the end of a graceful stop; or has its answer: the request's time is over) before the
 * reply was finished. The handler stops its work and still finishes the exchange, e.g. with
 * exchange_abort, then or later. A client that only closed its sending side is not gone.
 */
void exchange_on_gone(struct exchange *x, void (*on_gone)(struct exchange *x));

/* `on_close` is called exactly once, as the last thing, for every exchange whose handler was
 * called: the reply was finished and handed to the kernel, or the client is gone. The place to
 * free the user pointer. */
void exchange_on_close(struct exchange *x, void (*on_close)(struct exchange *x));

/* -- The request's body. A handler calls one of the two readers at most once, or neither: the
 * server skips a body that nobody reads. A client that waits for "100 Continue" gets it here. */

#define EXCHANGE_LENGTH_UNKNOWN UINT64_MAX

/* What Content-Length says; 0 without a body, EXCHANGE_LENGTH_UNKNOWN for a chunked one. */
uint64_t exchange_body_length(const struct exchange *x);

/*
 * Reads the whole body and then calls `on_body` once; `data` is valid during the call (and not NULL
 * even for an empty body). A body larger than `size_max` gets 413 (by Content-Length before a byte
 * is read), a broken or stalled one its error, all bodies together more than HTTP_BODIES_BYTES_MAX
 * 503; in these cases the server replies itself and `on_body` is never called.
 */
void exchange_read_whole(struct exchange *x, uint64_t size_max,
                         void (*on_body)(struct exchange *x, const void *data, size_t size));

/*
 * Reads the body in pieces: `on_data` for each (valid during the call), then `on_end` once, with
 * NULL when the body is complete, else with what went wrong: too large (ERR_TOO_LARGE, with a
 * Content-Length before the first piece), broken, stalled, or the client gone (then on_gone is not
 * called as well). The handler still owes its reply: exchange_reply_error(x, failure) is right.
 */
void exchange_read_stream(struct exchange *x, uint64_t size_max,
                          void (*on_data)(struct exchange *x, const void *data, size_t size),
                          void (*on_end)(struct exchange *x, const struct error *failure));

/* No on_data (and no on_end) between the two. May be called from on_data. */
void exchange_pause(struct exchange *x);
void exchange_resume(struct exchange *x);

/* Nothing of the request was done, and its reply will say so: with the same Idempotency-Key it may
 * come again, whatever the reply's status. */
void exchange_set_undone(struct exchange *x);

/* -- The reply. Exactly one: finished by a exchange_reply*, exchange_end or exchange_abort. */

/* Adds a header to the reply; before it starts. The ones that frame the message, Content-Type and
 * X-Request-Id are the server's. */
void exchange_set_header(struct exchange *x, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Says that the handler has `bytes` more in memory for its reply, which count until the exchange
 * closes. 0, or -1 with ERR_NO_CAPACITY where all exchanges together would have more than
 * HTTP_REPLIES_BYTES_MAX: the handler then drops them, and says so instead of replying.
 */
int exchange_hold(struct exchange *x, uint64_t bytes, struct error *e)
    __attribute__((warn_unused_result));

/* A whole reply. `data` is copied. */
void exchange_reply(struct exchange *x, int status, const char *content_type, const void *data,
                    size_t size);
/* The content moves out of `body` (which is empty afterwards, as after buffer_fini). */
void exchange_reply_buffer(struct exchange *x, int status, const char *content_type,
                           struct buffer *body);
/* A JSON reply from a writer's buffer, which moves out of it; ERR_INTERNAL where it did not fit. */
void exchange_reply_written(struct exchange *x, int status, const struct json_writer *w);
/* 204 */
void exchange_reply_empty(struct exchange *x);
/* The error as JSON with its status; Retry-After with 429 and 503 (1 s, unless the handler set the
 * header). Once the reply has started it cannot be told any more: the connection is cut. */
void exchange_reply_error(struct exchange *x, const struct error *e);

/*
 * Streamed: start, any number of writes, end. `length` is the body's, or EXCHANGE_LENGTH_UNKNOWN
 * for a chunked reply (a client of HTTP/1.0 gets 505 for that, as it could not tell a reply that
 * was cut). Written bytes that the client has not yet taken are queued: a handler stops writing
 * when exchange_queued passes what it likes and goes on in on_drain, which is called whenever the
 * queue falls to HTTP_REPLY_QUEUE_LOW or below. More than HTTP_REPLY_QUEUE_MAX, or than `length`,
 * are refused with -1; the handler aborts then.
 */
void exchange_start(struct exchange *x, int status, const char *content_type, uint64_t length,
                    void (*on_drain)(struct exchange *x));
bool exchange_started(const struct exchange *x); /* or replied */
int exchange_write(struct exchange *x, const void *data, size_t size)
    __attribute__((warn_unused_result));
size_t exchange_queued(const struct exchange *x);
/* Ends a streamed reply. With fewer bytes than `length` it is an abort. */
void exchange_end(struct exchange *x);

/*
 * Turns the connection into a stream of bytes both ways: sends 101 with `protocol` as Upgrade and
 * the headers that were set, after which exchange_write, _queued, _end and `on_drain` are as for a
 * streamed reply, and the connection closes at its end. What the client sends comes as `on_data`,
 * in pieces of at most HTTP_UPGRADED_PIECE; exchange_pause holds it back. `on_end` is called once:
 * with NULL when the client has closed its sending side, else with why nothing more comes. The
 * client may be silent for as long as it likes; one that takes nothing for HTTP_BODY_STALL_MS is
 * cut. Only for a request without a body whose body was not read.
 */
void exchange_upgrade(struct exchange *x, const char *protocol,
                      void (*on_data)(struct exchange *x, const void *data, size_t size),
                      void (*on_end)(struct exchange *x, const struct error *failure),
                      void (*on_drain)(struct exchange *x));

/* Finishes without a (whole) reply: cuts the connection, so that the client sees a truncated one.
 */
void exchange_abort(struct exchange *x);
