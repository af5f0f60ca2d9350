/*
 * A WebSocket (RFC 6455) on an exchange, from the daemon's side. The frames are wslay's business;
 * what is kept here are the bounds: nothing of a binary message is held, a text message and what is
 * queued for the client are limited, and a client that neither sends nor answers a ping is cut.
 *
 * The socket takes the exchange over: its user pointer and its callbacks are used here. It ends
 * with on_close, whoever ends it: the client by closing or vanishing, a broken protocol (close
 * codes 1002, 1007, 1009, or none), or websocket_close(). No callback is made from inside a
 * function of this header.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct exchange;
struct websocket;

/* Close codes of RFC 6455 7.4.1, and nothing else of it. */
enum websocket_code {
    WEBSOCKET_NORMAL = 1000,
    WEBSOCKET_TOO_LARGE = 1009,
    WEBSOCKET_INTERNAL = 1011,
};

struct websocket_calls {
    /* A piece of a binary message; where one message ends and the next begins is not told. */
    void (*on_bytes)(void *arg, const uint8_t *data, size_t size);
    /* A whole text message, valid UTF-8, not NUL-terminated. */
    void (*on_text)(void *arg, const char *text, size_t size);
    /* Little is queued any more, after websocket_queued() was beyond HTTP_REPLY_QUEUE_LOW. */
    void (*on_room)(void *arg);
    /* The last call, exactly once: the pointer is dead when it returns. */
    void (*on_close)(void *arg);
};

/* Whether the request opens a WebSocket: 0, or -1 with the error to reply with, and the headers
 * that go with it are set. */
int websocket_check(struct exchange *x, struct error *e) __attribute__((warn_unused_result));

/*
 * Answers the opening handshake. Returns 0 and owns the exchange from then on; -1 as
 * websocket_check(), or where memory is short: then the exchange is still the caller's to reply to.
 * `ping_ms`: 0 is WEBSOCKET_PING_MS.
 */
int websocket_accept(struct exchange *x, uint32_t ping_ms, const struct websocket_calls *calls,
                     void *arg, struct websocket **ret_socket, struct error *e)
    __attribute__((warn_unused_result));

/* Queue a message. With more than WEBSOCKET_QUEUE_MAX queued, or memory short, the client is cut;
 * the owner stops before (websocket_queued) and goes on in on_room. */
void websocket_send_bytes(struct websocket *s, const void *data, size_t size);
void websocket_send_text(struct websocket *s, const char *text, size_t size);
size_t websocket_queued(const struct websocket *s);

/* Between the two little more comes: at most 2 * HTTP_UPGRADED_PIECE bytes that were on their way.
 */
void websocket_pause(struct websocket *s);
void websocket_resume(struct websocket *s);

/* Says goodbye behind what is queued, and ends. No on_bytes, on_text or on_room comes any more. */
void websocket_close(struct websocket *s, enum websocket_code code, const char *reason);
