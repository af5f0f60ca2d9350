#include "daemon/api/files/file_call.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cloche/limits.h"
#include "daemon/api/common/api.h"
#include "daemon/link/guest_call.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/server/exchange.h"

int file_call_query_path(const struct exchange *x, const char **ret_path, struct error *e)
{
    const char *path = exchange_query(x, "path");

    if (path == NULL) {
        (void)error_set(e, ERR_INVALID_PATH, "the query has no path");
        return error_remedy(e, "Name the file, as in files?path=/workspace/data.csv.");
    }
    *ret_path = path;
    return 0;
}

int file_call_take_path(const char *path, size_t size, char ret_path[CHANNEL_PATH_MAX],
                        struct error *e)
{
    while (size > 1 && path[size - 1] == '/')
        size--;
    if (size == 1 && path[0] == '/') {
        memcpy(ret_path, "/", 2);
        return 0;
    }
    if (size >= CHANNEL_PATH_MAX)
        return guest_call_check_path(path, size, e);
    /* A copy that ends where the path does: the check reads up to a NUL. */
    char checked[CHANNEL_PATH_MAX];
    memcpy(checked, path, size);
    checked[size] = '\0';
    if (guest_call_check_path(checked, size, e) != 0)
        return -1;
    memcpy(ret_path, checked, size + 1);
    return 0;
}

static void on_close(struct exchange *x)
{
    struct file_call *c = exchange_user(x);

    guest_call_abandon(c->file);
    buffer_fini(&c->records);
    free(c);
}

/* The client has vanished: what takes its time in the guest is stopped. */
static void on_gone(struct exchange *x)
{
    struct file_call *c = exchange_user(x);

    guest_call_abandon(c->file);
    c->file = NULL;
    exchange_abort(x);
}

struct file_call *file_call_new(struct exchange *x, struct error *e)
{
    if (api_sandbox(x, e) == NULL)
        return NULL;
    struct file_call *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        (void)error_set(e, ERR_INTERNAL, "out of memory");
        return NULL;
    }
    c->exchange = x;
    c->records = (struct buffer)BUFFER_INIT(FILE_RECORDS_BYTES_MAX);
    exchange_set_user(x, c);
    exchange_on_close(x, on_close);
    exchange_on_gone(x, on_gone);
    return c;
}

void file_call_accuse(struct file_call *c, const struct error *why)
{
    struct error ignored = ERROR_INIT, e = ERROR_INIT;
    struct sandbox *s = api_sandbox(c->exchange, &ignored);

    if (s != NULL)
        agent_link_accuse(sandbox_agent(s), why->message);
    (void)error_set(&e, ERR_SANDBOX_GONE, "the sandbox's agent broke its protocol");
    (void)error_cause(&e, "%.200s", why->message);
    exchange_reply_error(c->exchange, &e);
}

static void on_data(void *arg, const uint8_t *data, size_t size)
{
    struct file_call *c = arg;
    struct error e = ERROR_INIT;

    guest_call_consume(c->file, size);
    bool has_room = exchange_hold(c->exchange, size, &e) == 0;
    if (has_room && buffer_append(&c->records, data, size) == 0)
        return;
    guest_call_abandon(c->file);
    c->file = NULL;
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

    c->file = NULL;
    if (why != NULL)
        exchange_reply_error(c->exchange, why);
    else
        c->on_done(c, end->flags);
}

int file_call_start(struct file_call *c, enum channel_op op, const char *verb,
                    struct buffer *request, void (*on_done)(struct file_call *c, uint32_t flags),
                    struct error *e)
{
    static const struct guest_call_events calls = {.on_data = on_data, .on_end = on_end};
    struct exchange *x = c->exchange;
    struct sandbox *s = api_sandbox(x, e);

    if (s == NULL)
        return -1;
    c->on_done = on_done;
    return guest_call_ask(exchange_loop(x), sandbox_agent(s), op, verb, c->path, request, &calls, c,
                          &c->file, e);
}
