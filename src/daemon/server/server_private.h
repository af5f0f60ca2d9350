/* The server as its connections see it. */
#pragma once

#include <stdbool.h>

#include "daemon/server/budget.h"
#include "daemon/server/connection.h"
#include "daemon/server/idempotency.h"
#include "daemon/server/server.h"

LIST_HEAD(connection_list, connection);

struct server {
    struct server_options options; /* with the defaults filled in */
    uv_poll_t listener;
    uv_timer_t timer;      /* the grace of a stop; before that, a pause in accepting */
    uv_timer_t keys_timer; /* when the oldest key is to be forgotten */
    struct idempotency_table *keys;
    int listen_fd;
    int reserve_fd; /* given up to be able to refuse a client when descriptors run out */
    unsigned handles;
    bool stopping;
    void (*on_stopped)(void *context);
    struct connection_list connections;
    size_t connection_count;
};

/* The first of the keys may be a new one. */
void server_watch_keys(struct server *s);

/* A connection has been closed and freed. */
void server_connection_gone(struct server *s);
