/* The request's side of an exchange: what it says. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/server/exchange_private.h"

void *exchange_context(const struct exchange *x)
{
    return x->service->context;
}

uv_loop_t *exchange_loop(const struct exchange *x)
{
    return x->service->loop;
}

const char *exchange_method(const struct exchange *x)
{
    return x->head.method_name.data;
}

bool exchange_is_head(const struct exchange *x)
{
    return x->head_text != NULL && x->head.method == HTTP_HEAD;
}

const char *exchange_target(const struct exchange *x)
{
    return x->head.target.data;
}

const char *exchange_param(const struct exchange *x, const char *name)
{
    const char *value = route_param(&x->match, name);

    assert(value != NULL);
    return value;
}

const char *exchange_query(const struct exchange *x, const char *name)
{
    for (size_t i = 0; i < x->target.query_count; i++) {
        if (strcmp(x->target.query[i].name, name) == 0)
            return x->target.query[i].value;
    }
    return NULL;
}

const struct http_query *exchange_queries(const struct exchange *x, size_t *ret_count)
{
    *ret_count = x->target.query_count;
    return x->target.query;
}

const struct http_head *exchange_head(const struct exchange *x)
{
    return &x->head;
}

const char *exchange_header(const struct exchange *x, const char *name)
{
    const struct http_header *header = http_head_find(&x->head, name);

    return header != NULL ? header->value.data : NULL;
}

/* Takes the parameters off a list element ("text/html;q=0.5"); false for quality 0. */
static bool strip_parameters(struct http_span *element)
{
    const char *semicolon = memchr(element->data, ';', element->size);

    if (semicolon == NULL)
        return true;
    const char *end = element->data + element->size;
    element->size = (size_t)(semicolon - element->data);
    while (element->size > 0 &&
           (element->data[element->size - 1] == ' ' || element->data[element->size - 1] == '\t'))
        element->size--;
    const char *quality = memmem(semicolon, (size_t)(end - semicolon), "q=0", 3);
    if (quality == NULL)
        return true;
    for (quality += 3; quality < end; quality++) {
        if (*quality >= '1' && *quality <= '9')
            return true;
        if (*quality != '.' && *quality != '0')
            break;
    }
    return false;
}

bool exchange_accepts(const struct exchange *x, const char *media_type)
{
    for (size_t i = 0; i < x->head.header_count; i++) {
        struct http_span list = x->head.headers[i].value, element;

        if (!http_span_is(x->head.headers[i].name, "accept"))
            continue;
        while (http_list_next(&list, &element)) {
            if (strip_parameters(&element) && http_span_is(element, media_type))
                return true;
        }
    }
    return false;
}

const char *exchange_request_id(const struct exchange *x)
{
    return x->request_id;
}

uint64_t exchange_arrival_ns(const struct exchange *x)
{
    return x->arrival_ns;
}

/* Finds a parameter's name in the list; `*ret_many` says whether it may repeat. */
static bool is_listed(const char *const *names, const char *name, bool *ret_many)
{
    for (; *names != NULL; names++) {
        size_t size = strcspn(*names, "*");

        if (strlen(name) == size && memcmp(*names, name, size) == 0) {
            *ret_many = (*names)[size] == '*';
            return true;
        }
    }
    return false;
}

static int unknown_query(const char *const *names, const char *name, struct error *e)
{
    char known[sizeof(e->remedy)] = "";
    size_t used = 0;

    for (size_t i = 0; names[i] != NULL && used < sizeof(known); i++)
        used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%.*s", i > 0 ? ", " : "",
                                 (int)strcspn(names[i], "*"), names[i]);
    error_set(e, ERR_UNKNOWN_FIELD, "the query parameter \"%.64s\" is not known", name);
    return names[0] != NULL ? error_remedy(e, "known here: %s", known)
                            : error_remedy(e, "no query parameters are known here");
}

int exchange_check_query(const struct exchange *x, const char *const *names, struct error *e)
{
    const struct http_target *t = &x->target;

    for (size_t i = 0; i < t->query_count; i++) {
        bool many = false;

        if (!is_listed(names, t->query[i].name, &many))
            return unknown_query(names, t->query[i].name, e);
        for (size_t k = 0; k < i && !many; k++) {
            if (strcmp(t->query[k].name, t->query[i].name) == 0)
                return error_set(e, ERR_INVALID_FIELD, "the query parameter \"%s\" is there twice",
                                 t->query[i].name);
        }
    }
    return 0;
}

int exchange_query_number(const struct exchange *x, const char *name, uint32_t min, uint32_t max,
                          uint32_t *ret_value, struct error *e)
{
    const char *text = exchange_query(x, name);
    char *end;

    if (text == NULL)
        return 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || number < min || number > max)
        return error_set(e, ERR_INVALID_FIELD, "%s must be a number from %u to %u", name, min, max);
    *ret_value = (uint32_t)number;
    return 0;
}

int exchange_query_bool(const struct exchange *x, const char *name, bool *ret_value,
                        struct error *e)
{
    const char *text = exchange_query(x, name);

    if (text == NULL)
        return 0;
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
        return error_set(e, ERR_INVALID_FIELD, "%s must be true or false", name);
    *ret_value = text[0] == 't';
    return 0;
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
    x->on_gone = on_gone;
}

void exchange_on_close(struct exchange *x, void (*on_close)(struct exchange *x))
{
    x->on_close = on_close;
}

void exchange_set_undone(struct exchange *x)
{
    x->undone = true;
}
