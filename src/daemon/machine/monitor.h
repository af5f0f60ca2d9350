/*
 * One monitor process as the daemon sees it: started through priv, configured over its control
 * socket (cloche/vmm_proto.h), told to go, ended. It is not trusted: it holds a hostile guest.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "cloche/vmm_proto.h"

struct machine;
struct monitor;

/* How a monitor ended. */
struct monitor_end {
    bool started;                /* false: priv could not start the process; `text` says why */
    int wait_status;             /* as waitpid's, where started */
    enum vmm_gone_reason reason; /* 0 where it ended without a word */
    uint32_t detail;
    char text[VMM_TEXT_MAX];
};

/* Any but `exited` may be NULL. `exited` comes exactly once and last, when the process, its cgroup
 * and its slot are gone; the monitor is freed behind it. */
struct monitor_events {
    void (*built)(struct monitor *m, void *context);
    void (*parked)(struct monitor *m, void *context);
    void (*first)(struct monitor *m, uint64_t mono_ns, void *context);
    void (*ready)(struct monitor *m, uint64_t mono_ns, void *context);
    void (*exited)(struct monitor *m, const struct monitor_end *end, void *context);
};

struct monitor_spec {
    enum vmm_mode mode;
    uint32_t vcpus;
    uint32_t mem_mib;
    /* In the order of enum vmm_config_fd, VMM_FD_CHANNEL left out (-1): the monitor makes that
     * pair. They stay the caller's. */
    int fds[VMM_FD_COUNT_BOOT];
};

/* Asks priv for the process and sends CONFIG right behind; never calls an event from within. */
struct monitor *monitor_start(const struct machine *machine, const struct monitor_spec *spec,
                              const struct monitor_events *events, void *context, struct error *e)
    __attribute__((warn_unused_result));

/* Hands the monitor to another owner (a shell leaves the pool). */
void monitor_set_events(struct monitor *m, const struct monitor_events *events, void *context);

/* After `built`: the guest runs from here on. `identity` may be NULL in BOOT mode. */
int monitor_go(struct monitor *m, const struct identity_page *identity, struct error *e)
    __attribute__((warn_unused_result));

/* The daemon's end of the agent channel, the caller's from now on; -1 when taken before. */
int monitor_take_channel(struct monitor *m);

/* Caps outside the guest: `percent` of one host CPU. */
void monitor_set_cpu_quota(struct monitor *m, uint32_t percent);

/* Ends the process, now; `exited` follows. May be called again. */
void monitor_kill(struct monitor *m);

pid_t monitor_pid(const struct monitor *m); /* 0 until priv told it */

/* One line for users about an end: what happened, in words. */
void monitor_end_text(const struct monitor_end *end, char *ret_text, size_t size);
