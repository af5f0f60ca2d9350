/* What a sandbox is to be: the wishes of a request, filled up with the defaults and judged by the
 * host's limits. */
#pragma once

#include <stdint.h>

#include "base/error.h"
#include "cloche/limits.h"

struct cJSON;
struct template;
struct template_set;

/* Defaults for what a request leaves open, and the most it may ask for. */
struct sandbox_limits {
    char default_template[TEMPLATE_NAME_MAX];
    uint32_t default_vcpus;
    uint32_t default_mem_mib;
    uint32_t default_disk_mib;
    uint32_t default_timeout_s;
    uint32_t max_sandboxes;
    uint32_t max_vcpus;
    uint32_t max_mem_mib; /* of one sandbox */
};

struct sandbox_params {
    const char *template; /* name; NULL for the default */
    uint32_t vcpus;       /* 0: default, for this and the next three */
    uint32_t mem_mib;
    uint32_t disk_mib;
    uint32_t timeout_s;
    uint32_t cpu_quota_percent; /* 0: 100 per vCPU */
    const struct cJSON *env;    /* object of strings, or NULL; copied */
    const struct cJSON *labels; /* object of strings, or NULL; copied */
};

struct sandbox_plan {
    const struct template *template;
    uint32_t vcpus;
    uint32_t mem_mib;
    uint32_t disk_mib;
    uint32_t timeout_s;
    uint32_t cpu_quota_percent;
    struct cJSON *env;    /* object of strings, or NULL */
    struct cJSON *labels; /* the same */
};

/* Fails with an error that names the field, or ERR_TEMPLATE_NOT_FOUND. */
int sandbox_plan_init(struct sandbox_plan *ret_plan, const struct sandbox_params *params,
                      const struct sandbox_limits *limits, const struct template_set *templates,
                      struct error *e) __attribute__((warn_unused_result));
void sandbox_plan_fini(struct sandbox_plan *plan);

/* Replaces the labels (object of strings, copied); -1 when there are too many. */
int sandbox_plan_set_labels(struct sandbox_plan *plan, const struct cJSON *labels, struct error *e)
    __attribute__((warn_unused_result));
