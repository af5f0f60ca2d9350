/*
 * A WebSocket to the daemon, from the client's side: what goes out is queued here and sent as the
 * daemon takes it, what comes in is handed to callbacks. The caller does the waiting.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "cli/client/client.h"

/* Callbacks return 0, or -1 with `e` set, which client_websocket_receive() returns then. */
struct client_websocket_calls {
    int (*on_bytes)(void *arg, const uint8_t *data, size_t size, struct error *e);
    int (*on_text)(void *arg, const char *text, size_t size, struct error *e); /* a whole one */
};

struct client_websocket {
    struct client *client;
    const struct client_websocket_calls *calls;
    void *arg;
    struct wslay_event_context *wslay;
    struct buffer text; /* a message that is coming */
    bool is_text;
    bool is_control;
    bool is_over;    /* the daemon has closed */
    struct error *e; /* of the call that is under way; set: it failed */
    bool has_failed;
};

/* Opens `target` as a WebSocket over a client that is connected, which outlives the WebSocket. */
int client_websocket_open(struct client_websocket *s, struct client *c, const char *target,
                          const struct client_websocket_calls *calls, void *arg, struct error *e)
    __attribute__((warn_unused_result));
/* Accepts a zeroed one. */
void client_websocket_close(struct client_websocket *s);

/* Takes what has come, without waiting. Returns 0, or -1 with `e` set; `is_over` is set at the end.
 */
int client_websocket_receive(struct client_websocket *s, struct error *e)
    __attribute__((warn_unused_result));

/* Queue a message, and send what the daemon takes without waiting. */
int client_websocket_send_bytes(struct client_websocket *s, const void *data, size_t size,
                                struct error *e) __attribute__((warn_unused_result));
int client_websocket_send_text(struct client_websocket *s, const char *text, size_t size,
                               struct error *e) __attribute__((warn_unused_result));
/* Says goodbye behind what is queued. */
int client_websocket_send_close(struct client_websocket *s, struct error *e)
    __attribute__((warn_unused_result));
/* Whether something is queued: then wait for the descriptor to be writable, too. */
bool client_websocket_is_behind(const struct client_websocket *s);
