/* Finding the end of a session's command in its shell's output. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "daemon/process/session_scan.h"

#define MARKER                                                                                     \
    "\036"                                                                                         \
    "0123456789abcdef0123456789abcdef:"

static void put(void *arg, const uint8_t *data, size_t size)
{
    assert_int_equal(buffer_append(arg, data, size), 0);
}

/* Feeds `text` in pieces of `step` bytes; returns how much was used, the output is in `out`. */
static size_t feed(struct session_scan *s, const char *text, size_t size, size_t step,
                   struct buffer *out)
{
    size_t used = 0;

    while (used < size && !session_scan_done(s)) {
        size_t piece = size - used < step ? size - used : step;
        size_t n = session_scan_feed(s, (const uint8_t *)text + used, piece, put, out);

        assert_true(n == piece || session_scan_done(s));
        used += n;
    }
    return used;
}

static void expect(struct buffer *out, const char *text, size_t size)
{
    assert_int_equal(out->size, size);
    assert_memory_equal(buffer_bytes(out), text, size);
    buffer_fini(out);
}

/* However the bytes are cut, the same comes out. */
static void test_every_cut(void **state)
{
    static const char text[] = "out\036put\036\036" MARKER "3 /a b" MARKER "next";
    struct buffer out = BUFFER_INIT(KIB);
    struct session_scan s;

    (void)state;
    for (size_t step = 1; step < sizeof(text); step++) {
        session_scan_begin(&s, MARKER, true);
        assert_int_equal(feed(&s, text, sizeof(text) - 1, step, &out), sizeof(text) - 1 - 4);
        assert_true(session_scan_done(&s));
        assert_string_equal(s.report, "3 /a b");
        expect(&out, "out\036put\036\036", 9);
    }
}

static void test_what_is_no_marker(void **state)
{
    static const char text[] = "\036"
                               "0123456789abcdef0123456789abcdee:\036"
                               "01";
    struct buffer out = BUFFER_INIT(KIB);
    struct session_scan s;

    (void)state;
    session_scan_begin(&s, MARKER, false);
    assert_int_equal(feed(&s, text, sizeof(text) - 1, 5, &out), sizeof(text) - 1);
    assert_false(session_scan_done(&s));
    /* The last bytes may still become one. */
    expect(&out, text, sizeof(text) - 1 - 3);
    assert_int_equal(feed(&s, "x" MARKER, SESSION_MARKER_BYTES + 1, 3, &out),
                     SESSION_MARKER_BYTES + 1);
    assert_true(session_scan_done(&s));
    expect(&out,
           "\036"
           "01x",
           4);
}

static void test_endless_report(void **state)
{
    static char long_report[2 * SESSION_REPORT_MAX];
    struct buffer out = BUFFER_INIT(KIB);
    struct session_scan s;

    (void)state;
    memset(long_report, 'x', sizeof(long_report));
    session_scan_begin(&s, MARKER, true);
    (void)feed(&s, MARKER, SESSION_MARKER_BYTES, 100, &out);
    (void)feed(&s, long_report, sizeof(long_report), 1000, &out);
    (void)feed(&s, MARKER, SESSION_MARKER_BYTES, 100, &out);
    assert_true(session_scan_done(&s));
    assert_true(s.is_too_long);
    assert_int_equal(out.size, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_what_is_no_marker),
        cmocka_unit_test(test_endless_report),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
