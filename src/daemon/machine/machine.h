/* What the machine room is given by the daemon: the loop, the way to priv, the folders it works in
 * and what the configuration says about guests. It outlives everything that is made with it. */
#pragma once

#include <stdint.h>
#include <uv.h>

struct priv_link;
struct template_set;

struct machine {
    uv_loop_t *loop;
    struct priv_link *priv;
    const struct template_set *templates;
    int snapshots_fd; /* folders of the state directory */
    int scratch_fd;
    int tmp_fd;
    uint32_t boot_timeout_s; /* a template's first boot */
    uint32_t pool_min;       /* shells kept of each warm shape */
    uint32_t pool_max;       /* and at most, when demand is high */
    uint32_t host_mem_mib;   /* what the host has, and what of it no guest is promised */
    uint32_t reserve_mem_mib;
    uint32_t overcommit_percent; /* how much of the rest may be promised: 100 is each byte once */
};
