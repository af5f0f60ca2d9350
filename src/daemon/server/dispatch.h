/* From a parsed head to the handler of its route: the one place that calls handlers. */
#pragma once

struct connection;
struct exchange;
struct http_head;
struct service;

/* An exchange for the request whose head was parsed at `data`, or, with NULL, for one that could
 * not be read. NULL when memory is short. */
struct exchange *exchange_new(const struct service *s, struct connection *c,
                              const struct http_head *head, const char *data);
void exchange_free(struct exchange *x);

/* Has the request handled, now or when its body has come; or replies that it cannot be. */
void dispatch(struct exchange *x);
