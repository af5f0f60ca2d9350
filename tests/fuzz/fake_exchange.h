/*
 * An exchange (daemon/server/exchange.h) without a connection: it keeps what
 * is written, and asserts that its owner keeps the contract. Linked in place of the server's.
 */
#pragma once

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/server/exchange.h"

#define FAKE_HEADERS_MAX 1024u

struct exchange {
    uv_loop_t loop;
    struct http_head head;
    void *user;
    void (*on_close)(struct exchange *x);
    void (*on_data)(struct exchange *x, const void *data, size_t size);
    void (*on_end)(struct exchange *x, const struct error *failure);
    void (*on_drain)(struct exchange *x);
    char headers[FAKE_HEADERS_MAX];
    bool is_upgraded, is_paused, is_over;
    size_t queued;
    struct buffer wire; /* all that was written */
};

extern struct exchange fake_exchange; /* there is one */
