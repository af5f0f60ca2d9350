/* The opening handshake of WebSocket (RFC 6455 section 4): what makes a request one, and the proof
 * in the answer that it was understood. */
#pragma once

#include "base/error.h"
#include "http/head.h"

#define WEBSOCKET_VERSION      "13"
#define WEBSOCKET_KEY_BYTES    25u /* base64 of 16 bytes, NUL included */
#define WEBSOCKET_ACCEPT_BYTES 29u /* base64 of a SHA-1, NUL included */

/*
 * Whether a request asks to become a WebSocket in the form that section 4.2.1 demands. Returns 0
 * with the key; -1 with ERR_UPGRADE_REQUIRED where it does not ask, or for another version, and
 * with ERR_BAD_REQUEST where it asks but is malformed.
 */
int websocket_request_check(const struct http_head *h, char ret_key[WEBSOCKET_KEY_BYTES],
                            struct error *e) __attribute__((nonnull, warn_unused_result));

/* The value of Sec-WebSocket-Accept for a key. */
void websocket_accept_of(const char *key, char ret_accept[WEBSOCKET_ACCEPT_BYTES]);

/* Whether a response of status 101 is the one to `key`: 0, or -1 with ERR_BAD_REQUEST. */
int websocket_response_check(const struct http_head *h, const char *key, struct error *e)
    __attribute__((nonnull, warn_unused_result));
