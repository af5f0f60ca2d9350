/* What a sandbox tells about itself, and its labels. */
#include "daemon/sandbox/sandbox.h"

#include <string.h>

#include "base/clock.h"
#include "daemon/machine/template.h"
#include "daemon/sandbox/sandbox_private.h"
#include "json/json_write.h"

static const char *const state_names[] = {
    [SANDBOX_STARTING] = "starting", [SANDBOX_RUNNING] = "running", [SANDBOX_ENDING] = "ending"};
static const char *const pool_names[] = {
    [SANDBOX_POOL_HIT] = "hit", [SANDBOX_POOL_COLD] = "cold", [SANDBOX_POOL_BOOT] = "boot"};
static const char *const end_names[] = {[SANDBOX_END_NONE] = "none",
                                        [SANDBOX_END_DELETED] = "deleted",
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
    json_begin_object(w, "times");
    put_since(w, "restore_ms", s->times.arrived_ns, s->times.loaded_ns);
    put_since(w, "first_instruction_ms", s->times.arrived_ns, s->times.first_ns);
    put_since(w, "ready_ms", s->times.arrived_ns, s->times.ready_ns);
    json_end_object(w);
}

void sandbox_describe(const struct sandbox *s, struct json_writer *w)
{
    json_put_text(w, "id", s->id);
    json_put_text(w, "state", state_names[s->state]);
    json_put_text(w, "template", s->template->name);
    json_put_int(w, "vcpus", s->vcpus);
    json_put_int(w, "mem_mib", s->mem_mib);
    json_put_int(w, "disk_mib", s->disk_mib);
    json_put_int(w, "cpu_quota_percent", s->cpu_quota_percent);
    json_put_int(w, "timeout_s", s->timeout_s);
    json_put_time(w, "created_at", s->created_real_ns);
    if (s->expires_real_ns != 0)
        json_put_time(w, "expires_at", s->expires_real_ns);
    else
        json_put_null(w, "expires_at");
    if (s->labels != NULL) {
        json_put_tree(w, "labels", s->labels);
    } else {
        json_begin_object(w, "labels");
        json_end_object(w);
    }
    json_put_text(w, "pool", pool_names[s->pool]);
    sandbox_describe_times(s, w);
}

int sandbox_set_labels(struct sandbox *s, const struct cJSON *labels, struct error *e)
{
    if (cJSON_GetArraySize(labels) > (int)SANDBOX_LABELS_MAX) {
        (void)error_set(e, ERR_INVALID_FIELD, "labels has %d entries", cJSON_GetArraySize(labels));
        return error_remedy(e, "give at most %u", SANDBOX_LABELS_MAX);
    }
    struct cJSON *copy = cJSON_Duplicate(labels, 1);
    if (copy == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    cJSON_Delete(s->labels);
    s->labels = copy;
    return 0;
}

bool sandbox_has_label(const struct sandbox *s, const char *name, const char *value)
{
    const struct cJSON *label = cJSON_GetObjectItemCaseSensitive(s->labels, name);

    return label != NULL && cJSON_IsString(label) && strcmp(label->valuestring, value) == 0;
}

const char *sandbox_id(const struct sandbox *s)
{
    return s->id;
}

const char *sandbox_pool_name(const struct sandbox *s)
{
    return pool_names[s->pool];
}

struct process_table *sandbox_processes(struct sandbox *s)
{
    return &s->processes;
}

struct agent_link *sandbox_agent(struct sandbox *s)
{
    return s->agent;
}

const struct template *sandbox_template(const struct sandbox *s)
{
    return s->template;
}

const struct cJSON *sandbox_env(const struct sandbox *s)
{
    return s->env;
}

enum sandbox_state sandbox_state(const struct sandbox *s)
{
    return s->state;
}
