#include "tests/fuzz/fake_exchange.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct exchange fake_exchange;

uv_loop_t *exchange_loop(const struct exchange *x)
{
    (void)x;
    return &fake_exchange.loop;
}

const struct http_head *exchange_head(const struct exchange *x)
{
    return &x->head;
}

void exchange_set_user(struct exchange *x, void *user)
{
    x->user = user;
}

void *exchange_user(const struct exchange *x)
{
    return x->user;
}

void exchange_on_gone(struct exchange *x, void (*on_gone)(struct exchange *x))
{
    assert(x == &fake_exchange && on_gone == NULL);
}

void exchange_on_close(struct exchange *x, void (*on_close)(struct exchange *x))
{
    x->on_close = on_close;
}

void exchange_set_header(struct exchange *x, const char *name, const char *format, ...)
{
    size_t used = strlen(x->headers);
    char value[128];
    va_list ap;

    assert(!x->is_upgraded);
    va_start(ap, format);
    (void)vsnprintf(value, sizeof(value), format, ap);
    va_end(ap);
    int n = snprintf(x->headers + used, FAKE_HEADERS_MAX - used, "%s: %s\r\n", name, value);
    assert(n > 0 && (size_t)n < FAKE_HEADERS_MAX - used);
}

void exchange_upgrade(struct exchange *x, const char *protocol,
                      void (*on_data)(struct exchange *x, const void *data, size_t size),
                      void (*on_end)(struct exchange *x, const struct error *failure),
                      void (*on_drain)(struct exchange *x))
{
    assert(!x->is_upgraded && strcmp(protocol, "websocket") == 0);
    x->is_upgraded = true;
    x->on_data = on_data;
    x->on_end = on_end;
    x->on_drain = on_drain;
}

int exchange_write(struct exchange *x, const void *data, size_t size)
{
    assert(x->is_upgraded && !x->is_over && size > 0);
    if (size > HTTP_REPLY_QUEUE_MAX - x->queued)
        return -1;
    x->queued += size;
    int failed = buffer_append(&x->wire, data, size);
    assert(failed == 0);
    return 0;
}

size_t exchange_queued(const struct exchange *x)
{
    return x->queued;
}

void exchange_pause(struct exchange *x)
{
    assert(!x->is_paused && !x->is_over);
    x->is_paused = true;
}

void exchange_resume(struct exchange *x)
{
    assert(x->is_paused && !x->is_over);
    x->is_paused = false;
}

void exchange_end(struct exchange *x)
{
    assert(!x->is_over);
    x->is_over = true;
}

void exchange_abort(struct exchange *x)
{
    assert(!x->is_over);
    x->is_over = true;
}
