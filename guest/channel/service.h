/*
 * The agent's service loop: one thread, one epoll set, nothing that blocks on the host or on a
 * tenant's process. It knows the port and the streams; what the streams do is in the table that it
 * is given. It is told its descriptor, so that the tests run it over a socket pair on any machine.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "guest/channel/port.h"
#include "guest/channel/stream.h"

/* Of the agent and, unless an exec says otherwise, of what it starts. */
#define SERVICE_UMASK 022

struct service {
    struct port port;
    struct streams streams;
    int epoll_fd;
    int signal_fd;
    uint32_t port_events;
    void (*when_idle)(void *owner);
    void *idle_owner;
};

/*
 * Makes everything that the loop needs, so that the first request finds it ready. Blocks all
 * signals of the process and sets its umask; both stay. `port_fd`, the table of operations and `v`
 * (large: better static than on the stack) outlive the service.
 */
int service_init(struct service *v, int port_fd, const struct stream_row *rows, size_t row_count,
                 struct error *e) __attribute__((warn_unused_result));
/* Ends all streams. */
void service_fini(struct service *v);

/* From here on calls back, where there is nothing else to do, for what can wait until then. */
void service_when_idle(struct service *v, void (*call)(void *owner), void *owner);

/* Serves until the host closes the channel (0) or breaks its protocol (-1). */
int service_run(struct service *v, struct error *e) __attribute__((warn_unused_result));
