#include "daemon/machine/shape_private.h"

#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "daemon/machine/machine.h"
#include "daemon/machine/monitor.h"
#include "daemon/machine/template.h"

#define TRIM_INTERVAL_MS   5000u
#define DEMAND_HALF_LIFE_S 2.0
#define UNUSED_AFTER_NS    (600 * NS_PER_S) /* then a shape's memory is given back */

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

unsigned pool_target(const struct shape *s)
{
    unsigned maximum = s->set->machine->pool_max;
    unsigned wanted = (unsigned)(demand_now(s) + 0.5);

    if (s->state != SHAPE_READY || s->set->stopping)
        return 0;
    if (wanted > maximum)
        wanted = maximum;
    return wanted > s->minimum ? wanted : s->minimum;
}

struct monitor *pool_take_idle(struct shape *s)
{
    struct shell *shell = TAILQ_FIRST(&s->idle);
    struct monitor *m = shell->monitor;

    demand_add(s);
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
    shape_pump(s);
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
    log_warn("a pooled guest of template %s ended: %s", s->key.template->name, text);
    if (building && s->request_count > 0) {
        (void)error_set(&e, end->reason == VMM_GONE_STATE ? ERR_TEMPLATE_CORRUPT : ERR_INTERNAL,
                        "a guest of template %s could not be restored: %.350s",
                        s->key.template->name, text);
        shape_answer(TAILQ_FIRST(&s->requests), NULL, SHAPE_COLD, &e);
    }
    shape_pump(s);
}

int pool_start_shell(struct shape *s, struct error *e)
{
    static const struct monitor_events events = {.built = on_shell_built,
                                                 .exited = on_shell_exited};
    const struct machine *machine = s->set->machine;
    struct shell *shell = calloc(1, sizeof(*shell));
    int scratch = shell != NULL ? snapshot_scratch(&s->snapshot, machine->scratch_fd, e) : -1;

    if (scratch >= 0) {
        const struct monitor_spec spec = {.mode = VMM_MODE_RESTORE,
                                          .vcpus = s->key.vcpus,
                                          .mem_mib = s->key.mem_mib,
                                          .fds = {[VMM_FD_MEMORY] = s->snapshot.mem_fd,
                                                  [VMM_FD_STATE] = s->snapshot.state_fd,
                                                  [VMM_FD_ROOT] = s->key.template->root_fd,
                                                  [VMM_FD_SCRATCH] = scratch,
                                                  [VMM_FD_CHANNEL] = -1}};

        shell->shape = s;
        shell->monitor = monitor_start(machine, &spec, &events, shell, e);
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

bool pool_in_use(const struct shape *s)
{
    return s->minimum > 0 || s->request_count > 0 || s->building_count > 0 || s->idle_count > 0 ||
           !TAILQ_EMPTY(&s->dying) || s->state == SHAPE_LOADING || s->state == SHAPE_BOOTING;
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

        if (s->idle_count >= pool_target(s))
            continue;
        if (pool_start_shell(s, &e) != 0) {
            log_failure(&e, "the pool cannot be refilled");
            s->failures++;
            pool_schedule_refill(set, POOL_REFILL_BACKOFF_MS);
        }
        return;
    }
}

void pool_schedule_refill(struct shape_set *set, uint64_t delay_ms)
{
    if (!set->stopping)
        (void)uv_timer_start(&set->refill, on_refill, delay_ms, 0);
}

/* Shells above the target go, one a round; snapshots that nobody has asked for give back memory. */
static void on_trim(uv_timer_t *timer)
{
    struct shape_set *set = timer->data;
    struct shape *s;

    TAILQ_FOREACH (s, &set->shapes, link) {
        if (s->idle_count > pool_target(s)) {
            struct shell *shell = TAILQ_FIRST(&s->idle);

            TAILQ_REMOVE(&s->idle, shell, link);
            s->idle_count--;
            shell->state = SHELL_DYING;
            TAILQ_INSERT_TAIL(&s->dying, shell, link);
            monitor_kill(shell->monitor);
        } else if (s->state == SHAPE_READY && !pool_in_use(s) &&
                   clock_mono_ns() - s->demand_ns > UNUSED_AFTER_NS) {
            snapshot_fini(&s->snapshot);
            s->state = SHAPE_ABSENT;
        }
    }
    pool_schedule_refill(set, POOL_REFILL_DELAY_MS);
}

void pool_init(struct shape_set *set)
{
    (void)uv_timer_init(set->machine->loop, &set->refill);
    (void)uv_timer_init(set->machine->loop, &set->trim);
    set->refill.data = set;
    set->trim.data = set;
    (void)uv_timer_start(&set->trim, on_trim, TRIM_INTERVAL_MS, TRIM_INTERVAL_MS);
}

void pool_stop(struct shape_set *set)
{
    struct shape *s;
    struct shell *shell;

    uv_close((uv_handle_t *)&set->refill, NULL);
    uv_close((uv_handle_t *)&set->trim, NULL);
    TAILQ_FOREACH (s, &set->shapes, link) {
        TAILQ_FOREACH (shell, &s->idle, link)
            monitor_kill(shell->monitor);
        TAILQ_FOREACH (shell, &s->building, link)
            monitor_kill(shell->monitor);
    }
}
