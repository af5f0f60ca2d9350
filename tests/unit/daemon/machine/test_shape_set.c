/* Shapes, their pools and the room they share. What they stand on is played. */
#include "shape_play.h"

/* --- driving it --------------------------------------------------------------------------------
 */

static struct shape_key key_of(uint32_t mem_mib)
{
    return (struct shape_key){
        .template = &the_play->template, .vcpus = 1, .mem_mib = mem_mib, .disk_mib = 16};
}

static void turn(void)
{
    (void)uv_run(&the_play->loop, UV_RUN_NOWAIT);
    (void)usleep(100);
}

/* Until so many monitors have been started. */
static void await_started(unsigned count)
{
    for (unsigned i = 0; i < SPINS_MAX && the_play->started < count; i++)
        turn();
    assert_int_equal(the_play->started, count);
}

/* Long enough for a refill, were there to be one. */
static void expect_no_more(void)
{
    unsigned before = the_play->started;

    for (unsigned i = 0; i < 200; i++)
        turn();
    assert_int_equal(the_play->started, before);
}

static void build(struct monitor *m)
{
    assert_true(m->alive && !m->built);
    m->built = true;
    m->events->built(m, m->context);
}

static void end(struct monitor *m)
{
    const struct monitor_end how = {.started = true, .wait_status = 9};

    assert_true(m->alive);
    m->alive = false;
    m->events->exited(m, &how, m->context);
}

/* What the host would have to hold if every guest and shell used all it may. */
static uint64_t promised_mib(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < the_play->started; i++)
        sum += the_play->monitors[i].alive ? the_play->monitors[i].mem_mib + VMM_OVERHEAD_MIB : 0;
    return sum;
}

static void on_guest_exited(struct monitor *m, const struct monitor_end *how, void *context)
{
    (void)m, (void)how, (void)context;
}

static const struct monitor_events guest_events = {.exited = on_guest_exited};

static void on_given(struct monitor *m, enum shape_origin origin, const struct error *e,
                     void *context)
{
    struct given *g = context;

    if (m != NULL)
        monitor_set_events(m, &guest_events, NULL);
    *g = (struct given){.count = g->count + 1,
                        .monitor = m,
                        .origin = origin,
                        .code = e != NULL ? e->code : ERR_NONE};
}

static struct shape_request *ask(uint32_t mem_mib)
{
    const struct shape_key key = key_of(mem_mib);
    struct shape_request *r = NULL;
    struct error e = ERROR_INIT;
    unsigned before = the_play->given.count;

    assert_null(shape_set_take(the_play->set, &key));
    assert_int_equal(shape_set_wait(the_play->set, &key, on_given, &the_play->given, &r, &e), 0);
    assert_int_equal(the_play->given.count, before); /* never from within */
    return r;
}

static void admit(uint32_t mem_mib)
{
    struct error e = ERROR_INIT;

    assert_int_equal(shape_set_admit(the_play->set, mem_mib, &e), 0);
}

static void on_warm(void *context, const struct error *e)
{
    (void)context;
    assert_null(e);
    the_play->warm_count++;
}

static void keep_warm(uint32_t mem_mib)
{
    const struct shape_key key = key_of(mem_mib);

    shape_set_keep_warm(the_play->set, &key, on_warm, NULL);
}

/* `room`: for how many guests of GUEST_MIB. */
static void begin(unsigned room, uint32_t pool_min)
{
    struct error e = ERROR_INIT;

    the_play->machine = (struct machine){.loop = &the_play->loop,
                                         .pool_min = pool_min,
                                         .pool_max = 8,
                                         .host_mem_mib = room * 1000,
                                         .overcommit_percent = 100};
    assert_int_equal(shape_set_new(&the_play->machine, &the_play->set, &e), 0);
}

static int setup(void **state)
{
    the_play = calloc(1, sizeof(*the_play));
    *state = the_play;
    (void)snprintf(the_play->template.name, sizeof(the_play->template.name), "base");
    the_play->template.root_fd = -1;
    return sem_init(&the_play->copying, 0, 0) != 0 || sem_init(&the_play->copy_on, 0, 0) != 0 ||
                   uv_loop_init(&the_play->loop) != 0
               ? -1
               : 0;
}

/* As the daemon stops: what is killed ends, and with nothing left in it the loop does. */
static int teardown(void **state)
{
    struct play *p = *state;

    shape_set_stop(p->set);
    for (unsigned i = 0; i < p->started; i++) {
        if (p->monitors[i].alive)
            end(&p->monitors[i]);
    }
    (void)uv_run(&p->loop, UV_RUN_DEFAULT);
    shape_set_free(p->set);
    int result = uv_loop_close(&p->loop);
    (void)sem_destroy(&p->copying);
    (void)sem_destroy(&p->copy_on);
    free(p);
    return result;
}

/* --- tests -------------------------------------------------------------------------------------
 */

static void an_idle_shell_is_handed_out_at_once(void **state)
{
    struct play *p = *state;

    begin(10, 1);
    keep_warm(GUEST_MIB);
    await_started(1);
    assert_int_equal(p->warm_count, 0);
    build(&p->monitors[0]);
    assert_int_equal(p->warm_count, 1);
    const struct shape_key key = key_of(GUEST_MIB);
    admit(GUEST_MIB);
    assert_ptr_equal(shape_set_take(p->set, &key), &p->monitors[0]);
    assert_null(shape_set_take(p->set, &key));
    monitor_set_events(&p->monitors[0], &guest_events, NULL);
    await_started(2); /* for the next one */
}

static void a_request_waits_for_its_own_shell(void **state)
{
    struct play *p = *state;

    begin(10, 0);
    admit(GUEST_MIB);
    (void)ask(GUEST_MIB);
    await_started(1);
    assert_int_equal(p->given.count, 0);
    build(&p->monitors[0]);
    assert_int_equal(p->given.count, 1);
    assert_ptr_equal(p->given.monitor, &p->monitors[0]);
    assert_int_equal(p->given.origin, SHAPE_COLD);
}

static void a_new_shape_is_booted(void **state)
{
    static const struct snapshot snapshot = SNAPSHOT_INIT;
    struct play *p = *state;

    begin(10, 0);
    p->load_result = 1;
    admit(GUEST_MIB);
    (void)ask(GUEST_MIB);
    for (unsigned i = 0; i < SPINS_MAX && p->boot_done == NULL; i++)
        turn();
    assert_non_null(p->boot_done);
    assert_int_equal(p->started, 0);
    p->boot_done(&snapshot, NULL, p->boot_context);
    await_started(1);
    build(&p->monitors[0]);
    assert_int_equal(p->given.origin, SHAPE_BOOTED);
}

static void failures_reach_the_request(void **state)
{
    struct play *p = *state;

    begin(10, 0);
    p->load_result = -1;
    admit(GUEST_MIB);
    (void)ask(GUEST_MIB);
    for (unsigned i = 0; i < SPINS_MAX && p->given.count == 0; i++)
        turn();
    assert_int_equal(p->given.code, ERR_TEMPLATE_CORRUPT);
    p->load_result = 0;
    p->copies_fail = true;
    (void)ask(GUEST_MIB);
    for (unsigned i = 0; i < SPINS_MAX && p->given.count == 1; i++)
        turn();
    assert_int_equal(p->given.code, ERR_INTERNAL);
    p->copies_fail = false;
    (void)ask(GUEST_MIB);
    await_started(1);
    end(&p->monitors[0]);
    assert_int_equal(p->given.count, 3);
    assert_null(p->given.monitor);
}

/* Refills stop where there is no room, and that is as warm as it gets. */
static void shells_fill_the_room_and_no_more(void **state)
{
    struct play *p = *state;

    begin(3, 5);
    keep_warm(GUEST_MIB);
    for (unsigned i = 0; i < 3; i++) {
        await_started(i + 1);
        build(&p->monitors[i]);
    }
    expect_no_more();
    assert_int_equal(p->warm_count, 1);
    assert_int_equal(promised_mib(), 3000);
}

/* The shells of one shape make way for a guest of another, but no more of them than it takes, and
 * its monitor is started only when they are gone. */
static void shells_make_way_for_a_guest(void **state)
{
    struct play *p = *state;
    unsigned killed = 0;

    begin(3, 3);
    keep_warm(GUEST_MIB);
    for (unsigned i = 0; i < 3; i++) {
        await_started(i + 1);
        build(&p->monitors[i]);
    }
    admit(GUEST_MIB + 1000);
    (void)ask(GUEST_MIB + 1000);
    for (unsigned i = 0; i < 3; i++)
        killed += p->monitors[i].killed;
    assert_int_equal(killed, 2);
    expect_no_more();
    for (unsigned i = 0; i < 3; i++) {
        if (p->monitors[i].killed) {
            end(&p->monitors[i]);
            killed--;
        }
        if (killed > 0)
            expect_no_more();
    }
    await_started(4);
    assert_int_equal(promised_mib(), 3000);
    build(&p->monitors[3]);
    assert_ptr_equal(p->given.monitor, &p->monitors[3]);
    expect_no_more();
    /* It ends: the room is the shells' again. */
    end(&p->monitors[3]);
    shape_set_release(p->set, GUEST_MIB + 1000);
    await_started(5);
}

/* One guest's shell is built while another, whose shape comes first, waits for the room of a shell
 * that is ending: that is not made of what the first one waits for. */
static void what_is_waited_for_makes_no_way(void **state)
{
    struct play *p = *state;

    begin(2, 1);
    keep_warm(GUEST_MIB);
    await_started(1);
    build(&p->monitors[0]);
    shape_request_cancel(ask(GUEST_MIB - 1));
    admit(GUEST_MIB - 2);
    (void)ask(GUEST_MIB - 2);
    await_started(2);
    admit(GUEST_MIB - 1);
    (void)ask(GUEST_MIB - 1);
    for (unsigned i = 0; i < SPINS_MAX && !p->monitors[0].killed; i++)
        turn();
    assert_true(p->monitors[0].killed);
    build(&p->monitors[1]);
    assert_false(p->monitors[1].killed);
    assert_ptr_equal(p->given.monitor, &p->monitors[1]);
    end(&p->monitors[0]);
    await_started(3);
    build(&p->monitors[2]);
    assert_ptr_equal(p->given.monitor, &p->monitors[2]);
}

static void guests_are_refused_by_guests_only(void **state)
{
    struct play *p = *state;
    struct error e = ERROR_INIT;
    const struct shape_key key = key_of(GUEST_MIB);

    begin(2, 2);
    keep_warm(GUEST_MIB);
    for (unsigned i = 0; i < 2; i++) {
        await_started(i + 1);
        build(&p->monitors[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        admit(GUEST_MIB);
        monitor_set_events(shape_set_take(p->set, &key), &guest_events, NULL);
    }
    assert_int_equal(shape_set_admit(p->set, GUEST_MIB, &e), -1);
    assert_int_equal(e.code, ERR_NO_CAPACITY);
    expect_no_more();
    end(&p->monitors[0]);
    shape_set_release(p->set, GUEST_MIB);
    admit(GUEST_MIB);
    shape_set_release(p->set, GUEST_MIB);
}

/* A shell that ended unasked, of a shape that wants none any more, does not slow the others down.
 */
static void a_failure_delays_its_own_shape_alone(void **state)
{
    struct play *p = *state;

    begin(10, 1);
    admit(GUEST_MIB);
    struct shape_request *r = ask(GUEST_MIB);
    await_started(1);
    shape_request_cancel(r);
    shape_set_release(p->set, GUEST_MIB);
    build(&p->monitors[0]);
    end(&p->monitors[0]);
    keep_warm(GUEST_MIB + 1);
    await_started(2);
    build(&p->monitors[1]);
    assert_true(uv_backend_timeout(&p->loop) <= 2); /* until the next refill */
    end(&p->monitors[1]);
    assert_true(uv_backend_timeout(&p->loop) > 2);
}

/* More shapes than are kept: the one that was asked for longest ago leaves, with its shells. */
static void an_old_shape_makes_place(void **state)
{
    struct play *p = *state;

    begin(1000, 0);
    for (unsigned i = 0; i <= SHAPE_COUNT_MAX; i++) {
        unsigned before = p->started;

        admit(GUEST_MIB + i);
        struct shape_request *r = ask(GUEST_MIB + i);
        await_started(before + 1);
        shape_request_cancel(r);
        build(&p->monitors[before]);
    }
    assert_true(p->monitors[0].killed);
    for (unsigned i = 1; i <= SHAPE_COUNT_MAX; i++)
        assert_false(p->monitors[i].killed);
    end(&p->monitors[0]);
    turn();
}

/* A worker cannot be taken back once it works; what it works with lives until it is done. */
static void stopping_waits_for_a_copy(void **state)
{
    struct play *p = *state;

    begin(10, 0);
    p->hold_copies = true;
    for (unsigned i = 0; i < 8; i++) { /* more than there are workers: some have not begun */
        admit(GUEST_MIB);
        (void)ask(GUEST_MIB);
    }
    for (unsigned i = 0; i < SPINS_MAX && sem_trywait(&p->copying) != 0; i++)
        turn();
    shape_set_stop(p->set);
    assert_int_equal(p->given.count, 8);
    assert_int_equal(p->given.code, ERR_SHUTTING_DOWN);
    for (unsigned i = 0; i < 8; i++)
        (void)sem_post(&p->copy_on);
    (void)uv_run(&p->loop, UV_RUN_DEFAULT);
    assert_int_equal(p->started, 0);
    shape_set_free(p->set);
    begin(1, 0); /* for the teardown */
}

int main(void)
{
#define SHAPE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        SHAPE_TEST(an_idle_shell_is_handed_out_at_once),
        SHAPE_TEST(a_request_waits_for_its_own_shell),
        SHAPE_TEST(a_new_shape_is_booted),
        SHAPE_TEST(failures_reach_the_request),
        SHAPE_TEST(shells_fill_the_room_and_no_more),
        SHAPE_TEST(shells_make_way_for_a_guest),
        SHAPE_TEST(what_is_waited_for_makes_no_way),
        SHAPE_TEST(guests_are_refused_by_guests_only),
        SHAPE_TEST(a_failure_delays_its_own_shape_alone),
        SHAPE_TEST(an_old_shape_makes_place),
        SHAPE_TEST(stopping_waits_for_a_copy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
