/* The ring of a command's output: offsets, order of the two outputs, what is dropped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/process/output_ring.h"

static void append(struct output_ring *r, enum exec_output which, const char *text)
{
    assert_int_equal(output_ring_append(r, which, (const uint8_t *)text, strlen(text)), 0);
}

static void expect(const struct output_ring *r, uint64_t from, enum exec_output which,
                   const char *text)
{
    uint8_t bytes[64];
    enum exec_output got = EXEC_OUTPUT_COUNT;
    size_t size = output_ring_read(r, from, bytes, sizeof(bytes), &got);

    assert_int_equal(size, strlen(text));
    assert_memory_equal(bytes, text, size);
    assert_int_equal(got, which);
}

static void test_order_and_offsets(void **state)
{
    struct output_ring r;
    uint8_t bytes[4];
    enum exec_output which;

    (void)state;
    output_ring_init(&r, 1);
    assert_int_equal(output_ring_read(&r, 0, bytes, sizeof(bytes), &which), 0);
    append(&r, EXEC_STDOUT, "one");
    append(&r, EXEC_STDERR, "two");
    append(&r, EXEC_STDERR, "three");
    append(&r, EXEC_STDOUT, "four");
    expect(&r, 0, EXEC_STDOUT, "one");
    expect(&r, 3, EXEC_STDERR, "twothree");
    expect(&r, 5, EXEC_STDERR, "othree");
    expect(&r, 11, EXEC_STDOUT, "four");
    assert_int_equal(output_ring_read(&r, 3, bytes, 2, &which), 2);
    assert_memory_equal(bytes, "tw", 2);
    assert_int_equal(output_ring_read(&r, 15, bytes, sizeof(bytes), &which), 0);
    output_ring_drop(&r, 5);
    assert_int_equal(r.start, 5);
    output_ring_drop(&r, 15);
    assert_null(r.bytes);
    append(&r, EXEC_STDERR, "on");
    expect(&r, 15, EXEC_STDERR, "on");
    output_ring_fini(&r);
}

static void test_the_oldest_goes(void **state)
{
    static uint8_t block[10000];
    struct output_ring r;
    uint8_t bytes[8];
    enum exec_output which;

    (void)state;
    output_ring_init(&r, 4096);
    memset(block, 'a', sizeof(block));
    append(&r, EXEC_STDERR, "old");
    assert_int_equal(output_ring_append(&r, EXEC_STDOUT, block, 4095), 0);
    assert_int_equal(r.start, 2);
    assert_int_equal(output_ring_read(&r, 2, bytes, sizeof(bytes), &which), 1);
    assert_int_equal(bytes[0], 'd');
    /* More at once than the ring holds. */
    block[sizeof(block) - 1] = 'z';
    assert_int_equal(output_ring_append(&r, EXEC_STDERR, block, sizeof(block)), 0);
    assert_int_equal(r.end, 3 + 4095 + sizeof(block));
    assert_int_equal(r.end - r.start, 4096);
    assert_int_equal(output_ring_read(&r, r.end - 1, bytes, sizeof(bytes), &which), 1);
    assert_int_equal(bytes[0], 'z');
    output_ring_fini(&r);
}

/* Against a plain array of all that was ever written. */
static void test_random_walk(void **state)
{
    enum { STEPS = 3000, TOTAL = STEPS * 200 };
    uint8_t *all = malloc(TOTAL), *lanes = malloc(TOTAL);
    struct output_ring r;
    unsigned seed = 7;

    (void)state;
    output_ring_init(&r, 16384);
    for (unsigned step = 0; step < STEPS; step++) {
        size_t size = 1 + (size_t)rand_r(&seed) % 199;
        enum exec_output which = rand_r(&seed) % 3 == 0 ? EXEC_STDERR : EXEC_STDOUT;

        for (size_t i = 0; i < size; i++)
            all[r.end + i] = (uint8_t)rand_r(&seed);
        memset(lanes + r.end, which, size);
        assert_int_equal(output_ring_append(&r, which, all + r.end, size), 0);
        assert_true(r.end - r.start <= 16384);
        if (rand_r(&seed) % 50 == 0)
            output_ring_drop(&r, r.start + (uint64_t)rand_r(&seed) % (r.end - r.start + 1));
        for (uint64_t at = r.start; at < r.end;) {
            uint8_t got[500];
            size_t n = output_ring_read(&r, at, got, sizeof(got), &which);

            assert_true(n > 0);
            assert_memory_equal(got, all + at, n);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(lanes[at + i], which);
            at += n;
            assert_true(n == sizeof(got) || at == r.end || lanes[at] != which);
        }
    }
    output_ring_fini(&r);
    free(all);
    free(lanes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_offsets),
        cmocka_unit_test(test_the_oldest_goes),
        cmocka_unit_test(test_random_walk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
