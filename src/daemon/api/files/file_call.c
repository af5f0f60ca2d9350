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
    struct file_call *call = exchange_user(x);

    guest_call_abandon(call->guest);
    buffer_fini(&call->records);
    free(call);
}

/* The client has vanished: what takes its time in the guest is stopped. */
static void on_gone(struct exchange *x)
{
    struct file_call *call = exchange_user(x);

    guest_call_abandon(call->guest);
    call->guest = NULL;
    exchange_abort(x);
}

void *file_call_new(struct exchange *x, size_t size, const char *path, struct error *e)
{
    struct file_call *call = calloc(1, size);

    if (call == NULL) {
        (void)error_set(e, ERR_INTERNAL, "out of memory");
        return NULL;
    }
    call->exchange = x;
    (void)snprintf(call->path, sizeof(call->path), "%s", path);
    call->records = (struct buffer)BUFFER_INIT(FILE_RECORDS_BYTES_MAX);
    exchange_set_user(x, call);
    exchange_on_close(x, on_close);
    exchange_on_gone(x, on_gone);
    return call;
}

void file_call_accuse(struct file_call *call, const struct error *why)
{
    struct error e = ERROR_INIT;

    file_path_accuse(call->exchange, why, &e);
    exchange_reply_error(call->exchange, &e);
}

static void on_data(void *arg, const uint8_t *data, size_t size)
{
    struct file_call *call = arg;
    struct error e = ERROR_INIT;

    guest_call_consume(call->guest, size);
    bool has_room = exchange_hold(call->exchange, size, &e) == 0;
    if (has_room && buffer_append(&call->records, data, size) == 0)
        return;
    guest_call_abandon(call->guest);
    call->guest = NULL;
    if (!has_room) {
        exchange_reply_error(call->exchange, &e);
        return;
    }
    (void)error_set(&e, ERR_BAD_REQUEST, "more about files than it may say");
    file_call_accuse(call, &e);
}

static void on_end(void *arg, const struct error *why, const struct agent_end *end)
{
    struct file_call *call = arg;

    call->guest = NULL;
    if (why != NULL)
        exchange_reply_error(call->exchange, why);
    else
        call->on_done(call, end->flags);
}

int file_call_start(struct file_call *call, struct agent_link *link, enum channel_op op,
                    const char *verb, struct buffer *request,
                    void (*on_done)(struct file_call *call, uint32_t flags), struct error *e)
{
    static const struct guest_call_events events = {.on_data = on_data, .on_end = on_end};

    call->on_done = on_done;
    return guest_call_ask(exchange_loop(call->exchange), link, op, verb, call->path, request,
                          &events, call, &call->guest, e);
}
