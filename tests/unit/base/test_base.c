/* Buffers, wire readers, frame headers, errors and checksums: bounds above all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/frame.h"
#include "base/wire.h"

static void buffer_keeps_to_its_maximum(void **state)
{
    struct buffer b = BUFFER_INIT(10);

    (void)state;
    assert_int_equal(buffer_append(&b, "12345", 5), 0);
    assert_int_equal(buffer_append(&b, "123456", 6), -1);
    assert_int_equal(b.size, 5);
    assert_int_equal(buffer_append(&b, "67890", 5), 0);
    assert_int_equal(buffer_append(&b, "x", 1), -1);
    buffer_consume(&b, 4);
    assert_int_equal(buffer_append(&b, "abcd", 4), 0);
    assert_memory_equal(buffer_bytes(&b), "567890abcd", 10);
    assert_null(buffer_reserve(&b, SIZE_MAX));
    buffer_fini(&b);
    assert_int_equal(b.size_max, 10);
}

/* A random walk of appends and consumes against a plain model of the content. */
static void buffer_walks_at_random(void **state)
{
    enum { MAX = 4096 };
    struct buffer b = BUFFER_INIT(MAX);
    uint8_t model[MAX];
    size_t size = 0;
    unsigned next = 0;

    (void)state;
    srand(7);
    for (int step = 0; step < 20000; step++) {
        uint8_t chunk[600];
        size_t n = (size_t)rand() % sizeof(chunk);

        if (rand() % 2 == 0) {
            for (size_t i = 0; i < n; i++)
                chunk[i] = (uint8_t)next++;
            int result = buffer_append(&b, chunk, n);
            assert_int_equal(result, size + n <= MAX ? 0 : -1);
            if (result == 0) {
                memcpy(model + size, chunk, n);
                size += n;
            }
        } else if (n <= size) {
            buffer_consume(&b, n);
            memmove(model, model + n, size - n);
            size -= n;
        }
        assert_int_equal(b.size, size);
        assert_int_equal(buffer_room(&b), MAX - size);
        if (size > 0)
            assert_memory_equal(buffer_bytes(&b), model, size);
    }
    buffer_fini(&b);
}

static void buffer_prints(void **state)
{
    struct buffer b = BUFFER_INIT(8);

    (void)state;
    assert_int_equal(buffer_printf(&b, "%d", 1234), 0);
    assert_int_equal(buffer_printf(&b, "%d", 5678), -1); /* no room for the NUL behind it */
    assert_memory_equal(buffer_bytes(&b), "1234", 4);
    assert_int_equal(b.size, 4);
    buffer_fini(&b);
}

static void reader_never_passes_its_end(void **state)
{
    const uint8_t bytes[] = {1, 2, 0, 3, 0, 0, 0, 'a', 'b', 'c', 9};
    struct wire_reader r;
    size_t size;

    (void)state;
    wire_reader_init(&r, bytes, sizeof(bytes));
    assert_int_equal(wire_get_u8(&r), 1);
    assert_int_equal(wire_get_u16(&r), 2);
    const char *text = wire_get_string(&r, 3, &size);
    assert_non_null(text);
    assert_memory_equal(text, "abc", 3);
    assert_int_equal(size, 3);
    assert_int_equal(wire_get_u32(&r), 0);
    assert_true(r.bad);
    assert_int_equal(wire_get_u8(&r), 0); /* bad stays bad, also where a byte is left */
}

static void strings_are_judged(void **state)
{
    const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 'a'};
    const uint8_t nul[] = {3, 0, 0, 0, 'a', 0, 'b'};
    struct wire_reader r;
    size_t size;

    (void)state;
    wire_reader_init(&r, huge, sizeof(huge));
    assert_null(wire_get_string(&r, SIZE_MAX, &size));
    wire_reader_init(&r, nul, sizeof(nul));
    assert_null(wire_get_string(&r, 100, &size));
    assert_true(r.bad);
    wire_reader_init(&r, nul, sizeof(nul));
    assert_null(wire_get_string(&r, 2, &size));
}

static void writer_stops_when_full(void **state)
{
    uint8_t bytes[6];
    struct wire_writer w;

    (void)state;
    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u32(&w, 0x04030201);
    wire_put_u32(&w, 1);
    assert_true(w.bad);
    assert_int_equal(w.used, 4);
    assert_memory_equal(bytes, "\1\2\3\4", 4);
    wire_put_u8(&w, 1);
    assert_int_equal(w.used, 4);
}

static void frame_headers_go_round(void **state)
{
    const struct channel_header good[] = {{1, 1, CHANNEL_OPEN, 1},
                                          {CHANNEL_PAYLOAD_MAX, 77, CHANNEL_DATA, CHANNEL_LANE_ERR},
                                          {0, UINT32_MAX, CHANNEL_EOF, CHANNEL_LANE_IN},
                                          {4, 5, CHANNEL_CREDIT, CHANNEL_LANE_OUT},
                                          {0, 5, CHANNEL_INFO, 0},
                                          {100, 5, CHANNEL_END, 0}};
    uint8_t bytes[CHANNEL_HEADER_BYTES];
    struct error e = ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct channel_header h;

        frame_header_put(bytes, &good[i]);
        assert_int_equal(frame_header_get(bytes, &h, &e), 0);
        assert_memory_equal(&h, &good[i], 10); /* without the padding */
    }
    assert_int_equal(e.code, ERR_NONE);
}

static void bad_frame_headers_are_refused(void **state)
{
    const struct channel_header bad[] = {{CHANNEL_PAYLOAD_MAX + 1, 1, CHANNEL_DATA, 0},
                                         {1, 0, CHANNEL_DATA, 0},
                                         {0, 1, CHANNEL_DATA, 0},
                                         {1, 1, 0, 0},
                                         {1, 1, CHANNEL_END + 1, 0},
                                         {1, 1, CHANNEL_DATA, CHANNEL_LANE_COUNT},
                                         {1, 1, CHANNEL_EOF, 0},
                                         {5, 1, CHANNEL_CREDIT, 0},
                                         {0, 1, CHANNEL_SIGNAL, 0}};
    uint8_t bytes[CHANNEL_HEADER_BYTES];
    struct channel_header h;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct error e = ERROR_INIT;

        frame_header_put(bytes, &bad[i]);
        assert_int_equal(frame_header_get(bytes, &h, &e), -1);
        assert_int_equal(e.code, ERR_BAD_REQUEST);
    }
    struct error e = ERROR_INIT;
    frame_header_put(bytes, &(struct channel_header){1, 1, CHANNEL_DATA, 0});
    bytes[11] = 1; /* reserved */
    assert_int_equal(frame_header_get(bytes, &h, &e), -1);
}

static void errors_carry_their_story(void **state)
{
    struct error e = ERROR_INIT;
    char text[1024];

    (void)state;
    assert_int_equal(error_errno(&e, 2, "cannot open %s", "x"), -1);
    (void)error_wrap(&e, "template %s", "python");
    (void)error_remedy(&e, "make one");
    error_format(&e, text, sizeof(text));
    assert_string_equal(text, "template python: cannot open x (No such file or directory)\n"
                              "  make one");
    char deep[600];
    memset(deep, 'y', sizeof(deep) - 1);
    deep[sizeof(deep) - 1] = '\0';
    (void)error_wrap(&e, "%s", deep); /* longer than the message can be */
    assert_int_equal(strlen(e.message), sizeof(e.message) - 1);
}

static void error_codes_have_names(void **state)
{
    (void)state;
    for (unsigned i = ERR_NONE + 1; i < ERR_COUNT; i++) {
        enum error_code code = (enum error_code)i;

        assert_int_equal(error_from_name(error_name(code)), code);
        assert_in_range(error_http_status(code), 400, 599);
        assert_in_range(error_exit_code(code), 1, 125);
    }
    assert_int_equal(error_from_name("no such error"), ERR_INTERNAL);
}

static void crc32c_is_castagnoli(void **state)
{
    const uint8_t zeroes[32] = {0};

    (void)state;
    /* RFC 3720, B.4. */
    assert_int_equal(crc32c(0, zeroes, sizeof(zeroes)), 0x8a9136aa);
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffer_keeps_to_its_maximum),
        cmocka_unit_test(buffer_walks_at_random),
        cmocka_unit_test(buffer_prints),
        cmocka_unit_test(reader_never_passes_its_end),
        cmocka_unit_test(strings_are_judged),
        cmocka_unit_test(writer_stops_when_full),
        cmocka_unit_test(frame_headers_go_round),
        cmocka_unit_test(bad_frame_headers_are_refused),
        cmocka_unit_test(errors_carry_their_story),
        cmocka_unit_test(error_codes_have_names),
        cmocka_unit_test(crc32c_is_castagnoli),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
