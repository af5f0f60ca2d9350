/* Which handler a request goes to: a table of methods and path patterns. */
#pragma once

#include <stddef.h>

#include "http/target.h"

struct exchange;

/* Handles one request; called once when its head has come. It owes the exchange a reply, at once or
 * later (exchange.h). */
typedef void (*exchange_handler)(struct exchange *x);

/* What an Idempotency-Key means to a route, by what is left of a request that ended without a
 * result because its client went, its time was over or the daemon failed (idempotency.h). */
enum route_key {
    ROUTE_NO_KEY, /* the header is ignored: the request may be sent twice as it is */
    ROUTE_UNDONE, /* nothing is left: with the same key it is done anew */
    ROUTE_ONCE,   /* its traces may be there: it is refused from then on */
};

/* A pattern is "/" and segments, each literal or one "{name}" that takes any segment:
 * "/v1/sandboxes/{id}/exec". The first row that fits wins. A row for GET also takes HEAD. */
struct route {
    const char *method;
    const char *pattern;
    exchange_handler handler;
    enum route_key key; /* the handler reads the body whole where there is one */
};

#define ROUTE_PARAMS_MAX  4u
#define ROUTE_ALLOW_BYTES 64u

struct route_match {
    const struct route *route; /* NULL: no row has this method and path */
    size_t param_count;
    struct {
        const char *name; /* in the pattern, up to its "}" */
        size_t name_size;
        const char *value; /* in the target */
    } params[ROUTE_PARAMS_MAX];
    char allow[ROUTE_ALLOW_BYTES]; /* "GET, HEAD, DELETE" of the path; "" where no row has it */
};

/* Finds the row for a method and path. Values in `*ret_match` point into the table and `target`. */
void router_match(const struct route *routes, size_t count, const char *method,
                  const struct http_target *target, struct route_match *ret_match);

/* Value of the parameter `name`, or NULL where the pattern has none. */
const char *route_param(const struct route_match *m, const char *name);
