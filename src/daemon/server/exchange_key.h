/*
 * Idempotency-Key on the routes that have it (IETF draft httpapi-idempotency-key-header). The body
 * is read before the handler is called, because only both together say whether a request came
 * before: so handlers need not know of keys, and one that is not to be done again does not reach
 * them.
 *
 * A key is held from then until the handler has replied or given up. What the handler replied
 * counts, not what its client got to read: with the client gone in between, the reply is kept for
 * its next attempt.
 */
#pragma once

#include <uv.h>

#include "base/error.h"

struct exchange;
struct exchange_keys;

/* The keys of a server (idempotency.h), and the timer by which the oldest are forgotten. */
int exchange_keys_new(uv_loop_t *loop, struct exchange_keys **ret_keys, struct error *e)
    __attribute__((nonnull, warn_unused_result));

/* No exchange may be left that has one. `on_freed`, which may be NULL, is called from
 * the loop. */
void exchange_keys_free(struct exchange_keys *keys, void (*on_freed)(void *arg), void *arg);

/*
 * The request's route is known. Calls `proceed` when the request is to be handled: at once where it
 * has no key, else when its body has come and the key is a new one. What came before is replied to
 * here. -1 with ERR_INVALID_FIELD for what is no key.
 */
int exchange_key_begin(struct exchange *x, struct exchange_keys *keys,
                       void (*proceed)(struct exchange *x), struct error *e)
    __attribute__((nonnull, warn_unused_result));
