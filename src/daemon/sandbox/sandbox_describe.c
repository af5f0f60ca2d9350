#include "daemon/sandbox/sandbox_describe.h"

#include <string.h>

#include "base/clock.h"
#include "daemon/machine/template.h"
#include "json/json.h"
#include "json/json_write.h"

static const char *const state_names[] = {
    [SANDBOX_STARTING] = "starting", [SANDBOX_RUNNING] = "running", [SANDBOX_ENDING] = "ending"};
static const char *const pool_names[] = {
    [SHAPE_POOLED] = "hit", [SHAPE_COLD] = "cold", [SHAPE_BOOTED] = "boot"};
static const char *const end_names[] = {[SANDBOX_END_DELETED] = "deleted",
                                        [SANDBOX_END_TIMEOUT] = "timeout",
                                        [SANDBOX_END_GUEST_SHUTDOWN] = "guest_shutdown",
                                        [SANDBOX_END_GUEST_FAILED] = "guest_failed",
                                        [SANDBOX_END_MONITOR] = "monitor_failed",
                                        [SANDBOX_END_STOPPED] = "daemon_stopped"};

const char *sandbox_end_name(enum sandbox_end why)
{
    return end_names[why];
}

/* Time since the request came; null where it has not happened. */
static void put_since(struct json_writer *w, const char *name, uint64_t arrived_ns, uint64_t ns)
{
    if (ns == 0)
        json_put_null(w, name);
    else
        json_put_ms(w, name, ns - arrived_ns);
}

void sandbox_describe_times(const struct sandbox *s, struct json_writer *w)
{
    const struct sandbox_times *times = &sandbox_facts(s)->times;

    json_begin_object(w, "times");
    put_since(w, "restore_ms", times->arrived_ns, times->loaded_ns);
    put_since(w, "first_instruction_ms", times->arrived_ns, times->first_ns);
    put_since(w, "ready_ms", times->arrived_ns, times->ready_ns);
    json_end_object(w);
}

void sandbox_describe(const struct sandbox *s, struct json_writer *w)
{
    const struct sandbox_facts *f = sandbox_facts(s);

    json_put_text(w, "id", f->id);
    json_put_text(w, "state", state_names[f->state]);
    json_put_text(w, "template", f->plan.template->name);
    json_put_int(w, "vcpus", f->plan.vcpus);
    json_put_int(w, "mem_mib", f->plan.mem_mib);
    json_put_int(w, "disk_mib", f->plan.disk_mib);
    json_put_int(w, "cpu_quota_percent", f->plan.cpu_quota_percent);
    json_put_int(w, "timeout_s", f->plan.timeout_s);
    json_put_time(w, "created_at", f->created_real_ns);
    if (f->expires_real_ns != 0)
        json_put_time(w, "expires_at", f->expires_real_ns);
    else
        json_put_null(w, "expires_at");
    if (f->plan.labels != NULL) {
        json_put_tree(w, "labels", f->plan.labels);
    } else {
        json_begin_object(w, "labels");
        json_end_object(w);
    }
    json_put_text(w, "pool", pool_names[f->origin]);
    sandbox_describe_times(s, w);
}

bool sandbox_has_label(const struct sandbox *s, const char *name, const char *value)
{
    const struct cJSON *label =
        cJSON_GetObjectItemCaseSensitive(sandbox_facts(s)->plan.labels, name);

    return label != NULL && cJSON_IsString(label) && strcmp(label->valuestring, value) == 0;
}

const char *sandbox_pool_name(const struct sandbox *s)
{
    return pool_names[sandbox_facts(s)->origin];
}
