/*
 * The daemon's end of the protocol with priv (cloche/priv_proto.h): gives out slots, starts
 * monitors in them, and tells each slot's owner what became of its process.
 */
#pragma once

#include <stdint.h>
#include <uv.h>

#include "base/error.h"

struct priv_link;

/* Told about one slot. `spawned` at most once; `exited` exactly once, last: the slot is free again
 * when it returns. `wait_status` is waitpid's, or -1 where nothing was started and `text` says why.
 */
struct priv_owner {
    void (*spawned)(void *context, int pid);
    void (*exited)(void *context, int wait_status, const char *text);
    void *context;
};

struct priv_caps {
    uint32_t mem_max_mib;
    uint32_t cpu_quota_percent;
    uint32_t pids_max;
};

/* Takes over `fd`. `lost` is called once when priv has gone: no monitor lives on, and no slot's
 * `exited` will come any more. */
struct priv_link *priv_link_new(uv_loop_t *loop, int fd, void (*lost)(void *context), void *context,
                                struct error *e) __attribute__((warn_unused_result));

/* Says, once and before the first monitor is started, how much memory all of them may use. */
void priv_link_total(struct priv_link *p, uint32_t mem_max_mib);

/* Closes the socket: priv kills every monitor, cleans up and ends. Freed when libuv let go of it.
 */
void priv_link_close(struct priv_link *p);

/* Starts a monitor with `control_fd` (stays the caller's) as its control socket; -1 with
 * ERR_NO_CAPACITY when every slot is in use. */
int priv_link_spawn(struct priv_link *p, const struct priv_caps *caps, int control_fd,
                    const struct priv_owner *owner, uint32_t *ret_slot, struct error *e)
    __attribute__((warn_unused_result));
void priv_link_limit(struct priv_link *p, uint32_t slot, const struct priv_caps *caps);
void priv_link_kill(struct priv_link *p, uint32_t slot);

/* Slots in use. */
unsigned priv_link_count(const struct priv_link *p);
