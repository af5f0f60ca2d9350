#include "daemon/sandbox/sandbox_table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/machine/shape_set.h"
#include "daemon/sandbox/sandbox_describe.h"

#define TOMBSTONE_COUNT 1024u /* ended sandboxes whose reason is remembered */

/* What is known of a sandbox that is gone, so that a late request gets an answer it can use. */
struct tombstone {
    char id[SANDBOX_ID_BYTES_MAX];
    enum sandbox_end why;
    char text[256];
};

struct sandbox_table {
    struct sandbox_home home;
    const struct template_set *templates;
    const struct sandbox_limits *limits;
    bool stopping;
    struct sandbox *sandboxes[SANDBOX_COUNT_MAX]; /* in order of creation */
    unsigned count;
    struct tombstone tombstones[TOMBSTONE_COUNT]; /* a ring */
    unsigned tombstone_next;
};

static void remember(struct sandbox_table *t, const struct sandbox_facts *f)
{
    struct tombstone *stone = &t->tombstones[t->tombstone_next];

    t->tombstone_next = (t->tombstone_next + 1) % TOMBSTONE_COUNT;
    memcpy(stone->id, f->id, sizeof(stone->id));
    stone->why = f->why;
    (void)snprintf(stone->text, sizeof(stone->text), "%.255s", f->error.message);
}

static void on_ended(struct sandbox *s, void *context)
{
    struct sandbox_table *t = context;
    unsigned index = 0;

    while (t->sandboxes[index] != s)
        index++;
    t->count--;
    memmove(&t->sandboxes[index], &t->sandboxes[index + 1],
            (t->count - index) * sizeof(t->sandboxes[0]));
    remember(t, sandbox_facts(s));
    shape_set_release(t->home.shapes, sandbox_facts(s)->plan.mem_mib);
}

int sandbox_table_new(const struct sandbox_table_options *options, struct sandbox_table **ret_table,
                      struct error *e)
{
    struct sandbox_table *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    assert(options->limits->max_sandboxes <= SANDBOX_COUNT_MAX);
    t->home = (struct sandbox_home){.loop = options->loop,
                                    .shapes = options->shapes,
                                    .process_memory = options->process_memory,
                                    .ended = on_ended,
                                    .context = t};
    t->templates = options->templates;
    t->limits = options->limits;
    *ret_table = t;
    return 0;
}

void sandbox_table_free(struct sandbox_table *t)
{
    assert(t == NULL || t->count == 0);
    free(t);
}

static int check_open(const struct sandbox_table *t, struct error *e)
{
    if (t->stopping)
        return error_set(e, ERR_SHUTTING_DOWN, "the daemon stops");
    if (t->count >= t->limits->max_sandboxes) {
        (void)error_set(e, ERR_NO_CAPACITY, "%u sandboxes are running, which is the limit",
                        t->count);
        return error_remedy(e, "delete some, or raise max_sandboxes in the configuration");
    }
    return 0;
}

struct sandbox *sandbox_create(struct sandbox_table *t, const struct sandbox_params *params,
                               uint64_t arrived_ns, sandbox_created_fn created, void *context,
                               struct error *e)
{
    struct sandbox_plan plan;

    if (check_open(t, e) != 0 || sandbox_plan_init(&plan, params, t->limits, t->templates, e) != 0)
        return NULL;
    uint32_t mem_mib = plan.mem_mib;
    if (shape_set_admit(t->home.shapes, mem_mib, e) != 0) {
        sandbox_plan_fini(&plan);
        return NULL;
    }
    struct sandbox *s = sandbox_new(&t->home, &plan, arrived_ns, created, context, e);
    if (s != NULL)
        t->sandboxes[t->count++] = s;
    else
        shape_set_release(t->home.shapes, mem_mib);
    return s;
}

static int set_gone(struct error *e, const char *id, enum sandbox_end why, const char *text)
{
    (void)error_set(e, ERR_SANDBOX_GONE, "sandbox %s has ended: %s", id, sandbox_end_name(why));
    if (text[0] != '\0')
        (void)error_cause(e, "%.250s", text);
    return error_remedy(e, "create a new one with POST /v1/sandboxes");
}

/* Why there is one, but no use of it. */
static void refuse(const struct sandbox_facts *f, struct error *e)
{
    if (f->state == SANDBOX_STARTING) {
        (void)error_set(e, ERR_CONFLICT, "sandbox %s is still starting", f->id);
        (void)error_remedy(e, "wait for the reply of the request that creates it");
    } else if (f->why_open) {
        (void)error_set(e, ERR_SANDBOX_GONE, "sandbox %s is ending: its monitor has gone", f->id);
        (void)error_remedy(e, "ask again in a moment for the reason");
    } else {
        (void)set_gone(e, f->id, f->why, f->error.message);
    }
}

struct sandbox *sandbox_find(struct sandbox_table *t, const char *id, struct error *e)
{
    for (unsigned i = 0; i < t->count; i++) {
        const struct sandbox_facts *f = sandbox_facts(t->sandboxes[i]);

        if (strcmp(f->id, id) != 0)
            continue;
        if (f->state == SANDBOX_RUNNING)
            return t->sandboxes[i];
        refuse(f, e);
        return NULL;
    }
    for (unsigned i = 0; i < TOMBSTONE_COUNT; i++) {
        const struct tombstone *stone = &t->tombstones[i];

        if (stone->id[0] != '\0' && strcmp(stone->id, id) == 0) {
            (void)set_gone(e, stone->id, stone->why, stone->text);
            return NULL;
        }
    }
    (void)error_set(e, ERR_SANDBOX_NOT_FOUND, "there is no sandbox %.40s", id);
    (void)error_remedy(e, "GET /v1/sandboxes (`cloche ps`) lists those that run.");
    return NULL;
}

unsigned sandbox_count(const struct sandbox_table *t)
{
    return t->count;
}

struct sandbox *sandbox_at(const struct sandbox_table *t, unsigned index)
{
    return index < t->count ? t->sandboxes[index] : NULL;
}

void sandbox_table_stop(struct sandbox_table *t)
{
    t->stopping = true;
    for (unsigned i = 0; i < t->count; i++)
        sandbox_stop(t->sandboxes[i]);
}
