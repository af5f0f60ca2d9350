#include "daemon/machine/shape_set.h"

#include <assert.h>
#include <stdlib.h>
#include <uv.h>

#include "base/clock.h"
#include "cloche/limits.h"
#include "daemon/machine/ledger.h"
#include "daemon/machine/machine.h"

#define REFILL_DELAY_MS   2u    /* between shells, so that requests get the processor first */
#define REFILL_BACKOFF_MS 1000u /* after a shell that ended unasked */
#define TRIM_INTERVAL_MS  5000u
#define UNUSED_AFTER_NS   (600 * NS_PER_S) /* then a shape's memory is given back */
/* Shapes that made room for others count no more, but last until their shells are gone. */
#define SHAPES_MAX (2 * SHAPE_COUNT_MAX)

struct shape_set {
    const struct machine *machine;
    struct ledger ledger;
    struct shape *shapes[SHAPES_MAX]; /* first those in use, then those that leave */
    unsigned count;
    unsigned leaving_count;
    bool serving;
    bool due; /* to be served */
    bool stopping;
    uv_timer_t refill;
    uv_timer_t trim;
};

static unsigned all(const struct shape_set *set)
{
    return set->count + set->leaving_count;
}

/* --- room --------------------------------------------------------------------------------------
 */

/* What shells hold; without those that are dying, what they will hold when these are gone. */
static struct ledger_sum spare_sum(const struct shape_set *set, bool with_dying)
{
    struct ledger_sum sum = {0};

    for (unsigned i = 0; i < all(set); i++) {
        const struct shape_load load = shape_load(set->shapes[i]);

        ledger_sum_add(&sum, load.spare + (with_dying ? load.dying : 0),
                       shape_key(set->shapes[i])->mem_mib);
    }
    return sum;
}

/* The shape that was asked for longest ago of those with a shell to give up. */
static struct shape *find_spare(const struct shape_set *set)
{
    struct shape *found = NULL;
    uint64_t asked_ns = UINT64_MAX;

    for (unsigned i = 0; i < all(set); i++) {
        const struct shape_load load = shape_load(set->shapes[i]);

        if (load.idle + load.coming > 0 && load.spare > 0 && load.asked_ns < asked_ns) {
            found = set->shapes[i];
            asked_ns = load.asked_ns;
        }
    }
    return found;
}

/* Is there room for a shell of each guest that was admitted? If not, sees to it that there will be.
 */
static bool make_room(void *context)
{
    struct shape_set *set = context;
    struct ledger_sum spare = spare_sum(set, true);
    struct shape *s;

    if (ledger_fits(&set->ledger, &spare))
        return true;
    while (spare = spare_sum(set, false), !ledger_fits(&set->ledger, &spare)) {
        s = find_spare(set);
        if (s == NULL)
            break; /* the rest is a boot for nobody, which ends by itself */
        shape_give_up(s);
    }
    return false;
}

/* --- moving on ---------------------------------------------------------------------------------
 */

static void on_refill(uv_timer_t *timer);

/* Has the shape failed whose turn it is? What others did is no reason to wait. */
static bool has_failed(const struct shape_set *set)
{
    for (unsigned i = 0; i < set->count; i++) {
        const struct shape_load load = shape_load(set->shapes[i]);

        if (load.missing > 0 || load.waiting)
            return load.failures > 0;
    }
    return false;
}

static void schedule_refill(struct shape_set *set)
{
    if (!set->stopping)
        (void)uv_timer_start(&set->refill, on_refill,
                             has_failed(set) ? REFILL_BACKOFF_MS : REFILL_DELAY_MS, 0);
}

static void drop_left(struct shape_set *set)
{
    for (unsigned i = all(set); i-- > set->count;) {
        struct shape *s = set->shapes[i];

        if (shape_load(s).in_use)
            continue;
        set->shapes[i] = set->shapes[all(set) - 1];
        set->leaving_count--;
        shape_unload(s);
        shape_free(s);
    }
}

/* An answer may bring the next request, which comes back here: then another round is due. */
static void serve_all(struct shape_set *set)
{
    set->due = true;
    if (set->serving || set->stopping)
        return;
    set->serving = true;
    while (set->due) {
        set->due = false;
        for (unsigned i = 0; i < set->count; i++)
            shape_serve(set->shapes[i], make_room, set);
    }
    set->serving = false;
    drop_left(set);
    schedule_refill(set);
}

static void on_changed(void *context)
{
    serve_all(context);
}

/* One shell for the first shape that is below its target; when it is there, on_changed has the next
 * one scheduled. */
static void refill(struct shape_set *set)
{
    const struct ledger_sum spare = spare_sum(set, true);

    for (unsigned i = 0; i < set->count; i++) {
        struct shape *s = set->shapes[i];

        if (shape_load(s).missing == 0)
            continue;
        if (ledger_fits_another(&set->ledger, &spare, shape_key(s)->mem_mib)) {
            shape_refill(s);
            return;
        }
        shape_warm_enough(s);
    }
}

static void on_refill(uv_timer_t *timer)
{
    struct shape_set *set = timer->data;
    bool coming = false;
    bool failed = false;

    for (unsigned i = 0; i < set->count; i++) {
        shape_serve(set->shapes[i], make_room, set);
        coming = coming || shape_load(set->shapes[i]).coming;
    }
    if (coming)
        return;
    refill(set);
    for (unsigned i = 0; i < set->count; i++) {
        const struct shape_load load = shape_load(set->shapes[i]);

        coming = coming || load.coming;
        failed = failed || (load.failures > 0 && (load.missing > 0 || load.waiting));
    }
    if (failed && !coming) /* not even begun: nothing else will call */
        schedule_refill(set);
}

/* Shells above the target go, one a round; snapshots that nobody has asked for give back memory. */
static void on_trim(uv_timer_t *timer)
{
    struct shape_set *set = timer->data;

    for (unsigned i = 0; i < set->count; i++) {
        const struct shape_load load = shape_load(set->shapes[i]);

        if (load.surplus > 0)
            shape_give_up(set->shapes[i]);
        else if (!load.in_use && clock_mono_ns() - load.asked_ns > UNUSED_AFTER_NS)
            shape_unload(set->shapes[i]);
    }
    schedule_refill(set);
}

/* --- shapes ------------------------------------------------------------------------------------
 */

static struct shape *find(const struct shape_set *set, const struct shape_key *key)
{
    for (unsigned i = 0; i < set->count; i++) {
        if (shape_is(set->shapes[i], key))
            return set->shapes[i];
    }
    return NULL;
}

/* Makes a place for a new shape: of those that only hold shells for later, the one that was asked
 * for longest ago leaves. */
static bool make_place(struct shape_set *set)
{
    unsigned oldest = set->count;
    uint64_t asked_ns = UINT64_MAX;

    if (set->count < SHAPE_COUNT_MAX)
        return true;
    for (unsigned i = 0; i < set->count; i++) {
        const struct shape_load load = shape_load(set->shapes[i]);

        if (!load.kept && load.asked_ns < asked_ns) {
            oldest = i;
            asked_ns = load.asked_ns;
        }
    }
    if (oldest == set->count || all(set) == SHAPES_MAX)
        return false;
    struct shape *s = set->shapes[oldest];
    while (shape_load(s).spare > 0)
        shape_give_up(s);
    set->count--;
    set->leaving_count++;
    set->shapes[oldest] = set->shapes[set->count];
    set->shapes[set->count] = s;
    return true;
}

static struct shape *find_or_add(struct shape_set *set, const struct shape_key *key,
                                 struct error *e)
{
    struct shape *s = find(set, key);

    if (s != NULL)
        return s;
    if (!make_place(set)) {
        (void)error_set(e, ERR_NO_CAPACITY,
                        "%u combinations of template, vcpus, mem_mib and disk_mib are in use",
                        SHAPE_COUNT_MAX);
        (void)error_remedy(e, "use one that is in use already, or try again later");
        return NULL;
    }
    s = shape_new(set->machine, key, on_changed, set);
    if (s == NULL) {
        (void)error_set(e, ERR_INTERNAL, "out of memory");
        return NULL;
    }
    /* The first of those that leave makes way. */
    set->shapes[all(set)] = set->shapes[set->count];
    set->shapes[set->count++] = s;
    return s;
}

int shape_set_new(const struct machine *machine, struct shape_set **ret_set, struct error *e)
{
    struct shape_set *set = calloc(1, sizeof(*set));

    if (set == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    set->machine = machine;
    ledger_init(&set->ledger, machine->host_mem_mib, machine->reserve_mem_mib,
                machine->overcommit_percent);
    (void)uv_timer_init(machine->loop, &set->refill);
    (void)uv_timer_init(machine->loop, &set->trim);
    set->refill.data = set;
    set->trim.data = set;
    (void)uv_timer_start(&set->trim, on_trim, TRIM_INTERVAL_MS, TRIM_INTERVAL_MS);
    *ret_set = set;
    return 0;
}

void shape_set_stop(struct shape_set *set)
{
    const struct error e = {.code = ERR_SHUTTING_DOWN, .message = "the daemon stops"};

    set->stopping = true;
    uv_close((uv_handle_t *)&set->refill, NULL);
    uv_close((uv_handle_t *)&set->trim, NULL);
    for (unsigned i = 0; i < all(set); i++)
        shape_stop(set->shapes[i], &e);
}

void shape_set_free(struct shape_set *set)
{
    for (unsigned i = 0; set != NULL && i < all(set); i++)
        shape_free(set->shapes[i]);
    free(set);
}

/* --- guests ------------------------------------------------------------------------------------
 */

int shape_set_admit(struct shape_set *set, uint32_t mem_mib, struct error *e)
{
    return ledger_admit(&set->ledger, mem_mib, e);
}

void shape_set_release(struct shape_set *set, uint32_t mem_mib)
{
    ledger_release(&set->ledger, mem_mib);
    serve_all(set);
}

struct monitor *shape_set_take(struct shape_set *set, const struct shape_key *key)
{
    struct shape *s = set->stopping ? NULL : find(set, key);
    struct monitor *m = s != NULL ? shape_take(s) : NULL;

    if (m != NULL)
        schedule_refill(set);
    return m;
}

int shape_set_wait(struct shape_set *set, const struct shape_key *key, shape_given_fn given,
                   void *context, struct shape_request **ret_request, struct error *e)
{
    if (set->stopping)
        return error_set(e, ERR_SHUTTING_DOWN, "the daemon stops");
    struct shape *s = find_or_add(set, key, e);
    if (s == NULL)
        return -1;
    struct shape_request *r = shape_wait(s, given, context);
    if (r == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    *ret_request = r;
    serve_all(set);
    return 0;
}

void shape_set_keep_warm(struct shape_set *set, const struct shape_key *key, shape_warm_fn warm,
                         void *context)
{
    struct error e = ERROR_INIT;
    struct shape *s = find_or_add(set, key, &e);

    if (s == NULL) {
        warm(context, &e);
        return;
    }
    shape_keep_warm(s, set->machine->pool_min, warm, context);
    serve_all(set);
}

struct shape_set_memory shape_set_memory(const struct shape_set *set)
{
    const struct ledger *l = &set->ledger;

    return (struct shape_set_memory){.limit_mib = l->limit.mib,
                                     .guests_mib = l->guests.mib,
                                     .shells_mib = spare_sum(set, true).mib,
                                     .overcommit_percent = l->overcommit_percent};
}

void shape_set_describe(const struct shape_set *set,
                        void (*each)(const struct shape_facts *facts, void *context), void *context)
{
    for (unsigned i = 0; i < set->count; i++) {
        const struct shape_facts facts = shape_facts(set->shapes[i]);

        each(&facts, context);
    }
}
