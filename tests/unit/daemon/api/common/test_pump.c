/* The pump: each kind of source against a sink that takes what the test lets it take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cloche/limits.h"
#include "daemon/api/common/pump.h"

#define LEFTOVER_MAX 64u
#define TAKES_ALL    SIZE_MAX

/* Both sides of one pump, and its owner. */
struct fixture {
    struct pump pump;
    size_t room; /* bytes that the sink takes yet; all with TAKES_ALL */
    bool fails;  /* the sink */
    struct buffer out;
    unsigned end_count, broken_count;
    enum error_code why;
    bool is_paused;
    unsigned pause_count;
    size_t credit;    /* consumed by now */
    const char *next; /* of the source that is asked; NULL: it has nothing */
    bool pull_fails;
};

static void on_pause(void *from)
{
    struct fixture *f = from;

    assert_false(f->is_paused);
    f->is_paused = true;
    f->pause_count++;
}

static void on_resume(void *from)
{
    struct fixture *f = from;

    assert_true(f->is_paused);
    f->is_paused = false;
}

static void on_consume(void *from, size_t size)
{
    struct fixture *f = from;

    assert_true(size > 0);
    f->credit += size;
}

static int on_pull(void *from, struct buffer *to, struct error *e)
{
    struct fixture *f = from;
    const char *piece = f->next;

    assert_int_equal(to->size, 0);
    if (f->pull_fails)
        return error_set(e, ERR_BAD_REQUEST, "what comes is nonsense");
    f->next = NULL;
    return piece == NULL ? 0 : buffer_append_text(to, piece) == 0 ? 1 : -1;
}

static size_t on_write(void *to, const uint8_t *data, size_t size)
{
    struct fixture *f = to;
    size_t taken = size < f->room ? size : f->room;

    assert_true(size > 0);
    assert_int_equal(f->end_count, 0);
    if (f->fails)
        return PUMP_WRITE_FAILED;
    assert_int_equal(buffer_append(&f->out, data, taken), 0);
    f->room -= f->room == TAKES_ALL ? 0 : taken;
    return taken;
}

static void on_end(void *to)
{
    struct fixture *f = to;

    f->end_count++;
}

static void on_broken(void *arg, const struct error *why)
{
    struct fixture *f = arg;

    f->broken_count++;
    f->why = why->code;
}

static const struct pump_source pausing = {.pause = on_pause, .resume = on_resume};
static const struct pump_source credited = {.consume = on_consume};
static const struct pump_source asked = {.pull = on_pull};
static const struct pump_sink sink = {.write = on_write, .end = on_end};

static void begin(struct fixture *f, const struct pump_source *source, size_t room)
{
    const struct pump_spec spec = {.source = source,
                                   .from = f,
                                   .sink = &sink,
                                   .to = f,
                                   .leftover_max = LEFTOVER_MAX,
                                   .on_broken = on_broken,
                                   .arg = f};

    buffer_fini(&f->out);
    *f = (struct fixture){.room = room, .out = BUFFER_INIT(1 * MIB)};
    pump_init(&f->pump, &spec);
}

static void finish(struct fixture *f)
{
    pump_stop(&f->pump);
    buffer_fini(&f->out);
    *f = (struct fixture){0};
}

static void give(struct fixture *f, const char *text)
{
    pump_data(&f->pump, text, strlen(text));
}

static void run(struct fixture *f, size_t room)
{
    f->room = room;
    pump_run(&f->pump);
}

static void expect(const struct fixture *f, const char *text)
{
    assert_int_equal(f->out.size, strlen(text));
    if (f->out.size > 0)
        assert_memory_equal(buffer_bytes(&f->out), text, f->out.size);
}

static void test_pause_and_resume(void **state)
{
    struct fixture f = {0};

    (void)state;
    begin(&f, &pausing, 6);
    give(&f, "one");
    assert_false(f.is_paused);
    give(&f, "two-three");
    expect(&f, "onetwo");
    assert_true(f.is_paused);
    f.room = 1;              /* nothing overtakes what waits */
    give(&f, "-on-its-way"); /* as a WebSocket does behind a pause */
    expect(&f, "onetwo");
    run(&f, 4);
    expect(&f, "onetwo-thr");
    assert_true(f.is_paused);
    run(&f, TAKES_ALL);
    expect(&f, "onetwo-three-on-its-way");
    assert_false(f.is_paused);
    assert_int_equal(f.pause_count, 1);
    pump_end(&f.pump);
    assert_int_equal(f.end_count, 1);
    finish(&f);
}

static void test_credit(void **state)
{
    struct fixture f = {0};

    (void)state;
    begin(&f, &credited, 5);
    give(&f, "four");
    assert_int_equal(f.credit, 4);
    give(&f, "five"); /* one byte is taken: credit for no more */
    give(&f, "six");
    assert_int_equal(f.credit, 5);
    run(&f, 4);
    assert_int_equal(f.credit, 9);
    run(&f, TAKES_ALL);
    assert_int_equal(f.credit, 11);
    expect(&f, "fourfivesix");
    finish(&f);
}

/* The end comes behind the last byte, and the source, which is gone, hears nothing any more. */
static void test_end_waits_for_the_leftover(void **state)
{
    static const struct pump_source *const sources[] = {&pausing, &credited};
    struct fixture f = {0};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        begin(&f, sources[i], 2);
        give(&f, "end");
        size_t credit = f.credit;
        pump_end(&f.pump);
        assert_int_equal(f.end_count, 0);
        run(&f, 0);
        assert_int_equal(f.end_count, 0);
        run(&f, 1);
        assert_int_equal(f.end_count, 1);
        expect(&f, "end");
        assert_true(f.credit == credit && f.is_paused == (i == 0));
        run(&f, TAKES_ALL);
        assert_int_equal(f.end_count, 1);
    }
    finish(&f);
}

static void test_pull(void **state)
{
    struct fixture f = {0};

    (void)state;
    begin(&f, &asked, 4);
    f.next = "first";
    pump_run(&f.pump);
    expect(&f, "firs");
    f.next = "second"; /* is not asked for before the first has gone */
    run(&f, 0);
    assert_non_null(f.next);
    run(&f, TAKES_ALL);
    expect(&f, "firstsecond");
    assert_null(f.next);
    f.next = "third"; /* what it has at its end is still asked for */
    f.room = 2;
    pump_end(&f.pump);
    assert_int_equal(f.end_count, 0);
    run(&f, TAKES_ALL);
    expect(&f, "firstsecondthird");
    assert_int_equal(f.end_count, 1);
    finish(&f);
}

/* The sink has gone: the source may go on to its end, for nothing. */
static void test_discard(void **state)
{
    struct fixture f = {0};

    (void)state;
    begin(&f, &pausing, 1);
    give(&f, "rest");
    assert_true(f.is_paused);
    pump_discard(&f.pump);
    assert_false(f.is_paused);
    f.room = TAKES_ALL;
    give(&f, "more");
    pump_run(&f.pump);
    pump_end(&f.pump);
    expect(&f, "r");
    assert_int_equal(f.end_count, 0);

    begin(&f, &credited, 1);
    give(&f, "rest");
    pump_discard(&f.pump);
    assert_true(f.credit == 4 && f.pump.leftover.size == 0);
    give(&f, "more");
    assert_int_equal(f.credit, 8);

    begin(&f, &pausing, 1);
    give(&f, "rest");
    pump_end(&f.pump); /* the source is gone: there is nobody to resume */
    pump_discard(&f.pump);
    assert_true(f.is_paused && f.end_count == 0);
    finish(&f);
}

static void test_stop(void **state)
{
    struct fixture f = {0};

    (void)state;
    pump_stop(&f.pump); /* that was never begun */
    pump_data(&f.pump, "x", 1);
    pump_run(&f.pump);
    pump_end(&f.pump);
    begin(&f, &pausing, 1);
    give(&f, "rest");
    pump_stop(&f.pump);
    f.room = TAKES_ALL;
    give(&f, "more");
    pump_run(&f.pump);
    pump_discard(&f.pump);
    pump_end(&f.pump);
    expect(&f, "r");
    assert_true(f.is_paused && f.end_count == 0 && f.broken_count == 0);
    finish(&f);
}

static void expect_broken(struct fixture *f, enum error_code why)
{
    assert_int_equal(f->broken_count, 1);
    assert_int_equal(f->why, why);
    run(f, TAKES_ALL);
    give(f, "more");
    pump_end(&f->pump);
    assert_true(f->broken_count == 1 && f->end_count == 0);
    assert_int_equal(f->out.size, 0);
}

static void test_broken(void **state)
{
    char large[LEFTOVER_MAX + 1];
    struct fixture f = {0};

    (void)state;
    memset(large, 'x', sizeof(large));
    begin(&f, &credited, 0); /* more than had credit */
    pump_data(&f.pump, large, LEFTOVER_MAX);
    assert_int_equal(f.broken_count, 0);
    pump_data(&f.pump, large, 1);
    expect_broken(&f, ERR_INTERNAL);
    begin(&f, &pausing, 0);
    f.fails = true;
    give(&f, "some");
    assert_false(f.is_paused);
    expect_broken(&f, ERR_INTERNAL);
    begin(&f, &pausing, 0); /* the sink fails when it is given what was left over */
    give(&f, "some");
    f.fails = true;
    run(&f, TAKES_ALL);
    expect_broken(&f, ERR_INTERNAL);
    begin(&f, &asked, TAKES_ALL);
    f.pull_fails = true;
    pump_run(&f.pump);
    expect_broken(&f, ERR_BAD_REQUEST);
    finish(&f);
}

/* --- at random ----------------------------------------------------------------------------------
 */

static size_t at_random(size_t max)
{
    return (size_t)rand() % (max + 1);
}

/* One transfer of `total` bytes, which count up. What must hold after each step is in here. */
static void walk(const struct pump_source *source, size_t total)
{
    struct fixture f = {0};
    uint8_t piece[LEFTOVER_MAX];
    size_t sent = 0;

    begin(&f, source, 0);
    for (unsigned step = 0; f.end_count == 0; step++) {
        size_t may = source == &credited ? f.credit + LEFTOVER_MAX - sent
                     : f.is_paused       ? 0
                                         : LEFTOVER_MAX;
        size_t size = at_random(may < total - sent ? may : total - sent);

        assert_true(step < 1000 * total);
        for (size_t i = 0; i < size; i++)
            piece[i] = (uint8_t)(sent + i);
        if (size > 0)
            pump_data(&f.pump, piece, size);
        sent += size;
        if (sent == total && !f.is_paused && at_random(3) == 0 && !f.pump.has_ended)
            pump_end(&f.pump);
        if (at_random(1) == 0)
            run(&f, at_random(LEFTOVER_MAX));
        assert_int_equal(f.broken_count, 0);
        assert_int_equal(f.out.size + f.pump.leftover.size, sent);
        assert_true(f.credit <= f.out.size);
        if (source == &credited && !f.pump.has_ended)
            assert_int_equal(f.credit, f.out.size);
        assert_true(f.pump.leftover.size == 0 || source != &pausing || f.is_paused);
    }
    assert_int_equal(f.out.size, total);
    for (size_t i = 0; i < total; i++)
        assert_int_equal(buffer_bytes(&f.out)[i], (uint8_t)i);
    finish(&f);
}

static void test_random_walks(void **state)
{
    (void)state;
    srand(8);
    for (size_t round = 0; round < 200; round++) {
        walk(&pausing, 1 + at_random(2000));
        walk(&credited, 1 + at_random(2000));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pause_and_resume),
        cmocka_unit_test(test_credit),
        cmocka_unit_test(test_end_waits_for_the_leftover),
        cmocka_unit_test(test_pull),
        cmocka_unit_test(test_discard),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_random_walks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
