#include "daemon/sandbox/sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/link/agent_link.h"
#include "daemon/machine/monitor.h"
#include "daemon/machine/shape_set.h"
#include "daemon/process/process_table.h"

#define READY_TIMEOUT_MS                                                                           \
    30000u /* from START to READY; an interpreted guest on a busy host is slow */

struct gone_call {
    SLIST_ENTRY(gone_call) link;
    sandbox_gone_fn gone;
    void *context;
};

struct sandbox {
    const struct sandbox_home *home;
    struct sandbox_facts facts;
    bool took_another;             /* its first shell died before it ran */
    struct shape_request *request; /* while it waits for a monitor */
    struct monitor *monitor;
    struct agent_link *agent;
    struct process_table processes;
    uv_timer_t timer; /* STARTING: until ready; RUNNING: the wall-clock limit */
    sandbox_created_fn created;
    void *context;
    SLIST_HEAD(, gone_call) gone;
};

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

    sandbox_plan_fini(&s->facts.plan);
    free(s);
}

/* Nothing is left on the host: tells whoever waits and frees the rest. */
static void finish(struct sandbox *s)
{
    struct gone_call *call;

    s->home->ended(s, s->home->context);
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
    sandbox_created_fn created = s->facts.state == SANDBOX_STARTING ? s->created : NULL;

    if (s->facts.state == SANDBOX_ENDING)
        return;
    s->facts.error = *e;
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

    if (s->facts.state == SANDBOX_STARTING) {
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
    s->facts.times.first_ns = mono_ns;
}

/* A channel that was closed says that the monitor is about to end; how, it will say itself. */
static void on_broken(void *context, const struct error *e)
{
    struct sandbox *s = context;

    s->facts.why_open = e->code == ERR_SANDBOX_GONE;
    fail(s, s->facts.why_open ? SANDBOX_END_MONITOR : SANDBOX_END_GUEST_FAILED, e);
}

static void on_ready(struct monitor *m, uint64_t mono_ns, void *context)
{
    struct sandbox *s = context;
    struct error e = ERROR_INIT;
    sandbox_created_fn created = s->created;

    if (s->facts.state != SANDBOX_STARTING)
        return;
    s->facts.times.ready_ns = mono_ns;
    if (agent_link_new(s->home->loop, monitor_take_channel(m), on_broken, s, &s->agent, &e) != 0) {
        fail(s, SANDBOX_END_GUEST_FAILED, &e);
        return;
    }
    s->facts.state = SANDBOX_RUNNING;
    s->created = NULL;
    log_debug("sandbox %s runs, pid %d", s->facts.id, (int)monitor_pid(m));
    sandbox_set_timeout(s, s->facts.plan.timeout_s);
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

static int find_monitor(struct sandbox *s, struct error *e);

/* A shell can die between the pool's last look at it and its start. Nothing has run in it, so the
 * request goes on with another one; a second death is no accident. */
static bool take_another(struct sandbox *s, struct error *e)
{
    if (s->facts.state != SANDBOX_STARTING || s->facts.origin != SHAPE_POOLED ||
        s->facts.times.first_ns != 0 || s->took_another)
        return false;
    s->took_another = true;
    (void)uv_timer_stop(&s->timer);
    return find_monitor(s, e) == 0;
}

static void on_exited(struct monitor *m, const struct monitor_end *end, void *context)
{
    struct sandbox *s = context;
    struct error e = ERROR_INIT;
    char text[VMM_TEXT_MAX];

    (void)m;
    s->monitor = NULL;
    if (take_another(s, &e))
        return;
    e = (struct error)ERROR_INIT; /* how it came to need another says more */
    if (s->facts.state != SANDBOX_ENDING || s->facts.why_open) {
        monitor_end_text(end, text, sizeof(text));
        (void)error_set(&e, s->facts.state == SANDBOX_STARTING ? ERR_INTERNAL : ERR_SANDBOX_GONE,
                        "%.400s", text);
        log_warn("sandbox %s ended: %s", s->facts.id, text);
        fail(s, end_of(end), &e);
        s->facts.why = end_of(end);
        s->facts.error = e;
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
    (void)snprintf(page->hostname, sizeof(page->hostname), "%.12s", s->facts.id + 3);
    (void)snprintf(page->sandbox_id, sizeof(page->sandbox_id), "%s", s->facts.id);
}

/* It may be dead already, or as good as dead: on_exited goes on then. */
static void start_guest(struct sandbox *s, struct monitor *m, enum shape_origin origin)
{
    static const struct monitor_events events = {
        .first = on_first, .ready = on_ready, .exited = on_exited};
    const struct sandbox_plan *plan = &s->facts.plan;
    struct identity_page identity;
    struct error e = ERROR_INIT;

    s->facts.origin = origin;
    s->monitor = m;
    monitor_set_events(m, &events, s);
    s->facts.times.loaded_ns = clock_mono_ns();
    fill_identity(s, &identity);
    int result = monitor_go(m, &identity, &e);
    explicit_bzero(&identity, sizeof(identity));
    if (result != 0) {
        log_failure(&e, "a guest cannot be started");
        monitor_kill(m);
        return;
    }
    if (plan->cpu_quota_percent != plan->vcpus * 100)
        monitor_set_cpu_quota(m, plan->cpu_quota_percent);
    (void)uv_timer_start(&s->timer, on_timeout, READY_TIMEOUT_MS, 0);
}

static void on_given(struct monitor *m, enum shape_origin origin, const struct error *e,
                     void *context)
{
    struct sandbox *s = context;

    s->request = NULL;
    if (m != NULL) {
        start_guest(s, m, origin);
        return;
    }
    s->facts.origin = origin;
    fail(s, SANDBOX_END_MONITOR, e);
}

/* Takes a shell that is idle, or waits for one. */
static int find_monitor(struct sandbox *s, struct error *e)
{
    const struct sandbox_plan *plan = &s->facts.plan;
    const struct shape_key key = {.template = plan->template,
                                  .vcpus = plan->vcpus,
                                  .mem_mib = plan->mem_mib,
                                  .disk_mib = plan->disk_mib};
    struct monitor *m = shape_set_take(s->home->shapes, &key);

    if (m == NULL)
        return shape_set_wait(s->home->shapes, &key, on_given, s, &s->request, e);
    start_guest(s, m, SHAPE_POOLED);
    return 0;
}

/* --- creation ----------------------------------------------------------------------------------
 */

struct sandbox *sandbox_new(const struct sandbox_home *home, const struct sandbox_plan *plan,
                            uint64_t arrived_ns, sandbox_created_fn created, void *context,
                            struct error *e)
{
    struct sandbox *s = calloc(1, sizeof(*s));

    if (s == NULL) {
        (void)error_set(e, ERR_INTERNAL, "out of memory");
        return NULL;
    }
    *s = (struct sandbox){.home = home,
                          .facts = {.plan = *plan,
                                    .times.arrived_ns = arrived_ns,
                                    .created_real_ns = clock_real_ns()},
                          .created = created,
                          .context = context};
    process_table_init(&s->processes, home->process_memory);
    make_id(s->facts.id);
    (void)uv_timer_init(home->loop, &s->timer);
    s->timer.data = s;
    if (find_monitor(s, e) == 0)
        return s;
    uv_close((uv_handle_t *)&s->timer, on_timer_closed);
    return NULL;
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
    if (s->facts.state == SANDBOX_ENDING)
        return;
    s->facts.state = SANDBOX_ENDING;
    s->facts.why = why;
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
    s->facts.plan.timeout_s = timeout_s;
    s->facts.expires_real_ns = clock_real_ns() + timeout_s * NS_PER_S;
    (void)uv_timer_start(&s->timer, on_timeout, (uint64_t)timeout_s * 1000, 0);
}

int sandbox_set_labels(struct sandbox *s, const struct cJSON *labels, struct error *e)
{
    return sandbox_plan_set_labels(&s->facts.plan, labels, e);
}

/* --- what others may see ------------------------------------------------------------------------
 */

const struct sandbox_facts *sandbox_facts(const struct sandbox *s)
{
    return &s->facts;
}

const char *sandbox_id(const struct sandbox *s)
{
    return s->facts.id;
}

const struct template *sandbox_template(const struct sandbox *s)
{
    return s->facts.plan.template;
}

const struct cJSON *sandbox_env(const struct sandbox *s)
{
    return s->facts.plan.env;
}

struct agent_link *sandbox_agent(struct sandbox *s)
{
    return s->agent;
}

struct process_table *sandbox_processes(struct sandbox *s)
{
    return &s->processes;
}
