/*
 * Sandboxes, shapes and the room they share on a random walk: creators that give up at any time,
 * monitors that die in any state. They are played, and boots and files with them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "base/fd.h"
#include "daemon/machine/boot.h"
#include "daemon/machine/fingerprint.h"
#include "daemon/machine/machine.h"
#include "daemon/machine/monitor.h"
#include "daemon/machine/shape_set.h"
#include "daemon/machine/snapshot_store.h"
#include "daemon/machine/template.h"
#include "daemon/process/process_table.h"
#include "daemon/sandbox/sandbox_table.h"

#define GUEST_MIB     936u /* with its monitor 1000 */
#define ROOM          5u   /* for so many */
#define CREATORS      8u
#define SHAPES        3u
#define STEPS         6000u
#define DISK_MIB_BASE 64u

struct monitor {
    const struct monitor_events *events;
    void *context;
    int channel_fd, peer_fd;
    bool is_killed, is_built, is_going, is_first, is_ready;
};

struct creator {
    struct sandbox *starting;
    char id[SANDBOX_ID_BYTES_MAX]; /* once it runs */
};

static struct walk {
    uv_loop_t loop;
    struct template template;
    struct template_set templates;
    struct machine machine;
    struct shape_set *shapes;
    struct sandbox_limits limits;
    struct process_memory memory;
    struct sandbox_table *sandboxes;
    struct monitor *monitors[ROOM + 1];
    unsigned monitor_count;
    struct creator creators[CREATORS];
    unsigned created, refused, failed, asked_gone, gone;
} walk;

static bool one_in(long count)
{
    return random() % count == 0;
}

/* --- what is played ----------------------------------------------------------------------------
 */

struct monitor *monitor_start(const struct machine *machine, const struct monitor_spec *spec,
                              const struct monitor_events *events, void *context, struct error *e)
{
    int pair[2];

    (void)machine, (void)spec;
    if (one_in(50)) {
        (void)error_set(e, ERR_INTERNAL, "played");
        return NULL;
    }
    assert_true(walk.monitor_count < ROOM); /* never more than was promised */
    struct monitor *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    *m = (struct monitor){
        .events = events, .context = context, .channel_fd = pair[0], .peer_fd = pair[1]};
    walk.monitors[walk.monitor_count++] = m;
    return m;
}

void monitor_set_events(struct monitor *m, const struct monitor_events *events, void *context)
{
    m->events = events;
    m->context = context;
}

int monitor_go(struct monitor *m, const struct identity_page *identity, struct error *e)
{
    assert_true(m->is_built && !m->is_going && identity != NULL);
    m->is_going = true;
    return one_in(20) ? error_set(e, ERR_INTERNAL, "played") : 0;
}

int monitor_take_channel(struct monitor *m)
{
    return fd_take(&m->channel_fd);
}

void monitor_set_cpu_quota(struct monitor *m, uint32_t percent)
{
    (void)m, (void)percent;
}

void monitor_kill(struct monitor *m)
{
    m->is_killed = true;
}

pid_t monitor_pid(const struct monitor *m)
{
    (void)m;
    return 1;
}

void monitor_end_text(const struct monitor_end *end, char *ret_text, size_t size)
{
    (void)end;
    (void)snprintf(ret_text, size, "it ended");
}

struct boot *boot_start(const struct machine *machine, const struct template *t,
                        const struct snapshot_key *key, boot_done_fn done, void *context)
{
    (void)machine, (void)t, (void)key, (void)done, (void)context;
    fail();
    return NULL;
}

void boot_cancel(struct boot *b)
{
    (void)b;
    fail();
}

void fingerprint_shape(const struct template_set *set, const struct template *t, char *ret_text,
                       size_t size)
{
    (void)set, (void)t;
    (void)snprintf(ret_text, size, "x");
}

int snapshot_load(struct snapshot *ret_snapshot, const struct snapshot_key *key, int snapshots_fd,
                  struct error *e)
{
    (void)ret_snapshot, (void)key, (void)snapshots_fd, (void)e;
    return 0;
}

void snapshot_fini(struct snapshot *s)
{
    (void)s;
}

int snapshot_scratch(const struct snapshot *s, int scratch_dir_fd, struct error *e)
{
    (void)s, (void)scratch_dir_fd, (void)e;
    return dup(STDERR_FILENO);
}

/* --- what monitors do --------------------------------------------------------------------------
 */

static void end_monitor(unsigned index)
{
    struct monitor *m = walk.monitors[index];
    const struct monitor_end how = {.started = !one_in(10), .wait_status = 9};

    walk.monitors[index] = walk.monitors[--walk.monitor_count];
    fd_close(&m->channel_fd);
    m->events->exited(m, &how, m->context);
    fd_close(&m->peer_fd);
    free(m);
}

/* One step on its way, or the end where it is killed; a `faithful` one does not end by itself. */
static void step_monitor(unsigned index, bool is_faithful)
{
    struct monitor *m = walk.monitors[index];

    if (m->is_killed ? is_faithful || one_in(3) : !is_faithful && one_in(20)) {
        end_monitor(index);
    } else if (!is_faithful && one_in(50)) {
        fd_close(&m->peer_fd); /* and its end follows some time */
    } else if (!m->is_built) {
        m->is_built = true;
        m->events->built(m, m->context);
    } else if (m->is_going && !m->is_first) {
        m->is_first = true;
        m->events->first(m, 1, m->context);
    } else if (m->is_first && !m->is_ready) {
        m->is_ready = true;
        m->events->ready(m, 2, m->context);
    }
}

/* --- what creators do --------------------------------------------------------------------------
 */

static void on_created(struct sandbox *s, const struct error *e, void *context)
{
    struct creator *c = context;

    assert_non_null(c->starting);
    c->starting = NULL;
    if (s == NULL) {
        assert_true(e->code != ERR_NONE);
        walk.failed++;
        return;
    }
    walk.created++;
    (void)snprintf(c->id, sizeof(c->id), "%s", sandbox_id(s));
}

static void on_gone(void *context)
{
    (void)context;
    walk.gone++;
}

static void destroy(struct sandbox *s)
{
    walk.asked_gone++;
    sandbox_destroy(s, SANDBOX_END_DELETED, on_gone, NULL);
}

static void create(struct creator *c)
{
    const struct sandbox_params params = {.disk_mib = DISK_MIB_BASE + (uint32_t)random() % SHAPES};
    struct error e = ERROR_INIT;

    c->starting = sandbox_create(walk.sandboxes, &params, 1, on_created, c, &e);
    if (c->starting == NULL) {
        assert_true(e.code == ERR_NO_CAPACITY || e.code == ERR_SHUTTING_DOWN);
        walk.refused++;
    }
}

static void step_creator(struct creator *c)
{
    struct error e = ERROR_INIT;

    if (c->starting != NULL) {
        if (one_in(4)) {
            destroy(c->starting);
            c->starting = NULL;
        }
    } else if (c->id[0] == '\0') {
        create(c);
    } else {
        struct sandbox *s = sandbox_find(walk.sandboxes, c->id, &e);
        if (s != NULL)
            destroy(s);
        else
            assert_int_equal(e.code, ERR_SANDBOX_GONE);
        c->id[0] = '\0';
    }
}

static void go(unsigned steps)
{
    for (unsigned i = 0; i < steps; i++) {
        if (one_in(2))
            step_creator(&walk.creators[(unsigned)random() % CREATORS]);
        else if (walk.monitor_count > 0)
            step_monitor((unsigned)random() % walk.monitor_count, false);
        (void)uv_run(&walk.loop, UV_RUN_NOWAIT);
    }
}

/* --- tests -------------------------------------------------------------------------------------
 */

static int set_up(void **state)
{
    struct error e = ERROR_INIT;

    (void)state;
    srandom(1);
    walk = (struct walk){0};
    (void)snprintf(walk.template.name, sizeof(walk.template.name), "base");
    walk.templates = (struct template_set){.templates = &walk.template, .count = 1};
    walk.machine = (struct machine){.loop = &walk.loop,
                                    .templates = &walk.templates,
                                    .pool_max = 3,
                                    .host_mem_mib = ROOM * 1000,
                                    .overcommit_percent = 100};
    walk.limits = (struct sandbox_limits){.default_template = "base",
                                          .default_vcpus = 1,
                                          .default_mem_mib = GUEST_MIB,
                                          .default_disk_mib = DISK_MIB_BASE,
                                          .default_timeout_s = 1000,
                                          .max_sandboxes = CREATORS,
                                          .max_vcpus = 1,
                                          .max_mem_mib = GUEST_MIB};
    assert_int_equal(uv_loop_init(&walk.loop), 0);
    assert_int_equal(shape_set_new(&walk.machine, &walk.shapes, &e), 0);
    const struct sandbox_table_options options = {.loop = &walk.loop,
                                                  .shapes = walk.shapes,
                                                  .templates = &walk.templates,
                                                  .limits = &walk.limits,
                                                  .process_memory = &walk.memory};
    assert_int_equal(sandbox_table_new(&options, &walk.sandboxes, &e), 0);
    return 0;
}

/* As the daemon stops. */
static void stop(void)
{
    shape_set_stop(walk.shapes);
    sandbox_table_stop(walk.sandboxes);
    while (walk.monitor_count > 0)
        step_monitor(0, true);
    (void)uv_run(&walk.loop, UV_RUN_DEFAULT);
    assert_int_equal(sandbox_count(walk.sandboxes), 0);
    assert_int_equal(walk.gone, walk.asked_gone);
    sandbox_table_free(walk.sandboxes);
    shape_set_free(walk.shapes);
    assert_int_equal(uv_loop_close(&walk.loop), 0);
}

static void expect_all_room(void)
{
    struct error e = ERROR_INIT;

    for (unsigned i = 0; i < ROOM; i++)
        assert_int_equal(shape_set_admit(walk.shapes, GUEST_MIB, &e), 0);
    assert_int_equal(shape_set_admit(walk.shapes, GUEST_MIB, &e), -1);
    for (unsigned i = 0; i < ROOM; i++)
        shape_set_release(walk.shapes, GUEST_MIB);
}

/* Each creator that stays is answered, and when all have gone their room is back. */
static void room_comes_back(void **state)
{
    (void)state;
    go(STEPS);
    for (unsigned i = 0; i < CREATORS; i++) {
        while (walk.creators[i].starting != NULL) {
            for (unsigned k = walk.monitor_count; k-- > 0;)
                step_monitor(k, true);
            (void)uv_run(&walk.loop, UV_RUN_ONCE);
        }
    }
    for (unsigned i = 0; i < CREATORS; i++) {
        if (walk.creators[i].id[0] != '\0')
            step_creator(&walk.creators[i]);
    }
    while (sandbox_count(walk.sandboxes) > 0) {
        for (unsigned k = walk.monitor_count; k-- > 0;)
            step_monitor(k, true);
        (void)uv_run(&walk.loop, UV_RUN_NOWAIT);
    }
    assert_true(walk.created > 100 && walk.refused > 100 && walk.failed > 10);
    expect_all_room();
    stop();
}

static void a_stop_at_any_time_ends_all(void **state)
{
    for (unsigned steps = 0; steps < 400; steps += 7) {
        assert_int_equal(set_up(state), 0);
        srandom(steps);
        go(steps);
        stop();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(room_comes_back, set_up),
        cmocka_unit_test(a_stop_at_any_time_ends_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
