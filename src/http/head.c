#include "http/head.h"

static void rebase(struct http_span *s, const char *from, const char *to)
{
    if (s->data != NULL)
        s->data = to + (s->data - from);
}

void http_head_rebase(struct http_head *h, const char *from, const char *to)
{
    rebase(&h->method_name, from, to);
    rebase(&h->target, from, to);
    rebase(&h->host, from, to);
    for (size_t i = 0; i < h->header_count; i++) {
        rebase(&h->headers[i].name, from, to);
        rebase(&h->headers[i].value, from, to);
    }
}

const struct http_header *http_head_find(const struct http_head *h, const char *name)
{
    for (size_t i = 0; i < h->header_count; i++) {
        if (http_span_is(h->headers[i].name, name))
            return &h->headers[i];
    }
    return NULL;
}
