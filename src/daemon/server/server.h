/*
 * The API's server: accepts connections on a listening socket, reads requests off them one after
 * the other, and hands each to its route's handler as an exchange. A second request on a
 * connection waits, buffered within HTTP_INPUT_BYTES_MAX, until the reply to the first is done.
 *
 * Made for Unix stream sockets: there a client that has closed its sending side (and still gets its
 * reply) can be told from one that is gone.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "daemon/server/budget.h"
#include "daemon/server/router.h"

struct server;

struct server_options {
    uv_loop_t *loop;
    const struct route *routes; /* lives as long as the server */
    size_t route_count;
    void *context;                  /* exchange_context */
    struct exchange_budget *budget; /* lives as long as the server */
    /* 0 takes the value of cloche/limits.h. */
    uint32_t connections_max;
    uint32_t head_timeout_ms;
    uint32_t idle_timeout_ms;
    uint32_t stall_timeout_ms;
    uint32_t linger_ms;
};

/* Starts to serve on `listen_fd`, which the server owns from then on (it closes it). */
int server_new(const struct server_options *options, int listen_fd, struct server **ret_server,
               struct error *e) __attribute__((nonnull, warn_unused_result));

/*
 * Stops: closes the listening socket and idle connections at once; exchanges under way may finish
 * within `grace_ms`, then their clients are cut off (on_gone). `on_stopped` is called from the loop
 * once every connection is closed and every exchange finished by its handler; then call
 * server_free. A second call can only shorten the grace.
 */
void server_stop(struct server *s, uint32_t grace_ms, void (*on_stopped)(void *arg), void *arg);

/* Frees a server that has stopped. Accepts NULL. */
void server_free(struct server *s);
