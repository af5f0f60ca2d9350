/* Shapes and their pools, for the two files that make them up: requests and snapshots (shape.c),
 * shells and how many there are of them (shape_pool.c). */
#pragma once

#include <sys/queue.h>
#include <uv.h>

#include "daemon/machine/boot.h"
#include "daemon/machine/shape.h"
#include "daemon/machine/snapshot_store.h"

enum shape_state { SHAPE_ABSENT, SHAPE_LOADING, SHAPE_BOOTING, SHAPE_READY };

struct shape;

struct shape_request {
    TAILQ_ENTRY(shape_request) link;
    struct shape *shape;
    enum shape_origin origin;
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
    struct shape_key key;
    struct snapshot_key snapshot_key;
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
    shape_warm_fn warm;
    void *warm_context;
};

TAILQ_HEAD(shape_list, shape);

struct shape_set {
    const struct machine *machine;
    struct shape_list shapes;
    unsigned count;
    bool stopping;
    uv_timer_t refill;
    uv_timer_t trim;
};

/* shape.c: the one place that moves a shape forward; call it after any change. */
void shape_pump(struct shape *s);
/* Answers a waiting request and forgets it. */
void shape_answer(struct shape_request *r, struct monitor *m, enum shape_origin origin,
                  const struct error *e);

/* shape_pool.c */
struct monitor *pool_take_idle(struct shape *s); /* there must be one; counts as demand */
int pool_start_shell(struct shape *s, struct error *e) __attribute__((warn_unused_result));
unsigned pool_target(const struct shape *s);
/* Whether anything but the snapshot itself is left of the shape. */
bool pool_in_use(const struct shape *s);
void pool_schedule_refill(struct shape_set *set, uint64_t delay_ms);
void pool_init(struct shape_set *set);
void pool_stop(struct shape_set *set); /* no more refills; every shell is killed */

#define POOL_REFILL_DELAY_MS   2u    /* between shells, so that requests get the processor first */
#define POOL_REFILL_BACKOFF_MS 1000u /* after a shell that died unasked */
