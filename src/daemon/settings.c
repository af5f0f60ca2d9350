#include "daemon/settings.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "json/json.h"

void settings_init(struct settings *s)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    long pages = sysconf(_SC_PHYS_PAGES);
    uint64_t host_mib = pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) / MIB : 1024;

    *s = (struct settings){.default_template = "python",
                           .default_vcpus = 1,
                           .default_mem_mib = 256,
                           .default_disk_mib = 1024,
                           .default_timeout_s = 300,
                           .max_sandboxes = SANDBOX_COUNT_MAX / 2,
                           .max_vcpus = cpus > 0 ? (uint32_t)cpus : 1,
                           .max_mem_mib = SANDBOX_MEM_MIB_MAX,
                           .host_mem_mib = (uint32_t)host_mib,
                           .reserve_mem_mib = 512,
                           .overcommit_percent = 100,
                           .pool_min = 2,
                           .pool_max = 16,
                           .boot_timeout_s = 120};
    if (s->max_vcpus > SANDBOX_VCPUS_MAX)
        s->max_vcpus = SANDBOX_VCPUS_MAX;
    /* A guest as large as the host could only be killed. */
    if (host_mib / 4 * 3 < s->max_mem_mib)
        s->max_mem_mib = (uint32_t)(host_mib / 4 * 3);
}

/* As json_read stores them. */
struct values {
    const char *default_template;
    int64_t default_vcpus, default_mem_mib, default_disk_mib, default_timeout_s, max_sandboxes,
        max_vcpus, max_mem_mib, reserve_mem_mib, pool_min, pool_max, boot_timeout_s;
    double memory_overcommit;
    const cJSON *warm;
};

#define INTEGER(key, low, high)                                                                    \
    {                                                                                              \
        .name = #key, .type = JSON_INTEGER, .min = (low), .max = (high),                           \
        .offset = offsetof(struct values, key)                                                     \
    }

static int take_warm(struct settings *s, const cJSON *warm, struct error *e)
{
    const cJSON *item;

    s->warm_count = 0;
    cJSON_ArrayForEach (item, warm) {
        if (strlen(item->valuestring) >= TEMPLATE_NAME_MAX)
            return error_set(e, ERR_INVALID_FIELD, "warm: a template's name is too long");
        (void)snprintf(s->warm[s->warm_count++], TEMPLATE_NAME_MAX, "%s", item->valuestring);
    }
    return 0;
}

static int check_order(const char *high_key, int64_t high, const char *low_key, int64_t low,
                       struct error *e)
{
    if (high >= low)
        return 0;
    return error_set(e, ERR_INVALID_FIELD, "%s (%lld) is below %s (%lld)", high_key,
                     (long long)high, low_key, (long long)low);
}

int settings_parse(struct settings *s, const char *text, size_t size, struct error *e)
{
    const struct json_field fields[] = {
        {.name = "default_template",
         .type = JSON_STRING,
         .min = 1,
         .max = TEMPLATE_NAME_MAX - 1,
         .offset = offsetof(struct values, default_template)},
        INTEGER(default_vcpus, 1, SANDBOX_VCPUS_MAX),
        INTEGER(default_mem_mib, SANDBOX_MEM_MIB_MIN, s->max_mem_mib),
        INTEGER(default_disk_mib, SANDBOX_DISK_MIB_MIN, SANDBOX_DISK_MIB_MAX),
        INTEGER(default_timeout_s, 1, SANDBOX_TIMEOUT_S_MAX),
        INTEGER(max_sandboxes, 1, SANDBOX_COUNT_MAX),
        INTEGER(max_vcpus, 1, SANDBOX_VCPUS_MAX), /* more than the host has, if it is said */
        INTEGER(max_mem_mib, SANDBOX_MEM_MIB_MIN, s->max_mem_mib),
        INTEGER(reserve_mem_mib, 0, 1 << 20),
        {.name = "memory_overcommit",
         .type = JSON_NUMBER,
         .min = 1,
         .max = 64,
         .offset = offsetof(struct values, memory_overcommit)},
        INTEGER(pool_min, 0, 256),
        INTEGER(pool_max, 0, 256),
        INTEGER(boot_timeout_s, 1, 3600),
        {.name = "warm",
         .type = JSON_STRINGS,
         .max = SETTINGS_WARM_MAX,
         .item_max = TEMPLATE_NAME_MAX - 1,
         .offset = offsetof(struct values, warm)},
    };
    struct values v = {.default_template = s->default_template,
                       .default_vcpus = s->default_vcpus,
                       .default_mem_mib = s->default_mem_mib,
                       .default_disk_mib = s->default_disk_mib,
                       .default_timeout_s = s->default_timeout_s,
                       .max_sandboxes = s->max_sandboxes,
                       .max_vcpus = s->max_vcpus,
                       .max_mem_mib = s->max_mem_mib,
                       .reserve_mem_mib = s->reserve_mem_mib,
                       .memory_overcommit = s->overcommit_percent / 100.0,
                       .pool_min = s->pool_min,
                       .pool_max = s->pool_max,
                       .boot_timeout_s = s->boot_timeout_s};
    JSON_AUTO cJSON *tree = NULL;

    if (json_parse_object(text, size, &tree, e) != 0 ||
        json_read(tree, "", fields, sizeof(fields) / sizeof(fields[0]), &v, e) != 0)
        return -1;
    if (check_order("pool_max", v.pool_max, "pool_min", v.pool_min, e) != 0 ||
        check_order("max_vcpus", v.max_vcpus, "default_vcpus", v.default_vcpus, e) != 0 ||
        check_order("max_mem_mib", v.max_mem_mib, "default_mem_mib", v.default_mem_mib, e) != 0)
        return -1;
    struct settings parsed = {.default_vcpus = (uint32_t)v.default_vcpus,
                              .default_mem_mib = (uint32_t)v.default_mem_mib,
                              .default_disk_mib = (uint32_t)v.default_disk_mib,
                              .default_timeout_s = (uint32_t)v.default_timeout_s,
                              .max_sandboxes = (uint32_t)v.max_sandboxes,
                              .max_vcpus = (uint32_t)v.max_vcpus,
                              .max_mem_mib = (uint32_t)v.max_mem_mib,
                              .host_mem_mib = s->host_mem_mib,
                              .reserve_mem_mib = (uint32_t)v.reserve_mem_mib,
                              .overcommit_percent = (uint32_t)(v.memory_overcommit * 100 + 0.5),
                              .pool_min = (uint32_t)v.pool_min,
                              .pool_max = (uint32_t)v.pool_max,
                              .boot_timeout_s = (uint32_t)v.boot_timeout_s};
    (void)snprintf(parsed.default_template, sizeof(parsed.default_template), "%s",
                   v.default_template);
    if (v.warm != NULL && take_warm(&parsed, v.warm, e) != 0)
        return -1;
    parsed.warm_named = v.warm != NULL;
    *s = parsed;
    return 0;
}
