#include "daemon/sandbox/sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/context.h"
#include "daemon/link/agent_link.h"
#include "daemon/machine/monitor.h"
#include "daemon/machine/shape.h"
#include "daemon/process/env.h"
#include "daemon/sandbox/sandbox_private.h"
#include "json/json.h"

#define READY_TIMEOUT_MS                                                                           \
    30000u /* from START to READY; an interpreted guest on a busy host is slow */

/* --- small things ------------------------------------------------------------------------------
 */

static void make_id(char id[SANDBOX_ID_BYTES_MAX])
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint8_t bytes[26];

    /* Does not fail once the kernel's pool is up, and reads of this size are never cut. */
    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        abort();
    memcpy(id, "sb_", 3);
    for (size_t i = 0; i < sizeof(bytes); i++)
        id[3 + i] = digits[bytes[i] & 31];
    id[3 + sizeof(bytes)] = '\0';
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct sandbox *s = handle->data;

    cJSON_Delete(s->env);
    cJSON_Delete(s->labels);
    free(s);
}

/* Nothing is left on the host: tells whoever waits and frees the rest. */
static void finish(struct sandbox *s)
{
    struct gone_call *call;

    sandbox_table_remove(s);
    while ((call = SLIST_FIRST(&s->gone)) != NULL) {
        SLIST_REMOVE_HEAD(&s->gone, link);
        call->gone(call->context);
        free(call);
    }
    uv_close((uv_handle_t *)&s->timer, on_timer_closed);
}

static void on_finish_timer(uv_timer_t *timer)
{
    finish(timer->data);
}

/* Ends a sandbox by itself: the creator, when it still waits, is told why. */
static void fail(struct sandbox *s, enum sandbox_end why, const struct error *e)
{
    sandbox_created_fn created = s->state == SANDBOX_STARTING ? s->created : NULL;

    if (s->state == SANDBOX_ENDING)
        return;
    s->error = *e;
    s->created = NULL;
    sandbox_destroy(s, why, NULL, NULL);
    if (created != NULL)
        created(NULL, e, s->context);
}

/* --- the monitor -------------------------------------------------------------------------------
 */

static void on_timeout(uv_timer_t *timer)
{
    struct sandbox *s = timer->data;
    struct error e = ERROR_INIT;

    if (s->state == SANDBOX_STARTING) {
        (void)error_set(&e, ERR_BOOT_TIMEOUT, "the guest was not ready within %u s",
                        READY_TIMEOUT_MS / 1000);
        fail(s, SANDBOX_END_GUEST_FAILED, &e);
    } else {
        (void)error_set(&e, ERR_SANDBOX_GONE, "it reached its timeout_s");
        fail(s, SANDBOX_END_TIMEOUT, &e);
    }
}

static void on_first(struct monitor *m, uint64_t mono_ns, void *context)
{
    struct sandbox *s = context;

    (void)m;
    s->times.first_ns = mono_ns;
}

/* A channel that was closed says that the monitor is about to end; how, it will say itself. */
static void on_broken(void *context, const struct error *e)
{
    struct sandbox *s = context;

    s->why_open = e->code == ERR_SANDBOX_GONE;
    fail(s, s->why_open ? SANDBOX_END_MONITOR : SANDBOX_END_GUEST_FAILED, e);
}

static void on_ready(struct monitor *m, uint64_t mono_ns, void *context)
{
    struct sandbox *s = context;
    struct error e = ERROR_INIT;
    sandbox_created_fn created = s->created;

    if (s->state != SANDBOX_STARTING)
        return;
    s->times.ready_ns = mono_ns;
    if (agent_link_new(&s->daemon->loop, monitor_take_channel(m), on_broken, s, &s->agent, &e) !=
        0) {
        fail(s, SANDBOX_END_GUEST_FAILED, &e);
        return;
    }
    s->state = SANDBOX_RUNNING;
    s->created = NULL;
    log_debug("sandbox %s runs, pid %d", s->id, (int)monitor_pid(m));
    sandbox_set_timeout(s, s->timeout_s);
    created(s, NULL, s->context);
}

static enum sandbox_end end_of(const struct monitor_end *end)
{
    if (end->started && end->reason == VMM_GONE_SHUTDOWN)
        return SANDBOX_END_GUEST_SHUTDOWN;
    if (end->started && end->reason == VMM_GONE_FAILED)
        return SANDBOX_END_GUEST_FAILED;
    return SANDBOX_END_MONITOR;
}

static void ask_for_monitor(struct sandbox *s);

/* A shell can die between the pool's last look at it and its start. Nothing has run in it, so the
 * request goes on with another one; a second death is no accident. */
static bool take_another(struct sandbox *s)
{
    if (s->state != SANDBOX_STARTING || s->pool != SANDBOX_POOL_HIT || s->times.first_ns != 0 ||
        s->took_another)
        return false;
    s->took_another = true;
    (void)uv_timer_stop(&s->timer);
    ask_for_monitor(s);
    return true;
}

static void on_exited(struct monitor *m, const struct monitor_end *end, void *context)
{
    struct sandbox *s = context;
    struct error e = ERROR_INIT;
    char text[VMM_TEXT_MAX];

    (void)m;
    s->monitor = NULL;
    if (take_another(s))
        return;
    if (s->state != SANDBOX_ENDING || s->why_open) {
        monitor_end_text(end, text, sizeof(text));
        (void)error_set(&e, s->state == SANDBOX_STARTING ? ERR_INTERNAL : ERR_SANDBOX_GONE,
                        "%.400s", text);
        log_warn("sandbox %s ended: %s", s->id, text);
        fail(s, end_of(end), &e);
        s->why = end_of(end);
        s->error = e;
    }
    finish(s);
}

static void fill_identity(const struct sandbox *s, struct identity_page *page)
{
    *page = (struct identity_page){
        .magic = IDENTITY_MAGIC, .version = IDENTITY_VERSION, .realtime_ns = clock_real_ns()};
    if (getrandom(page->entropy, sizeof(page->entropy), 0) != (ssize_t)sizeof(page->entropy) ||
        getrandom(page->machine_id, sizeof(page->machine_id), 0) !=
            (ssize_t)sizeof(page->machine_id))
        abort();
    /* The id's "sb_" is not a host name. */
    (void)snprintf(page->hostname, sizeof(page->hostname), "%.12s", s->id + 3);
    (void)snprintf(page->sandbox_id, sizeof(page->sandbox_id), "%s", s->id);
}

static void on_given(struct monitor *m, enum sandbox_pool pool, const struct error *e,
                     void *context)
{
    static const struct monitor_events events = {
        .first = on_first, .ready = on_ready, .exited = on_exited};
    struct sandbox *s = context;
    struct identity_page identity;
    struct error failure = ERROR_INIT;

    s->request = NULL;
    s->pool = pool;
    if (m == NULL) {
        fail(s, SANDBOX_END_MONITOR, e);
        return;
    }
    s->monitor = m;
    monitor_set_events(m, &events, s);
    s->times.loaded_ns = clock_mono_ns();
    fill_identity(s, &identity);
    int result = monitor_go(m, &identity, &failure);
    explicit_bzero(&identity, sizeof(identity));
    if (result != 0) { /* it is dead already, or as good as dead; on_exited goes on */
        log_failure(&failure, "a guest cannot be started");
        monitor_kill(m);
        return;
    }
    if (s->cpu_quota_percent != s->vcpus * 100)
        monitor_set_cpu_quota(m, s->cpu_quota_percent);
    (void)uv_timer_start(&s->timer, on_timeout, READY_TIMEOUT_MS, 0);
}

static void ask_for_monitor(struct sandbox *s)
{
    struct error e = ERROR_INIT;

    if (shape_request(s->daemon->shapes, s->template, s->vcpus, s->mem_mib, s->disk_mib, on_given,
                      s, &s->request, &e) != 0)
        fail(s, SANDBOX_END_MONITOR, &e);
}

/* A request that finds a shell is answered within the call that makes it; the creator is not. */
static void on_start_timer(uv_timer_t *timer)
{
    ask_for_monitor(timer->data);
}

/* --- creation ----------------------------------------------------------------------------------
 */

static int check_range(uint32_t value, const char *field, const char *unit, uint32_t min,
                       uint32_t max, struct error *e)
{
    if (value >= min && value <= max)
        return 0;
    (void)error_set(e, ERR_INVALID_FIELD, "%s is %u%s", field, value, unit);
    return error_remedy(e, "give %s a value from %u to %u", field, min, max);
}

/* Kept as it came, and judged now, not when the first command starts. */
static int copy_env(struct sandbox *s, const struct cJSON *env, struct error *e)
{
    struct env judged = {0};
    int result = env_merge_json(&judged, env, e);

    env_fini(&judged);
    if (result == 0 && (s->env = cJSON_Duplicate(env, 1)) == NULL)
        result = error_set(e, ERR_INTERNAL, "out of memory");
    return result;
}

static int fill_params(struct sandbox *s, const struct sandbox_params *p, struct error *e)
{
    const struct settings *set = &s->daemon->settings;

    s->template = template_find(&s->daemon->templates,
                                p->template != NULL ? p->template : set->default_template, e);
    if (s->template == NULL)
        return -1;
    s->vcpus = p->vcpus != 0 ? p->vcpus : set->default_vcpus;
    s->mem_mib = p->mem_mib != 0 ? p->mem_mib : set->default_mem_mib;
    s->disk_mib = p->disk_mib != 0 ? p->disk_mib : set->default_disk_mib;
    s->timeout_s = p->timeout_s != 0 ? p->timeout_s : set->default_timeout_s;
    s->cpu_quota_percent = p->cpu_quota_percent != 0 ? p->cpu_quota_percent : s->vcpus * 100;
    if (check_range(s->vcpus, "vcpus", "", 1, set->max_vcpus, e) != 0 ||
        check_range(s->mem_mib, "mem_mib", " MiB", SANDBOX_MEM_MIB_MIN, set->max_mem_mib, e) != 0 ||
        check_range(s->disk_mib, "disk_mib", " MiB", SANDBOX_DISK_MIB_MIN, SANDBOX_DISK_MIB_MAX,
                    e) != 0 ||
        check_range(s->timeout_s, "timeout_s", " s", 1, SANDBOX_TIMEOUT_S_MAX, e) != 0 ||
        check_range(s->cpu_quota_percent, "cpu_quota_percent", "", 1, s->vcpus * 100, e) != 0)
        return -1;
    if (p->env != NULL && copy_env(s, p->env, e) != 0)
        return -1;
    return p->labels != NULL ? sandbox_set_labels(s, p->labels, e) : 0;
}

struct sandbox *sandbox_create(struct daemon *d, const struct sandbox_params *params,
                               uint64_t arrived_ns, sandbox_created_fn created, void *context,
                               struct error *e)
{
    if (sandbox_table_admit(d, e) != 0)
        return NULL;
    struct sandbox *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        (void)error_set(e, ERR_INTERNAL, "out of memory");
        return NULL;
    }
    *s = (struct sandbox){.daemon = d,
                          .times.arrived_ns = arrived_ns,
                          .created_real_ns = clock_real_ns(),
                          .created = created,
                          .context = context};
    if (fill_params(s, params, e) != 0) {
        cJSON_Delete(s->env);
        cJSON_Delete(s->labels);
        free(s);
        return NULL;
    }
    process_table_init(&s->processes, &d->process_memory);
    make_id(s->id);
    (void)uv_timer_init(&d->loop, &s->timer);
    s->timer.data = s;
    sandbox_table_add(s);
    (void)uv_timer_start(&s->timer, on_start_timer, 0, 0);
    return s;
}

/* --- the end -----------------------------------------------------------------------------------
 */

void sandbox_destroy(struct sandbox *s, enum sandbox_end why, sandbox_gone_fn gone, void *context)
{
    if (gone != NULL) {
        struct gone_call *call = calloc(1, sizeof(*call));

        if (call == NULL)
            abort(); /* two words: there is nothing sensible left to do */
        *call = (struct gone_call){.gone = gone, .context = context};
        SLIST_INSERT_HEAD(&s->gone, call, link);
    }
    if (s->state == SANDBOX_ENDING)
        return;
    s->state = SANDBOX_ENDING;
    s->why = why;
    (void)uv_timer_stop(&s->timer);
    shape_request_cancel(s->request);
    s->request = NULL;
    agent_link_free(s->agent);
    s->agent = NULL;
    process_table_fini(&s->processes);
    if (s->monitor != NULL)
        monitor_kill(s->monitor);
    else
        (void)uv_timer_start(&s->timer, on_finish_timer, 0, 0);
}

void sandbox_stop(struct sandbox *s)
{
    struct error e = ERROR_INIT;

    (void)error_set(&e, ERR_SHUTTING_DOWN, "the daemon stops");
    fail(s, SANDBOX_END_STOPPED, &e);
}

void sandbox_set_timeout(struct sandbox *s, uint32_t timeout_s)
{
    s->timeout_s = timeout_s;
    s->expires_real_ns = clock_real_ns() + timeout_s * NS_PER_S;
    (void)uv_timer_start(&s->timer, on_timeout, (uint64_t)timeout_s * 1000, 0);
}
