#include "daemon/server/dispatch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cloche/limits.h"
#include "daemon/server/exchange_deadline.h"
#include "daemon/server/exchange_key.h"
#include "daemon/server/exchange_private.h"

/* Makes C strings of the names and values: each is followed by at least one byte of the head. */
static void terminate(struct exchange *x, struct http_span s)
{
    x->head_text[(s.data - x->head_text) + (ptrdiff_t)s.size] = '\0';
}

static int take_head(struct exchange *x, const struct http_head *head, const char *data)
{
    x->head_text = malloc(head->size);
    if (x->head_text == NULL)
        return -1;
    memcpy(x->head_text, data, head->size);
    x->head = *head;
    http_head_rebase(&x->head, data, x->head_text);
    terminate(x, x->head.method_name);
    terminate(x, x->head.target);
    for (size_t i = 0; i < x->head.header_count; i++) {
        terminate(x, x->head.headers[i].name);
        terminate(x, x->head.headers[i].value);
    }
    return 0;
}

static bool is_request_id(const char *text)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789._-";
    size_t size = strlen(text);

    return size > 0 && size < HTTP_REQUEST_ID_MAX && strspn(text, allowed) == size;
}

static void choose_request_id(struct exchange *x)
{
    const char *given = x->head_text != NULL ? exchange_header(x, "X-Request-Id") : NULL;
    uint64_t random = 0;

    if (given != NULL && is_request_id(given)) {
        (void)snprintf(x->request_id, sizeof(x->request_id), "%s", given);
        return;
    }
    /* An id for people to find a line by: that it cannot be guessed is not needed. */
    (void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
    (void)snprintf(x->request_id, sizeof(x->request_id), "req_%016" PRIx64, random);
}

struct exchange *exchange_new(const struct service *s, struct connection *c,
                              const struct http_head *head, const char *data)
{
    struct exchange *x = calloc(1, sizeof(*x));

    if (x == NULL)
        return NULL;
    x->service = s;
    x->connection = c;
    x->begun_ms = uv_now(s->loop);
    x->headers.size_max = HTTP_REPLY_HEADERS_MAX;
    x->arrival_ns = c->read_ns;
    if (head != NULL && take_head(x, head, data) != 0) {
        free(x);
        return NULL;
    }
    x->continue_pending = x->head.expect_continue;
    choose_request_id(x);
    return x;
}

void exchange_free(struct exchange *x)
{
    exchange_body_drop(x);
    budget_give(&x->service->budget->replies, x->held_bytes);
    buffer_fini(&x->headers);
    http_target_fini(&x->target);
    free(x->head_text);
    free(x);
}

static void reply_no_route(struct exchange *x)
{
    struct error e = ERROR_INIT;

    if (x->match.allow[0] == '\0') {
        error_set(&e, ERR_NOT_FOUND, "the API has no path %.200s", exchange_target(x));
    } else {
        exchange_set_header(x, "Allow", "%s", x->match.allow);
        error_set(&e, ERR_METHOD_NOT_ALLOWED, "%s is not allowed on this path", exchange_method(x));
        error_remedy(&e, "allowed: %s", x->match.allow);
    }
    exchange_reply_error(x, &e);
}

static void call_handler(struct exchange *x)
{
    x->match.route->handler(x);
}

void dispatch(struct exchange *x)
{
    const struct service *s = x->service;
    struct error e = ERROR_INIT;

    if (x->head.form != HTTP_FORM_ORIGIN) {
        error_set(&e, ERR_BAD_REQUEST, "the request target must be a path");
        exchange_reply_error(x, &e);
        return;
    }
    if (http_target_parse(x->head.target.data, x->head.target.size, &x->target, &e) != 0) {
        exchange_reply_error(x, &e);
        return;
    }
    router_match(s->routes, s->route_count, exchange_method(x), &x->target, &x->match);
    if (x->match.route == NULL)
        reply_no_route(x);
    else if (exchange_deadline_read(x, &e) != 0 ||
             exchange_key_begin(x, s->keys, call_handler, &e) != 0)
        exchange_reply_error(x, &e);
}
