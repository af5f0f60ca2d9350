#include "daemon/shape.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uv.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "daemon/boot.h"
#include "daemon/context.h"
#include "daemon/fingerprint.h"
#include "daemon/monitor.h"
#include "daemon/snapshot_store.h"

#define REFILL_DELAY_MS    2u    /* between shells, so that requests get the processor first */
#define REFILL_BACKOFF_MS  1000u /* after a shell that died unasked */
#define TRIM_INTERVAL_MS   5000u
#define DEMAND_HALF_LIFE_S 2.0
#define UNUSED_AFTER_NS    (600 * NS_PER_S) /* then a shape's memory is given back */

enum shape_state { SHAPE_ABSENT, SHAPE_LOADING, SHAPE_BOOTING, SHAPE_READY };

struct shape;

struct shape_request {
    TAILQ_ENTRY(shape_request) link;
    struct shape *shape;
    enum sandbox_pool pool;
    shape_given_fn given;
    void *context;
};

struct shell {
    TAILQ_ENTRY(shell) link;
    struct shape *shape;
    struct monitor *monitor;
    enum { SHELL_BUILDING, SHELL_IDLE, SHELL_DYING } state;
};

TAILQ_HEAD(request_list, shape_request);
TAILQ_HEAD(shell_list, shell);

struct shape {
    TAILQ_ENTRY(shape) link;
    struct shape_set *set;
    const struct template *template;
    struct snapshot_key key;
    enum shape_state state;
    struct snapshot snapshot;
    struct error load_error;
    int load_result;
    uv_work_t load;
    struct boot *boot;
    struct request_list requests;
    struct shell_list idle;     /* built, oldest first */
    struct shell_list building; /* on the way */
    struct shell_list dying;    /* killed because there were too many */
    unsigned request_count;
    unsigned idle_count;
    unsigned building_count;
    unsigned minimum; /* shells kept whatever the demand */
    double demand;    /* takes, decaying */
    uint64_t demand_ns;
    unsigned failures; /* shells that died unasked since the last good one */
    void (*warm)(struct daemon *d, const struct error *e);
};

TAILQ_HEAD(shape_list, shape);

struct shape_set {
    struct daemon *daemon;
    struct shape_list shapes;
    unsigned count;
    bool stopping;
    uv_timer_t refill;
    uv_timer_t trim;
};

static void pump(struct shape *s);

/* --- demand ------------------------------------------------------------------------------------
 */

static double demand_now(const struct shape *s)
{
    double passed_s = (double)(clock_mono_ns() - s->demand_ns) / 1e9;

    return s->demand * exp2(-passed_s / DEMAND_HALF_LIFE_S);
}

static void demand_add(struct shape *s)
{
    s->demand = demand_now(s) + 1;
    s->demand_ns = clock_mono_ns();
}

static unsigned target(const struct shape *s)
{
    unsigned maximum = s->set->daemon->settings.pool_max;
    unsigned wanted = (unsigned)(demand_now(s) + 0.5);

    if (s->state != SHAPE_READY || s->set->stopping)
        return 0;
    if (wanted > maximum)
        wanted = maximum;
    return wanted > s->minimum ? wanted : s->minimum;
}

/* --- requests ----------------------------------------------------------------------------------
 */

static void answer(struct shape_request *r, struct monitor *m, enum sandbox_pool pool,
                   const struct error *e)
{
    TAILQ_REMOVE(&r->shape->requests, r, link);
    r->shape->request_count--;
    r->given(m, pool, e, r->context);
    free(r);
}

static void fail_all(struct shape *s, const struct error *e)
{
    struct shape_request *r;

    while ((r = TAILQ_FIRST(&s->requests)) != NULL)
        answer(r, NULL, r->pool, e);
    if (s->warm != NULL) {
        s->warm(s->set->daemon, e);
        s->warm = NULL;
    }
}

void shape_request_cancel(struct shape_request *r)
{
    if (r == NULL)
        return;
    TAILQ_REMOVE(&r->shape->requests, r, link);
    r->shape->request_count--;
    free(r);
}

/* --- shells ------------------------------------------------------------------------------------
 */

static void schedule_refill(struct shape_set *set, uint64_t delay_ms);

static struct monitor *take_idle(struct shape *s)
{
    struct shell *shell = TAILQ_FIRST(&s->idle);
    struct monitor *m = shell->monitor;

    TAILQ_REMOVE(&s->idle, shell, link);
    s->idle_count--;
    free(shell);
    return m;
}

static void on_shell_built(struct monitor *m, void *context)
{
    struct shell *shell = context;
    struct shape *s = shell->shape;

    (void)m;
    shell->state = SHELL_IDLE;
    TAILQ_REMOVE(&s->building, shell, link);
    s->building_count--;
    TAILQ_INSERT_TAIL(&s->idle, shell, link);
    s->idle_count++;
    s->failures = 0;
    pump(s);
}

static void on_shell_exited(struct monitor *m, const struct monitor_end *end, void *context)
{
    struct shell *shell = context;
    struct shape *s = shell->shape;
    struct error e = ERROR_INIT;
    char text[VMM_TEXT_MAX];
    bool building = shell->state == SHELL_BUILDING;

    (void)m;
    monitor_end_text(end, text, sizeof(text));
    if (shell->state == SHELL_DYING) {
        TAILQ_REMOVE(&s->dying, shell, link);
    } else {
        TAILQ_REMOVE(building ? &s->building : &s->idle, shell, link);
        *(building ? &s->building_count : &s->idle_count) -= 1;
    }
    bool expected = shell->state == SHELL_DYING || s->set->stopping;
    free(shell);
    if (expected)
        return;
    s->failures++;
    log_warn("a pooled guest of template %s ended: %s", s->template->name, text);
    if (building && s->request_count > 0) {
        (void)error_set(&e, end->reason == VMM_GONE_STATE ? ERR_TEMPLATE_CORRUPT : ERR_INTERNAL,
                        "a guest of template %s could not be restored: %.350s", s->template->name,
                        text);
        answer(TAILQ_FIRST(&s->requests), NULL, SANDBOX_POOL_COLD, &e);
    }
    pump(s);
}

static int start_shell(struct shape *s, struct error *e)
{
    static const struct monitor_events events = {.built = on_shell_built,
                                                 .exited = on_shell_exited};
    struct daemon *d = s->set->daemon;
    struct shell *shell = calloc(1, sizeof(*shell));
    int scratch = shell != NULL ? snapshot_scratch(&s->snapshot, d->scratch_fd, e) : -1;

    if (scratch >= 0) {
        const struct monitor_spec spec = {.mode = VMM_MODE_RESTORE,
                                          .vcpus = s->key.vcpus,
                                          .mem_mib = s->key.mem_mib,
                                          .fds = {[VMM_FD_MEMORY] = s->snapshot.mem_fd,
                                                  [VMM_FD_STATE] = s->snapshot.state_fd,
                                                  [VMM_FD_ROOT] = s->template->root_fd,
                                                  [VMM_FD_SCRATCH] = scratch,
                                                  [VMM_FD_CHANNEL] = -1}};

        shell->shape = s;
        shell->monitor = monitor_start(d, &spec, &events, shell, e);
        fd_close(&scratch);
    }
    if (shell == NULL || shell->monitor == NULL) {
        if (shell == NULL)
            (void)error_set(e, ERR_INTERNAL, "out of memory");
        free(shell);
        return -1;
    }
    TAILQ_INSERT_TAIL(&s->building, shell, link);
    s->building_count++;
    return 0;
}

static void check_warm(struct shape *s)
{
    if (s->warm != NULL && s->idle_count >= s->minimum) {
        s->warm(s->set->daemon, NULL);
        s->warm = NULL;
    }
}

/* --- the snapshot ------------------------------------------------------------------------------
 */

static void on_boot_done(const struct snapshot *snapshot, const struct error *e, void *context)
{
    struct shape *s = context;

    s->boot = NULL;
    if (snapshot != NULL) {
        s->snapshot = *snapshot;
        s->state = SHAPE_READY;
        pump(s);
    } else {
        s->state = SHAPE_ABSENT;
        log_failure(e, "boot");
        fail_all(s, e);
    }
}

static void start_boot(struct shape *s)
{
    struct error e = ERROR_INIT;
    struct shape_request *r;

    s->state = SHAPE_BOOTING;
    TAILQ_FOREACH (r, &s->requests, link)
        r->pool = SANDBOX_POOL_BOOT;
    s->boot = boot_start(s->set->daemon, s->template, &s->key, on_boot_done, s, &e);
    if (s->boot == NULL)
        on_boot_done(NULL, &e, s);
}

static void load_work(uv_work_t *work)
{
    struct shape *s = work->data;

    s->load_result =
        snapshot_load(&s->snapshot, &s->key, s->set->daemon->snapshots_fd, &s->load_error);
}

static void load_done(uv_work_t *work, int status)
{
    struct shape *s = work->data;

    (void)status;
    if (s->set->stopping) {
        s->state = SHAPE_ABSENT;
    } else if (s->load_result == 0) {
        s->state = SHAPE_READY;
        pump(s);
    } else if (s->load_result > 0) {
        start_boot(s);
    } else {
        s->state = SHAPE_ABSENT;
        log_failure(&s->load_error, "snapshot");
        fail_all(s, &s->load_error);
    }
}

static void start_load(struct shape *s)
{
    s->state = SHAPE_LOADING;
    s->load_error = (struct error)ERROR_INIT;
    s->load.data = s;
    fingerprint_shape(&s->set->daemon->templates, s->template, s->key.fingerprint,
                      sizeof(s->key.fingerprint));
    (void)uv_queue_work(&s->set->daemon->loop, &s->load, load_work, load_done);
}

/* --- the one place that moves a shape forward --------------------------------------------------
 */

static void pump(struct shape *s)
{
    if (s->set->stopping)
        return;
    if (s->state == SHAPE_ABSENT && (s->request_count > 0 || s->minimum > 0)) {
        start_load(s);
        return;
    }
    if (s->state != SHAPE_READY)
        return;
    while (s->request_count > 0 && s->idle_count > 0) {
        struct shape_request *r = TAILQ_FIRST(&s->requests);

        demand_add(s);
        answer(r, take_idle(s), r->pool, NULL);
    }
    while (s->building_count < s->request_count) {
        struct error e = ERROR_INIT;

        if (start_shell(s, &e) == 0)
            continue;
        answer(TAILQ_FIRST(&s->requests), NULL, SANDBOX_POOL_COLD, &e);
    }
    check_warm(s);
    schedule_refill(s->set, s->failures > 0 ? REFILL_BACKOFF_MS : REFILL_DELAY_MS);
}

/* One shell for the first shape that is below its target; on_shell_built schedules the next. */
static void on_refill(uv_timer_t *timer)
{
    struct shape_set *set = timer->data;
    struct shape *s;

    TAILQ_FOREACH (s, &set->shapes, link) {
        if (s->building_count > 0)
            return;
    }
    TAILQ_FOREACH (s, &set->shapes, link) {
        struct error e = ERROR_INIT;

        if (s->idle_count >= target(s))
            continue;
        if (start_shell(s, &e) != 0) {
            log_failure(&e, "the pool cannot be refilled");
            s->failures++;
            schedule_refill(set, REFILL_BACKOFF_MS);
        }
        return;
    }
}

static void schedule_refill(struct shape_set *set, uint64_t delay_ms)
{
    if (!set->stopping)
        (void)uv_timer_start(&set->refill, on_refill, delay_ms, 0);
}

static bool in_use(const struct shape *s)
{
    return s->minimum > 0 || s->request_count > 0 || s->building_count > 0 || s->idle_count > 0 ||
           !TAILQ_EMPTY(&s->dying) || s->state == SHAPE_LOADING || s->state == SHAPE_BOOTING;
}

/* Shells above the target go, one a round; snapshots that nobody has asked for give back memory. */
static void on_trim(uv_timer_t *timer)
{
    struct shape_set *set = timer->data;
    struct shape *s;

    TAILQ_FOREACH (s, &set->shapes, link) {
        if (s->idle_count > target(s)) {
            struct shell *shell = TAILQ_FIRST(&s->idle);

            TAILQ_REMOVE(&s->idle, shell, link);
            s->idle_count--;
            shell->state = SHELL_DYING;
            TAILQ_INSERT_TAIL(&s->dying, shell, link);
            monitor_kill(shell->monitor);
        } else if (s->state == SHAPE_READY && !in_use(s) &&
                   clock_mono_ns() - s->demand_ns > UNUSED_AFTER_NS) {
            snapshot_fini(&s->snapshot);
            s->state = SHAPE_ABSENT;
        }
    }
    schedule_refill(set, REFILL_DELAY_MS);
}

/* --- the set -----------------------------------------------------------------------------------
 */

int shape_set_new(struct daemon *d, struct shape_set **ret_set, struct error *e)
{
    struct shape_set *set = calloc(1, sizeof(*set));

    if (set == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    set->daemon = d;
    TAILQ_INIT(&set->shapes);
    (void)uv_timer_init(&d->loop, &set->refill);
    (void)uv_timer_init(&d->loop, &set->trim);
    set->refill.data = set;
    set->trim.data = set;
    (void)uv_timer_start(&set->trim, on_trim, TRIM_INTERVAL_MS, TRIM_INTERVAL_MS);
    *ret_set = set;
    return 0;
}

void shape_set_stop(struct shape_set *set)
{
    const struct error e = {.code = ERR_SHUTTING_DOWN, .message = "the daemon stops"};
    struct shape *s;
    struct shell *shell;

    set->stopping = true;
    uv_close((uv_handle_t *)&set->refill, NULL);
    uv_close((uv_handle_t *)&set->trim, NULL);
    TAILQ_FOREACH (s, &set->shapes, link) {
        s->warm = NULL;
        fail_all(s, &e);
        boot_cancel(s->boot);
        TAILQ_FOREACH (shell, &s->idle, link)
            monitor_kill(shell->monitor);
        TAILQ_FOREACH (shell, &s->building, link)
            monitor_kill(shell->monitor);
    }
}

void shape_set_free(struct shape_set *set)
{
    struct shape *s;

    if (set == NULL)
        return;
    while ((s = TAILQ_FIRST(&set->shapes)) != NULL) {
        TAILQ_REMOVE(&set->shapes, s, link);
        snapshot_fini(&s->snapshot);
        free(s);
    }
    free(set);
}

/* Makes room for a new shape by forgetting the one that was asked for longest ago. */
static bool make_room(struct shape_set *set)
{
    struct shape *oldest = NULL;
    struct shape *s;

    if (set->count < SHAPE_COUNT_MAX)
        return true;
    TAILQ_FOREACH (s, &set->shapes, link) {
        if (!in_use(s) && (oldest == NULL || s->demand_ns < oldest->demand_ns))
            oldest = s;
    }
    if (oldest == NULL)
        return false;
    TAILQ_REMOVE(&set->shapes, oldest, link);
    set->count--;
    snapshot_fini(&oldest->snapshot);
    free(oldest);
    return true;
}

static struct shape *find_or_add(struct shape_set *set, const struct template *t, uint32_t vcpus,
                                 uint32_t mem_mib, uint32_t disk_mib, struct error *e)
{
    struct shape *s;

    TAILQ_FOREACH (s, &set->shapes, link) {
        if (s->template == t && s->key.vcpus == vcpus && s->key.mem_mib == mem_mib &&
            s->key.disk_mib == disk_mib)
            return s;
    }
    if (!make_room(set)) {
        (void)error_set(e, ERR_NO_CAPACITY,
                        "%u combinations of template, vcpus, mem_mib and disk_mib are in use",
                        SHAPE_COUNT_MAX);
        (void)error_remedy(e, "use one that is in use already, or try again later");
        return NULL;
    }
    s = calloc(1, sizeof(*s));
    if (s == NULL) {
        (void)error_set(e, ERR_INTERNAL, "out of memory");
        return NULL;
    }
    s->set = set;
    s->template = t;
    s->snapshot = (struct snapshot)SNAPSHOT_INIT;
    s->key = (struct snapshot_key){.vcpus = vcpus, .mem_mib = mem_mib, .disk_mib = disk_mib};
    (void)snprintf(s->key.name, sizeof(s->key.name), "%s-%u-%u-%u", t->name, vcpus, mem_mib,
                   disk_mib);
    TAILQ_INIT(&s->requests);
    TAILQ_INIT(&s->idle);
    TAILQ_INIT(&s->building);
    TAILQ_INIT(&s->dying);
    s->demand_ns = clock_mono_ns();
    TAILQ_INSERT_TAIL(&set->shapes, s, link);
    set->count++;
    return s;
}

int shape_request(struct shape_set *set, const struct template *t, uint32_t vcpus, uint32_t mem_mib,
                  uint32_t disk_mib, shape_given_fn given, void *context,
                  struct shape_request **ret_request, struct error *e)
{
    struct shape *s = find_or_add(set, t, vcpus, mem_mib, disk_mib, e);

    if (s == NULL)
        return -1;
    struct shape_request *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    r->shape = s;
    r->given = given;
    r->context = context;
    r->pool = s->state == SHAPE_READY && s->idle_count > 0 ? SANDBOX_POOL_HIT
              : s->state == SHAPE_BOOTING                  ? SANDBOX_POOL_BOOT
                                                           : SANDBOX_POOL_COLD;
    TAILQ_INSERT_TAIL(&s->requests, r, link);
    s->request_count++;
    *ret_request = r;
    pump(s);
    return 0;
}

void shape_keep_warm(struct shape_set *set, const struct template *t, uint32_t vcpus,
                     uint32_t mem_mib, uint32_t disk_mib,
                     void (*warm)(struct daemon *d, const struct error *e))
{
    struct error e = ERROR_INIT;
    struct shape *s = find_or_add(set, t, vcpus, mem_mib, disk_mib, &e);

    if (s == NULL) {
        warm(set->daemon, &e);
        return;
    }
    s->minimum = set->daemon->settings.pool_min;
    s->warm = warm;
    if (s->minimum == 0 && s->state == SHAPE_ABSENT)
        start_load(s);
    else
        pump(s);
}

void shape_set_describe(const struct shape_set *set,
                        void (*each)(const struct shape_facts *facts, void *context), void *context)
{
    static const char *const names[] = {"absent", "loading", "booting", "ready"};
    struct shape *s;

    TAILQ_FOREACH (s, &set->shapes, link) {
        const struct shape_facts facts = {.template_name = s->template->name,
                                          .vcpus = s->key.vcpus,
                                          .mem_mib = s->key.mem_mib,
                                          .disk_mib = s->key.disk_mib,
                                          .state = names[s->state],
                                          .shells = s->idle_count,
                                          .building = s->building_count,
                                          .target = target(s)};
        each(&facts, context);
    }
}
