/* What a server's conversations and exchanges share: made by the server, and below all of them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

#include "daemon/server/budget.h"
#include "daemon/server/router.h"

struct conversation;
struct exchange_keys;

LIST_HEAD(conversation_list, conversation);

struct service {
    uv_loop_t *loop;
    const struct route *routes;
    size_t route_count;
    void *context; /* the handlers' */
    struct exchange_budget *budget;
    struct exchange_keys *keys;
    uint32_t head_timeout_ms;
    uint32_t idle_timeout_ms;
    uint32_t stall_timeout_ms;
    uint32_t linger_ms;
    bool stopping; /* the requests under way are the last */
    struct conversation_list conversations;
    size_t conversation_count;
    /* A conversation has ended; it is in the list no more. */
    void (*on_ended)(struct service *s);
};
