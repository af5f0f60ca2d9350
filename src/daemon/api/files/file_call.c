#include "daemon/api/files/file_call.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "cloche/limits.h"
#include "daemon/api/files/file_path.h"
#include "daemon/link/guest_call.h"
#include "daemon/server/exchange.h"

static void on_close(struct exchange *x)
{
    struct file_call *c = exchange_user(x);

    guest_call_abandon(c->guest);
    buffer_fini(&c->records);
    free(c);
}

/* The client has vanished: what takes its time in the guest is stopped. */
static void on_gone(struct exchange *x)
{
    struct file_call *c = exchange_user(x);

    guest_call_abandon(c->guest);
    c->guest = NULL;
    exchange_abort(x);
}

void *file_call_new(struct exchange *x, size_t size, const char *path, struct error *e)
{
    struct file_call *c = calloc(1, size);

    if (c == NULL) {
        (void)error_set(e, ERR_INTERNAL, "out of memory");
        return NULL;
    }
    c->exchange = x;
    (void)snprintf(c->path, sizeof(c->path), "%s", path);
    c->records = (struct buffer)BUFFER_INIT(FILE_RECORDS_BYTES_MAX);
    exchange_set_user(x, c);
    exchange_on_close(x, on_close);
    exchange_on_gone(x, on_gone);
    return c;
}

void file_call_accuse(struct file_call *c, const struct error *why)
{
    struct error e = ERROR_INIT;

    file_path_accuse(c->exchange, why, &e);
    exchange_reply_error(c->exchange, &e);
}

static void on_data(void *arg, const uint8_t *data, size_t size)
{
    struct file_call *c = arg;
    struct error e = ERROR_INIT;

    guest_call_consume(c->guest, size);
    bool has_room = exchange_hold(c->exchange, size, &e) == 0;
    if (has_room && buffer_append(&c->records, data, size) == 0)
        return;
    guest_call_abandon(c->guest);
    c->guest = NULL;
    if (!has_room) {
        exchange_reply_error(c->exchange, &e);
        return;
    }
    (void)error_set(&e, ERR_BAD_REQUEST, "more about files than it may say");
    file_call_accuse(c, &e);
}

static void on_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct file_call *c = arg;

    c->guest = NULL;
    if (why != NULL)
        exchange_reply_error(c->exchange, why);
    else
        c->on_done(c, end->flags);
}

int file_call_start(struct file_call *c, struct agent_link *link, enum channel_op op,
                    const char *verb, struct buffer *request,
                    void (*on_done)(struct file_call *c, uint32_t flags), struct error *e)
{
    static const struct guest_call_events events = {.on_data = on_data, .on_end = on_end};

    c->on_done = on_done;
    return guest_call_ask(exchange_loop(c->exchange), link, op, verb, c->path, request, &events, c,
                          &c->guest, e);
}
