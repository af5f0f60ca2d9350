#include "daemon/machine/shape.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/machine/fingerprint.h"
#include "daemon/machine/machine.h"
#include "daemon/machine/shape_private.h"
#include "daemon/machine/template.h"

void shape_answer(struct shape_request *r, struct monitor *m, enum shape_origin origin,
                  const struct error *e)
{
    TAILQ_REMOVE(&r->shape->requests, r, link);
    r->shape->request_count--;
    r->given(m, origin, e, r->context);
    free(r);
}

static void fail_all(struct shape *s, const struct error *e)
{
    struct shape_request *r;

    while ((r = TAILQ_FIRST(&s->requests)) != NULL)
        shape_answer(r, NULL, r->origin, e);
    if (s->warm != NULL) {
        s->warm(s->warm_context, e);
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

static void check_warm(struct shape *s)
{
    if (s->warm != NULL && s->idle_count >= s->minimum) {
        s->warm(s->warm_context, NULL);
        s->warm = NULL;
    }
}

static void on_boot_done(const struct snapshot *snapshot, const struct error *e, void *context)
{
    struct shape *s = context;

    s->boot = NULL;
    if (snapshot != NULL) {
        s->snapshot = *snapshot;
        s->state = SHAPE_READY;
        shape_pump(s);
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
        r->origin = SHAPE_BOOTED;
    s->boot = boot_start(s->set->machine, s->key.template, &s->snapshot_key, on_boot_done, s, &e);
    if (s->boot == NULL)
        on_boot_done(NULL, &e, s);
}

static void load_work(uv_work_t *work)
{
    struct shape *s = work->data;

    s->load_result = snapshot_load(&s->snapshot, &s->snapshot_key, s->set->machine->snapshots_fd,
                                   &s->load_error);
}

static void load_done(uv_work_t *work, int status)
{
    struct shape *s = work->data;

    (void)status;
    if (s->set->stopping) {
        s->state = SHAPE_ABSENT;
    } else if (s->load_result == 0) {
        s->state = SHAPE_READY;
        shape_pump(s);
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
    fingerprint_shape(s->set->machine->templates, s->key.template, s->snapshot_key.fingerprint,
                      sizeof(s->snapshot_key.fingerprint));
    (void)uv_queue_work(s->set->machine->loop, &s->load, load_work, load_done);
}

void shape_pump(struct shape *s)
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

        shape_answer(r, pool_take_idle(s), r->origin, NULL);
    }
    while (s->building_count < s->request_count) {
        struct error e = ERROR_INIT;

        if (pool_start_shell(s, &e) == 0)
            continue;
        shape_answer(TAILQ_FIRST(&s->requests), NULL, SHAPE_COLD, &e);
    }
    check_warm(s);
    pool_schedule_refill(s->set, s->failures > 0 ? POOL_REFILL_BACKOFF_MS : POOL_REFILL_DELAY_MS);
}

int shape_set_new(const struct machine *machine, struct shape_set **ret_set, struct error *e)
{
    struct shape_set *set = calloc(1, sizeof(*set));

    if (set == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    set->machine = machine;
    TAILQ_INIT(&set->shapes);
    pool_init(set);
    *ret_set = set;
    return 0;
}

void shape_set_stop(struct shape_set *set)
{
    const struct error e = {.code = ERR_SHUTTING_DOWN, .message = "the daemon stops"};
    struct shape *s;

    set->stopping = true;
    TAILQ_FOREACH (s, &set->shapes, link) {
        s->warm = NULL;
        fail_all(s, &e);
        boot_cancel(s->boot);
    }
    pool_stop(set);
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
        if (!pool_in_use(s) && (oldest == NULL || s->demand_ns < oldest->demand_ns))
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

static struct shape *find_or_add(struct shape_set *set, const struct shape_key *key,
                                 struct error *e)
{
    struct shape *s;

    TAILQ_FOREACH (s, &set->shapes, link) {
        if (s->key.template == key->template && s->key.vcpus == key->vcpus &&
            s->key.mem_mib == key->mem_mib && s->key.disk_mib == key->disk_mib)
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
    s->key = *key;
    s->snapshot = (struct snapshot)SNAPSHOT_INIT;
    s->snapshot_key = (struct snapshot_key){
        .vcpus = key->vcpus, .mem_mib = key->mem_mib, .disk_mib = key->disk_mib};
    (void)snprintf(s->snapshot_key.name, sizeof(s->snapshot_key.name), "%s-%u-%u-%u",
                   key->template->name, key->vcpus, key->mem_mib, key->disk_mib);
    TAILQ_INIT(&s->requests);
    TAILQ_INIT(&s->idle);
    TAILQ_INIT(&s->building);
    TAILQ_INIT(&s->dying);
    s->demand_ns = clock_mono_ns();
    TAILQ_INSERT_TAIL(&set->shapes, s, link);
    set->count++;
    return s;
}

int shape_request(struct shape_set *set, const struct shape_key *key, shape_given_fn given,
                  void *context, struct shape_request **ret_request, struct error *e)
{
    struct shape *s = find_or_add(set, key, e);

    if (s == NULL)
        return -1;
    struct shape_request *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    r->shape = s;
    r->given = given;
    r->context = context;
    r->origin = s->state == SHAPE_READY && s->idle_count > 0 ? SHAPE_POOLED
                : s->state == SHAPE_BOOTING                  ? SHAPE_BOOTED
                                                             : SHAPE_COLD;
    TAILQ_INSERT_TAIL(&s->requests, r, link);
    s->request_count++;
    *ret_request = r;
    shape_pump(s);
    return 0;
}

void shape_keep_warm(struct shape_set *set, const struct shape_key *key, shape_warm_fn warm,
                     void *context)
{
    struct error e = ERROR_INIT;
    struct shape *s = find_or_add(set, key, &e);

    if (s == NULL) {
        warm(context, &e);
        return;
    }
    s->minimum = set->machine->pool_min;
    s->warm = warm;
    s->warm_context = context;
    if (s->minimum == 0 && s->state == SHAPE_ABSENT)
        start_load(s);
    else
        shape_pump(s);
}

void shape_set_describe(const struct shape_set *set,
                        void (*each)(const struct shape_facts *facts, void *context), void *context)
{
    static const char *const names[] = {"absent", "loading", "booting", "ready"};
    struct shape *s;

    TAILQ_FOREACH (s, &set->shapes, link) {
        const struct shape_facts facts = {.template_name = s->key.template->name,
                                          .vcpus = s->key.vcpus,
                                          .mem_mib = s->key.mem_mib,
                                          .disk_mib = s->key.disk_mib,
                                          .state = names[s->state],
                                          .shells = s->idle_count,
                                          .building = s->building_count,
                                          .target = pool_target(s)};
        each(&facts, context);
    }
}
