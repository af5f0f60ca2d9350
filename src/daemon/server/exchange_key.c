#include "daemon/server/exchange_key.h"

#include <assert.h>
#include <sha2.h>
#include <stdlib.h>

#include "cloche/limits.h"
#include "daemon/server/exchange_private.h"
#include "daemon/server/idempotency.h"

struct exchange_keys {
    struct idempotency_table *table;
    uv_timer_t timer; /* when the oldest key is to be forgotten */
    void (*on_freed)(void *arg);
    void *arg;
};

/* The key of one exchange, which has it as its watch until it is finished. */
struct exchange_key {
    struct exchange_keys *keys;
    const char *name;
    SHA2_CTX sha256;                 /* of what is asked for */
    struct idempotency_entry *claim; /* from the body's end to the reply */
    void (*proceed)(struct exchange *x);
};

static uint64_t now_ms(const struct exchange_keys *keys)
{
    return uv_now(keys->timer.loop);
}

static void on_timer(uv_timer_t *timer);

/* The first of the keys may be a new one. */
static void watch_oldest(struct exchange_keys *keys)
{
    uint64_t due_ms = idempotency_expire(keys->table, now_ms(keys));

    if (due_ms != 0)
        (void)uv_timer_start(&keys->timer, on_timer, due_ms - now_ms(keys), 0);
}

static void on_timer(uv_timer_t *timer)
{
    watch_oldest(timer->data);
}

int exchange_keys_new(uv_loop_t *loop, struct exchange_keys **ret_keys, struct error *e)
{
    struct exchange_keys *keys = calloc(1, sizeof(*keys));

    if (keys == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    if (idempotency_table_new(&keys->table, e) != 0) {
        free(keys);
        return -1;
    }
    (void)uv_timer_init(loop, &keys->timer);
    keys->timer.data = keys;
    *ret_keys = keys;
    return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct exchange_keys *keys = handle->data;
    void (*on_freed)(void *arg) = keys->on_freed;
    void *arg = keys->arg;

    idempotency_table_free(keys->table);
    free(keys);
    if (on_freed != NULL)
        on_freed(arg);
}

void exchange_keys_free(struct exchange_keys *keys, void (*on_freed)(void *arg), void *arg)
{
    keys->on_freed = on_freed;
    keys->arg = arg;
    uv_close((uv_handle_t *)&keys->timer, on_timer_closed);
}

/* Piece by piece as it comes: a large body at once would keep the loop from everybody else. */
static void on_data(struct exchange *x, const void *data, size_t size)
{
    struct exchange_key *key = x->watch_arg;

    SHA256Update(&key->sha256, data, size);
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

/* All of the request is there: claims the key. */
static void on_body(struct exchange *x, const void *data, size_t size)
{
    struct exchange_key *key = x->watch_arg;
    struct idempotency_request request = {
        .method = exchange_method(x), .target = exchange_target(x), .key = key->name};
    const struct idempotency_reply *reply = NULL;
    struct error e = ERROR_INIT;

    (void)data; /* on_data has seen it */
    (void)size;
    SHA256Final(request.print, &key->sha256);
    if (idempotency_claim(key->keys->table, &request, now_ms(key->keys), &key->claim, &reply, &e) !=
        0)
        exchange_reply_error(x, &e);
    else if (reply != NULL)
        replay(x, reply);
    else
        key->proceed(x);
}

/* The end of the claim. */
static struct idempotency_entry *take_claim(struct exchange_key *key)
{
    struct idempotency_entry *claim = key->claim;

    assert(claim != NULL);
    key->claim = NULL;
    return claim;
}

/* Without a reply that says what was done. */
static void give_up_claim(struct exchange_key *key, const struct exchange *x)
{
    struct exchange_keys *keys = key->keys;

    if (x->match.route->key == ROUTE_ONCE && !x->undone)
        idempotency_spend(keys->table, take_claim(key), now_ms(keys), IDEMPOTENCY_BROKEN_OFF);
    else
        idempotency_forget(keys->table, take_claim(key));
}

static void on_reply(void *arg, struct exchange *x, int status, const char *content_type,
                     const void *data, size_t size)
{
    struct exchange_key *key = arg;
    struct exchange_keys *keys = key->keys;

    if (key->claim == NULL)
        return;
    if (status >= 200 && status < 300)
        idempotency_keep(keys->table, take_claim(key), now_ms(keys), status, content_type, data,
                         size);
    else if (status >= 500) /* ours, maybe when all was done but for the reply */
        give_up_claim(key, x);
    else
        idempotency_forget(keys->table, take_claim(key));
    watch_oldest(keys);
}

static void on_finish(void *arg, struct exchange *x)
{
    struct exchange_key *key = arg;
    struct exchange_keys *keys = key->keys;

    if (key->claim != NULL) {
        if (x->started)
            idempotency_spend(keys->table, take_claim(key), now_ms(keys), IDEMPOTENCY_STREAMED);
        else
            give_up_claim(key, x);
        watch_oldest(keys);
    }
    free(key);
}

int exchange_key_begin(struct exchange *x, struct exchange_keys *keys,
                       void (*proceed)(struct exchange *x), struct error *e)
{
    static const struct exchange_watch watch = {.on_reply = on_reply, .on_finish = on_finish};
    const char *name = exchange_header(x, "Idempotency-Key");

    if (name == NULL || x->match.route->key == ROUTE_NO_KEY) {
        proceed(x);
        return 0;
    }
    if (idempotency_check_key(name, e) != 0)
        return -1;
    struct exchange_key *key = calloc(1, sizeof(*key));
    if (key == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    key->keys = keys;
    key->name = name;
    key->proceed = proceed;
    x->watch = &watch;
    x->watch_arg = key;
    /* A client that wants a stream cannot read a reply that is not one. */
    const uint8_t form = exchange_accepts(x, NDJSON_TYPE);
    SHA256Init(&key->sha256);
    SHA256Update(&key->sha256, &form, 1);
    exchange_read_ahead(x, on_data, on_body);
    return 0;
}
