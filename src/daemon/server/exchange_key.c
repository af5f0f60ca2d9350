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
#include <assert.h>

#include "cloche/limits.h"
#include "daemon/server/exchange_private.h"
#include "daemon/server/server_private.h"

int exchange_key_read(struct exchange *x, struct error *e)
{
    const char *key = exchange_header(x, "Idempotency-Key");

    if (key == NULL || x->match.route->key == ROUTE_NO_KEY)
        return 0;
    x->key = key;
    return idempotency_check_key(key, e);
}

static uint64_t now_ms(const struct exchange *x)
{
    return uv_now(exchange_loop(x));
}

static void replay(struct exchange *x, const struct idempotency_reply *reply)
{
    const char *type = reply->content_type[0] != '\0' ? reply->content_type : NULL;

    exchange_set_header(x, "Idempotency-Replayed", "true");
    if (reply->status == 204)
        exchange_reply_empty(x);
    else
        exchange_reply(x, reply->status, type, reply->data, reply->size);
}

void exchange_key_begin(struct exchange *x)
{
    /* A client that wants a stream cannot read a reply that is none. */
    const uint8_t form = exchange_accepts(x, NDJSON_TYPE);

    SHA256Init(&x->sha256);
    SHA256Update(&x->sha256, &form, 1);
    exchange_read_ahead(x);
}

/* Piece by piece as it comes: a large body at once would keep the loop from everybody else. */
void exchange_key_data(struct exchange *x, const void *data, size_t size)
{
    SHA256Update(&x->sha256, data, size);
}

void exchange_key_claim(struct exchange *x)
{
    struct idempotency_request request = {
        .method = exchange_method(x), .target = exchange_target(x), .key = x->key};
    const struct idempotency_reply *reply = NULL;
    struct error e = ERROR_INIT;

    SHA256Final(request.print, &x->sha256);
    if (idempotency_claim(x->connection->server->keys, &request, now_ms(x), &x->claim, &reply,
                          &e) != 0)
        exchange_reply_error(x, &e);
    else if (reply != NULL)
        replay(x, reply);
    else
        x->match.route->handler(x);
}

void exchange_set_undone(struct exchange *x)
{
    x->undone = true;
}

/* The end of the claim. */
static struct idempotency_entry *take_claim(struct exchange *x)
{
    struct idempotency_entry *claim = x->claim;

    assert(claim != NULL);
    x->claim = NULL;
    return claim;
}

/* Without a reply that says what was done. */
static void give_up_claim(struct exchange *x)
{
    struct server *s = x->connection->server;

    if (x->match.route->key == ROUTE_ONCE && !x->undone)
        idempotency_spend(s->keys, take_claim(x), now_ms(x), IDEMPOTENCY_BROKEN_OFF);
    else
        idempotency_forget(s->keys, take_claim(x));
}

void exchange_key_reply(struct exchange *x, int status, const char *content_type, const void *data,
                        size_t size)
{
    struct server *s = x->connection->server;

    if (x->claim == NULL)
        return;
    if (status >= 200 && status < 300)
        idempotency_keep(s->keys, take_claim(x), now_ms(x), status, content_type, data, size);
    else if (status >= 500) /* ours, maybe when all was done but for the reply */
        give_up_claim(x);
    else
        idempotency_forget(s->keys, take_claim(x));
    server_watch_keys(s);
}

void exchange_key_finish(struct exchange *x)
{
    struct server *s = x->connection->server;

    if (x->claim == NULL)
        return;
    if (x->started)
        idempotency_spend(s->keys, take_claim(x), now_ms(x), IDEMPOTENCY_STREAMED);
    else
        give_up_claim(x);
    server_watch_keys(s);
}
