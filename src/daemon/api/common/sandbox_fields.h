/* The JSON fields that describe a new sandbox: POST /v1/sandboxes takes them alone, POST /v1/run
 * among others. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "daemon/sandbox/sandbox_plan.h"
#include "json/json.h"

struct sandbox_fields {
    const char *template;
    int64_t vcpus;
    int64_t mem_mib;
    int64_t disk_mib;
    int64_t timeout_s;
    int64_t cpu_quota_percent;
    const cJSON *env;
    const cJSON *labels;
};

#define SANDBOX_FIELD_(at, key, kind, low, high, item)                                             \
    {                                                                                              \
        .name = #key, .type = (kind), .min = (low), .max = (high), .item_max = (item),             \
        .offset = (at) + offsetof(struct sandbox_fields, key)                                      \
    }

/* Rows for a json_field table; `at` is the offset of a struct sandbox_fields in what it fills. What
 * the host allows is narrower and is checked by sandbox_create. */
#define SANDBOX_FIELD_ROWS(at)                                                                     \
    SANDBOX_FIELD_(at, template, JSON_STRING, 1, TEMPLATE_NAME_MAX - 1, 0),                        \
        SANDBOX_FIELD_(at, vcpus, JSON_INTEGER, 1, SANDBOX_VCPUS_MAX, 0),                          \
        SANDBOX_FIELD_(at, mem_mib, JSON_INTEGER, SANDBOX_MEM_MIB_MIN, SANDBOX_MEM_MIB_MAX, 0),    \
        SANDBOX_FIELD_(at, disk_mib, JSON_INTEGER, SANDBOX_DISK_MIB_MIN, SANDBOX_DISK_MIB_MAX, 0), \
        SANDBOX_FIELD_(at, timeout_s, JSON_INTEGER, 1, SANDBOX_TIMEOUT_S_MAX, 0),                  \
        SANDBOX_FIELD_(at, cpu_quota_percent, JSON_INTEGER, 1, SANDBOX_VCPUS_MAX * 100, 0),        \
        SANDBOX_FIELD_(at, env, JSON_MAP, 0, 1024, SANDBOX_ENV_BYTES_MAX),                         \
        SANDBOX_FIELD_(at, labels, JSON_MAP, 0, SANDBOX_LABELS_MAX, 256)

static inline struct sandbox_params sandbox_fields_params(const struct sandbox_fields *f)
{
    return (struct sandbox_params){.template = f->template,
                                   .vcpus = (uint32_t)f->vcpus,
                                   .mem_mib = (uint32_t)f->mem_mib,
                                   .disk_mib = (uint32_t)f->disk_mib,
                                   .timeout_s = (uint32_t)f->timeout_s,
                                   .cpu_quota_percent = (uint32_t)f->cpu_quota_percent,
                                   .env = f->env,
                                   .labels = f->labels};
}
