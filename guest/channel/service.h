/*
 * The agent's service loop: one thread, one epoll set, nothing that blocks on the host or on a
 * tenant's process. It is told its descriptor and its cgroup directory, so that the tests run it
 * over a socket pair on any machine.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "guest/boot/layers.h"
#include "guest/channel/port.h"
#include "guest/channel/stream.h"
#include "guest/exec/execgroup.h"
#include "guest/files/staging.h"

/* What an epoll event belongs to, in its data.u64 beside the stream's number. */
enum service_tag {
    SERVICE_TAG_PORT, /* these two with stream 0 */
    SERVICE_TAG_SIGNAL,
    SERVICE_TAG_STDIN,
    SERVICE_TAG_STDOUT,
    SERVICE_TAG_STDERR,
    SERVICE_TAG_GROUP,
    SERVICE_TAG_WATCH,
};

struct service {
    struct port port;
    struct streams streams;
    struct execgroups groups;
    struct stagings stagings;
    struct layers layers;
    int epoll_fd;
    int signal_fd;
    int null_fd; /* /dev/null, for reading and writing */
    uint32_t port_events;
    unsigned pump_next;
};

/*
 * Makes everything that the loop needs, so that the first request finds it ready. `cgroup_path` may
 * be NULL. Blocks all signals of the process and sets its umask; both stay. `port_fd` and `v`
 * (large: better static than on the stack) outlive the service. `layers` stay the caller's.
 */
int service_init(struct service *v, int port_fd, const char *cgroup_path,
                 const struct layers *layers, struct error *e) __attribute__((warn_unused_result));
void service_fini(struct service *v);

/* Serves until the host closes the channel (0) or breaks its protocol (-1). */
int service_run(struct service *v, struct error *e) __attribute__((warn_unused_result));

/* Adds a descriptor of a stream to the epoll set; closing the descriptor removes it. */
int service_watch(struct service *v, uint32_t stream, enum service_tag tag, int fd, uint32_t events)
    __attribute__((warn_unused_result));
