/* The server as its connections see it. */
#pragma once

#include <stdbool.h>

#include "daemon/connection.h"
#include "daemon/server.h"

LIST_HEAD(connection_list, connection);

struct server {
    struct server_options options; /* with the defaults filled in */
    uv_poll_t listener;
    uv_timer_t timer; /* the grace of a stop; before that, a pause in accepting */
    int listen_fd;
    int reserve_fd; /* given up to be able to refuse a client when descriptors run out */
    unsigned handles;
    bool stopping;
    void (*on_stopped)(void *context);
    struct connection_list connections;
    size_t connection_count;
    uint64_t bodies_bytes;   /* held in bodies that are read whole */
    uint64_t gathered_bytes; /* held for replies, as exchange_hold() was told */
};

/* A connection has been closed and freed. */
void server_connection_gone(struct server *s);
