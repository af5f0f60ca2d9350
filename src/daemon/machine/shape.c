#include "daemon/machine/shape.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <uv.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/machine/boot.h"
#include "daemon/machine/fingerprint.h"
#include "daemon/machine/machine.h"
#include "daemon/machine/pool.h"
#include "daemon/machine/snapshot_store.h"
#include "daemon/machine/template.h"

enum shape_state { SHAPE_ABSENT, SHAPE_LOADING, SHAPE_BOOTING, SHAPE_READY };

struct shape_request {
    TAILQ_ENTRY(shape_request) link;
    struct shape *shape;
    enum shape_origin origin;
    shape_given_fn given;
    void *context;
};

struct shape {
    const struct machine *machine;
    struct shape_key key;
    shape_changed_fn changed;
    void *context;
    enum shape_state state;
    bool stopping;
    uint64_t asked_ns;
    struct snapshot_key snapshot_key;
    struct snapshot snapshot; /* READY */
    uv_work_t load;           /* LOADING */
    struct error load_error;
    int load_result;
    struct boot *boot; /* BOOTING */
    struct pool pool;
    TAILQ_HEAD(, shape_request) requests;
    unsigned request_count;
    bool warming; /* `warm` is to be called */
    shape_warm_fn warm;
    void *warm_context;
};

/* --- requests ----------------------------------------------------------------------------------
 */

static void remove_request(struct shape_request *r)
{
    TAILQ_REMOVE(&r->shape->requests, r, link);
    r->shape->request_count--;
}

static void answer_first(struct shape *s, struct monitor *m, const struct error *e)
{
    struct shape_request *r = TAILQ_FIRST(&s->requests);

    remove_request(r);
    r->given(m, r->origin, e, r->context);
    free(r);
}

void shape_request_cancel(struct shape_request *r)
{
    if (r == NULL)
        return;
    remove_request(r);
    free(r);
}

static void tell_warm(struct shape *s, const struct error *e)
{
    if (!s->warming)
        return;
    s->warming = false;
    s->warm(s->warm_context, e);
}

static void fail_all(struct shape *s, const struct error *e)
{
    while (s->request_count > 0)
        answer_first(s, NULL, e);
    tell_warm(s, e);
}

struct monitor *shape_take(struct shape *s)
{
    if (s->request_count > 0)
        return NULL;
    s->asked_ns = clock_mono_ns();
    return pool_take(&s->pool);
}

struct shape_request *shape_wait(struct shape *s, shape_given_fn given, void *context)
{
    struct shape_request *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL;
    *r = (struct shape_request){.shape = s,
                                .origin = s->state == SHAPE_BOOTING ? SHAPE_BOOTED : SHAPE_COLD,
                                .given = given,
                                .context = context};
    TAILQ_INSERT_TAIL(&s->requests, r, link);
    s->request_count++;
    s->asked_ns = clock_mono_ns();
    return r;
}

/* --- the snapshot ------------------------------------------------------------------------------
 */

static void fail_load(struct shape *s, const struct error *e)
{
    s->state = SHAPE_ABSENT;
    log_failure(e, "snapshot");
    fail_all(s, e);
}

static void on_boot_done(const struct snapshot *snapshot, const struct error *e, void *context)
{
    struct shape *s = context;

    if (snapshot != NULL) {
        s->snapshot = *snapshot;
        s->state = SHAPE_READY;
    } else {
        fail_load(s, e);
    }
    s->changed(s->context);
}

static void start_boot(struct shape *s)
{
    const struct error e = {.code = ERR_INTERNAL, .message = "out of memory"};
    struct shape_request *r;

    s->state = SHAPE_BOOTING;
    TAILQ_FOREACH (r, &s->requests, link)
        r->origin = SHAPE_BOOTED;
    s->boot = boot_start(s->machine, s->key.template, &s->snapshot_key, on_boot_done, s);
    if (s->boot == NULL)
        fail_load(s, &e);
}

static void load_work(uv_work_t *work)
{
    struct shape *s = work->data;

    fingerprint_shape(s->machine->templates, s->key.template, s->snapshot_key.fingerprint,
                      sizeof(s->snapshot_key.fingerprint));
    s->load_result =
        snapshot_load(&s->snapshot, &s->snapshot_key, s->machine->snapshots_fd, &s->load_error);
}

/* Nothing takes the work back: the daemon that stops waits for it, and this sees it. */
static void load_done(uv_work_t *work, int status)
{
    struct shape *s = work->data;

    (void)status;
    if (s->load_result == 0)
        s->state = SHAPE_READY;
    else if (s->stopping)
        s->state = SHAPE_ABSENT;
    else if (s->load_result > 0)
        start_boot(s);
    else
        fail_load(s, &s->load_error);
    s->changed(s->context);
}

static void start_load(struct shape *s)
{
    s->state = SHAPE_LOADING;
    s->load_error = (struct error)ERROR_INIT;
    s->load.data = s;
    (void)uv_queue_work(s->machine->loop, &s->load, load_work, load_done);
}

struct discard {
    uv_work_t work;
    struct snapshot snapshot;
};

static void discard_work(uv_work_t *work)
{
    struct discard *d = work->data;

    snapshot_fini(&d->snapshot);
}

static void discard_done(uv_work_t *work, int status)
{
    (void)status;
    free(work->data);
}

/* In a worker: the kernel takes a while over gigabytes of pages. */
void shape_unload(struct shape *s)
{
    struct discard *d = s->state == SHAPE_READY ? calloc(1, sizeof(*d)) : NULL;

    if (d == NULL)
        return;
    assert(!shape_load(s).in_use);
    s->state = SHAPE_ABSENT;
    d->snapshot = s->snapshot;
    s->snapshot = (struct snapshot)SNAPSHOT_INIT;
    d->work.data = d;
    (void)uv_queue_work(s->machine->loop, &d->work, discard_work, discard_done);
}

/* --- shells ------------------------------------------------------------------------------------
 */

static void on_pool_changed(void *context)
{
    struct shape *s = context;

    s->changed(s->context);
}

static void on_pool_failed(const struct error *e, void *context)
{
    struct shape *s = context;

    log_failure(e, "pool");
    if (s->request_count > pool_coming(&s->pool))
        answer_first(s, NULL, e);
    s->changed(s->context);
}

static unsigned target(const struct shape *s)
{
    return s->state == SHAPE_READY && !s->stopping ? pool_target(&s->pool) : 0;
}

void shape_serve(struct shape *s, bool (*has_room)(void *context), void *context)
{
    if (s->stopping)
        return;
    if (s->state == SHAPE_ABSENT && (s->request_count > 0 || s->warming) && has_room(context))
        start_load(s); /* which may have to boot, in the room of the first request */
    if (s->state != SHAPE_READY)
        return;
    while (s->request_count > 0 && pool_idle(&s->pool) > 0)
        answer_first(s, pool_take(&s->pool), NULL);
    while (pool_coming(&s->pool) < s->request_count && has_room(context)) {
        unsigned coming = pool_coming(&s->pool);

        pool_start(&s->pool);
        if (pool_coming(&s->pool) == coming)
            break; /* no memory; the owner tries again, as after any failure */
    }
    if (pool_idle(&s->pool) >= s->pool.minimum)
        tell_warm(s, NULL);
}

void shape_keep_warm(struct shape *s, unsigned minimum, shape_warm_fn warm, void *context)
{
    s->pool.minimum = minimum;
    s->warming = true;
    s->warm = warm;
    s->warm_context = context;
}

void shape_warm_enough(struct shape *s)
{
    if (s->state == SHAPE_READY)
        tell_warm(s, NULL);
}

void shape_refill(struct shape *s)
{
    assert(s->state == SHAPE_READY);
    pool_start(&s->pool);
}

void shape_give_up(struct shape *s)
{
    pool_give_up(&s->pool);
}

void shape_stop(struct shape *s, const struct error *e)
{
    s->stopping = true;
    s->warming = false;
    s->pool.minimum = 0;
    fail_all(s, e);
    if (s->state == SHAPE_BOOTING) {
        boot_cancel(s->boot);
        s->state = SHAPE_ABSENT;
    }
    pool_stop(&s->pool);
}

/* --- the whole ---------------------------------------------------------------------------------
 */

struct shape *shape_new(const struct machine *machine, const struct shape_key *key,
                        shape_changed_fn changed, void *context)
{
    static const struct pool_events events = {.changed = on_pool_changed, .failed = on_pool_failed};
    struct shape *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    *s = (struct shape){
        .machine = machine,
        .key = *key,
        .changed = changed,
        .context = context,
        .asked_ns = clock_mono_ns(),
        .snapshot_key = {.vcpus = key->vcpus, .mem_mib = key->mem_mib, .disk_mib = key->disk_mib},
        .snapshot = SNAPSHOT_INIT};
    (void)snprintf(s->snapshot_key.name, sizeof(s->snapshot_key.name), "%s-%u-%u-%u",
                   key->template->name, key->vcpus, key->mem_mib, key->disk_mib);
    TAILQ_INIT(&s->requests);
    s->pool = (struct pool){.machine = machine,
                            .template = key->template,
                            .snapshot = &s->snapshot,
                            .vcpus = key->vcpus,
                            .mem_mib = key->mem_mib,
                            .events = &events,
                            .context = s};
    pool_init(&s->pool);
    return s;
}

void shape_free(struct shape *s)
{
    assert(!shape_load(s).in_use);
    snapshot_fini(&s->snapshot);
    free(s);
}

const struct shape_key *shape_key(const struct shape *s)
{
    return &s->key;
}

bool shape_is(const struct shape *s, const struct shape_key *key)
{
    return s->key.template == key->template && s->key.vcpus == key->vcpus &&
           s->key.mem_mib == key->mem_mib && s->key.disk_mib == key->disk_mib;
}

struct shape_load shape_load(const struct shape *s)
{
    const struct pool *p = &s->pool;
    bool moving = s->state == SHAPE_LOADING || s->state == SHAPE_BOOTING;
    /* What there is and what comes, a boot's monitor as well, is for the requests that wait. */
    unsigned all = pool_idle(p) + pool_coming(p) + (s->state == SHAPE_BOOTING);
    unsigned wanted = target(s);
    struct shape_load load = {.spare = all > s->request_count ? all - s->request_count : 0,
                              .dying = pool_dying(p),
                              .idle = pool_idle(p),
                              .missing = pool_idle(p) < wanted ? wanted - pool_idle(p) : 0,
                              .surplus = pool_idle(p) > wanted ? pool_idle(p) - wanted : 0,
                              .failures = p->failures,
                              .kept =
                                  s->request_count > 0 || p->minimum > 0 || s->warming || moving,
                              .coming = pool_coming(p) > 0,
                              .waiting = s->request_count > pool_coming(p),
                              .asked_ns = s->asked_ns};

    load.in_use = load.kept || load.coming || load.idle > 0 || load.dying > 0;
    return load;
}

struct shape_facts shape_facts(const struct shape *s)
{
    static const char *const names[] = {"absent", "loading", "booting", "ready"};

    return (struct shape_facts){.template_name = s->key.template->name,
                                .vcpus = s->key.vcpus,
                                .mem_mib = s->key.mem_mib,
                                .disk_mib = s->key.disk_mib,
                                .state = names[s->state],
                                .shells = pool_idle(&s->pool),
                                .building = pool_coming(&s->pool),
                                .target = target(s)};
}
