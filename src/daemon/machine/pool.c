#include "daemon/machine/pool.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <uv.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "daemon/machine/machine.h"
#include "daemon/machine/monitor.h"
#include "daemon/machine/snapshot_store.h"
#include "daemon/machine/template.h"

#define DEMAND_HALF_LIFE_S 2.0

struct shell {
    TAILQ_ENTRY(shell) link;
    struct pool *pool;
    enum shell_state state;
    uv_work_t copy;
    int scratch_fd; /* the copy's result, -1 with `error` */
    struct error error;
    struct monitor *monitor; /* from BUILDING on; DYING: unless it was given up before */
};

void pool_init(struct pool *p)
{
    TAILQ_INIT(&p->shells);
    p->demand_ns = clock_mono_ns();
}

/* --- counting ----------------------------------------------------------------------------------
 */

unsigned pool_idle(const struct pool *p)
{
    return p->counts[SHELL_IDLE];
}

unsigned pool_coming(const struct pool *p)
{
    return p->counts[SHELL_COPYING] + p->counts[SHELL_BUILDING];
}

unsigned pool_dying(const struct pool *p)
{
    return p->counts[SHELL_DYING];
}

static double demand_now(const struct pool *p)
{
    double passed_s = (double)(clock_mono_ns() - p->demand_ns) / 1e9;

    return p->demand * exp2(-passed_s / DEMAND_HALF_LIFE_S);
}

unsigned pool_target(const struct pool *p)
{
    unsigned maximum = p->machine->pool_max;
    unsigned wanted = (unsigned)(demand_now(p) + 0.5);

    if (wanted > maximum)
        wanted = maximum;
    return wanted > p->minimum ? wanted : p->minimum;
}

static void set_state(struct shell *s, enum shell_state state)
{
    s->pool->counts[s->state]--;
    s->pool->counts[state]++;
    s->state = state;
}

static void forget(struct shell *s)
{
    struct pool *p = s->pool;

    TAILQ_REMOVE(&p->shells, s, link);
    p->counts[s->state]--;
    fd_close(&s->scratch_fd);
    free(s);
}

/* It will not come: tells why, after it is gone. */
static void fail(struct shell *s, const struct error *e)
{
    struct pool *p = s->pool;
    const struct error why = *e; /* it may be the shell's own */

    p->failures++;
    forget(s);
    p->events->failed(&why, p->context);
}

/* --- the way of one ----------------------------------------------------------------------------
 */

static void on_built(struct monitor *m, void *context)
{
    struct shell *s = context;
    struct pool *p = s->pool;

    (void)m;
    if (s->state == SHELL_DYING)
        return;
    set_state(s, SHELL_IDLE);
    TAILQ_REMOVE(&p->shells, s, link);
    TAILQ_INSERT_TAIL(&p->shells, s, link);
    p->failures = 0;
    p->events->changed(p->context);
}

static void on_exited(struct monitor *m, const struct monitor_end *end, void *context)
{
    struct shell *s = context;
    struct pool *p = s->pool;
    struct error e = ERROR_INIT;
    char text[VMM_TEXT_MAX];

    (void)m;
    monitor_end_text(end, text, sizeof(text));
    if (s->state == SHELL_BUILDING) {
        (void)error_set(&e, end->reason == VMM_GONE_STATE ? ERR_TEMPLATE_CORRUPT : ERR_INTERNAL,
                        "a guest of template %s could not be restored: %.350s", p->template->name,
                        text);
        fail(s, &e);
        return;
    }
    if (s->state == SHELL_IDLE) {
        log_warn("a pooled guest of template %s ended: %s", p->template->name, text);
        p->failures++;
    }
    forget(s);
    p->events->changed(p->context);
}

static int start_monitor(struct shell *s, struct error *e)
{
    static const struct monitor_events events = {.built = on_built, .exited = on_exited};
    const struct pool *p = s->pool;
    const struct monitor_spec spec = {.mode = VMM_MODE_RESTORE,
                                      .vcpus = p->vcpus,
                                      .mem_mib = p->mem_mib,
                                      .fds = {[VMM_FD_MEMORY] = p->snapshot->mem_fd,
                                              [VMM_FD_STATE] = p->snapshot->state_fd,
                                              [VMM_FD_ROOT] = p->template->root_fd,
                                              [VMM_FD_SCRATCH] = s->scratch_fd,
                                              [VMM_FD_CHANNEL] = -1}};

    s->monitor = monitor_start(p->machine, &spec, &events, s, e);
    fd_close(&s->scratch_fd);
    return s->monitor != NULL ? 0 : -1;
}

static void copy_work(uv_work_t *work)
{
    struct shell *s = work->data;

    s->scratch_fd = snapshot_scratch(s->pool->snapshot, s->pool->machine->scratch_fd, &s->error);
}

/* Comes in any case, with UV_ECANCELED where the work was taken back before it began; until then
 * the shell lives, and keeps the snapshot open. */
static void copy_done(uv_work_t *work, int status)
{
    struct shell *s = work->data;
    struct pool *p = s->pool;

    if (s->state == SHELL_DYING) {
        forget(s);
        p->events->changed(p->context);
        return;
    }
    assert(status == 0);
    if (s->scratch_fd < 0 || start_monitor(s, &s->error) != 0)
        fail(s, &s->error);
    else
        set_state(s, SHELL_BUILDING);
}

void pool_start(struct pool *p)
{
    struct shell *s = calloc(1, sizeof(*s));

    if (s == NULL) {
        p->failures++;
        return;
    }
    s->pool = p;
    s->state = SHELL_COPYING;
    s->scratch_fd = -1;
    s->copy.data = s;
    TAILQ_INSERT_TAIL(&p->shells, s, link);
    p->counts[SHELL_COPYING]++;
    (void)uv_queue_work(p->machine->loop, &s->copy, copy_work, copy_done);
}

static struct shell *first_in(const struct pool *p, enum shell_state state)
{
    struct shell *s;

    TAILQ_FOREACH (s, &p->shells, link) {
        if (s->state == state)
            return s;
    }
    return NULL;
}

struct monitor *pool_take(struct pool *p)
{
    struct shell *s = first_in(p, SHELL_IDLE);

    if (s == NULL)
        return NULL;
    struct monitor *m = s->monitor;
    p->demand = demand_now(p) + 1;
    p->demand_ns = clock_mono_ns();
    forget(s);
    return m;
}

static void give_up(struct shell *s)
{
    enum shell_state state = s->state;

    set_state(s, SHELL_DYING);
    if (state == SHELL_COPYING)
        (void)uv_cancel((uv_req_t *)&s->copy); /* fails once it has begun: copy_done will see */
    else
        monitor_kill(s->monitor);
}

void pool_give_up(struct pool *p)
{
    static const enum shell_state order[] = {SHELL_IDLE, SHELL_COPYING, SHELL_BUILDING};
    struct shell *s = NULL;

    for (size_t i = 0; s == NULL && i < sizeof(order) / sizeof(order[0]); i++)
        s = first_in(p, order[i]);
    assert(s != NULL);
    give_up(s);
}

void pool_stop(struct pool *p)
{
    while (pool_idle(p) + pool_coming(p) > 0)
        pool_give_up(p);
}
