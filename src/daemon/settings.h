/* Settings of the daemon: defaults, changed by the JSON config file (docs: README, Configuration).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cloche/limits.h"

#define SETTINGS_BYTES_MAX (64 * KIB)
#define SETTINGS_WARM_MAX  16u

struct settings {
    char default_template[TEMPLATE_NAME_MAX];
    uint32_t default_vcpus;
    uint32_t default_mem_mib;
    uint32_t default_disk_mib;
    uint32_t default_timeout_s;
    uint32_t max_sandboxes;
    uint32_t max_vcpus;          /* of one sandbox; the host's processors unless set lower */
    uint32_t max_mem_mib;        /* of one sandbox */
    uint32_t host_mem_mib;       /* what the host has: not to be set */
    uint32_t reserve_mem_mib;    /* of that: promised to no guest */
    uint32_t overcommit_percent; /* how much of the rest may be promised: 100 is each byte once */
    uint32_t pool_min;           /* shells kept of each warm shape */
    uint32_t pool_max;           /* and at most, when demand is high */
    uint32_t boot_timeout_s;     /* a template's first boot */
    bool warm_named;             /* `warm` was given; else the default template is warmed */
    unsigned warm_count;
    char warm[SETTINGS_WARM_MAX][TEMPLATE_NAME_MAX]; /* templates warmed at start */
};

/* The defaults, with host limits filled in. */
void settings_init(struct settings *s);

/* Applies a config file's `size` bytes. Unknown keys and bad values are errors that name them. */
int settings_parse(struct settings *s, const char *text, size_t size, struct error *e)
    __attribute__((warn_unused_result));
