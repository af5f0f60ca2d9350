#include "daemon/sandbox/sandbox_plan.h"

#include "daemon/machine/template.h"
#include "daemon/process/env.h"
#include "json/json.h"

static int check_range(uint32_t value, const char *field, const char *unit, uint32_t min,
                       uint32_t max, struct error *e)
{
    if (value >= min && value <= max)
        return 0;
    (void)error_set(e, ERR_INVALID_FIELD, "%s is %u%s", field, value, unit);
    return error_remedy(e, "give %s a value from %u to %u", field, min, max);
}

/* Kept as it came, and judged now, not when the first command starts. */
static int copy_env(struct sandbox_plan *plan, const struct cJSON *env, struct error *e)
{
    struct env judged = {0};
    int result = env_merge_json(&judged, env, e);

    env_fini(&judged);
    if (result == 0 && (plan->env = cJSON_Duplicate(env, 1)) == NULL)
        result = error_set(e, ERR_INTERNAL, "out of memory");
    return result;
}

int sandbox_plan_set_labels(struct sandbox_plan *plan, const struct cJSON *labels, struct error *e)
{
    if (cJSON_GetArraySize(labels) > (int)SANDBOX_LABELS_MAX) {
        (void)error_set(e, ERR_INVALID_FIELD, "labels has %d entries", cJSON_GetArraySize(labels));
        return error_remedy(e, "give at most %u", SANDBOX_LABELS_MAX);
    }
    struct cJSON *copy = cJSON_Duplicate(labels, 1);
    if (copy == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    cJSON_Delete(plan->labels);
    plan->labels = copy;
    return 0;
}

static uint32_t or_default(uint32_t wanted, uint32_t otherwise)
{
    return wanted != 0 ? wanted : otherwise;
}

int sandbox_plan_init(struct sandbox_plan *ret_plan, const struct sandbox_params *params,
                      const struct sandbox_limits *limits, const struct template_set *templates,
                      struct error *e)
{
    const char *name = params->template != NULL ? params->template : limits->default_template;
    struct sandbox_plan plan = {.template = template_find(templates, name, e),
                                .vcpus = or_default(params->vcpus, limits->default_vcpus),
                                .mem_mib = or_default(params->mem_mib, limits->default_mem_mib),
                                .disk_mib = or_default(params->disk_mib, limits->default_disk_mib),
                                .timeout_s =
                                    or_default(params->timeout_s, limits->default_timeout_s)};

    if (plan.template == NULL)
        return -1;
    plan.cpu_quota_percent = or_default(params->cpu_quota_percent, plan.vcpus * 100);
    if (check_range(plan.vcpus, "vcpus", "", 1, limits->max_vcpus, e) != 0 ||
        check_range(plan.mem_mib, "mem_mib", " MiB", SANDBOX_MEM_MIB_MIN, limits->max_mem_mib, e) !=
            0 ||
        check_range(plan.disk_mib, "disk_mib", " MiB", SANDBOX_DISK_MIB_MIN, SANDBOX_DISK_MIB_MAX,
                    e) != 0 ||
        check_range(plan.timeout_s, "timeout_s", " s", 1, SANDBOX_TIMEOUT_S_MAX, e) != 0 ||
        check_range(plan.cpu_quota_percent, "cpu_quota_percent", "", 1, plan.vcpus * 100, e) != 0)
        return -1;
    if ((params->env != NULL && copy_env(&plan, params->env, e) != 0) ||
        (params->labels != NULL && sandbox_plan_set_labels(&plan, params->labels, e) != 0)) {
        sandbox_plan_fini(&plan);
        return -1;
    }
    *ret_plan = plan;
    return 0;
}

void sandbox_plan_fini(struct sandbox_plan *plan)
{
    cJSON_Delete(plan->env);
    cJSON_Delete(plan->labels);
    *plan = (struct sandbox_plan){0};
}
