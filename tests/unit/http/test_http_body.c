/* Chunked bodies, request targets and written heads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "http/chunked.h"
#include "http/target.h"
#include "http/write.h"

#define TEXT(t) (t), sizeof(t) - 1

/* Decodes what comes in two parts; collects the body. `*ret_used` counts what was taken. */
static enum http_result decode_in_two(const char *text, size_t size, size_t first,
                                      struct buffer *body, size_t *ret_used, struct error *e)
{
    struct http_chunked c;
    enum http_result result = HTTP_MORE;
    size_t at = 0;

    http_chunked_init(&c);
    for (int i = 0; i < 2 && result == HTTP_MORE; i++) {
        size_t end = i == 0 ? first : size;
        char *copy = malloc(end > at ? end - at : 1);

        assert_non_null(copy);
        memcpy(copy, text + at, end - at);
        for (size_t from = at; at < end && result == HTTP_MORE;) {
            struct http_span piece;
            size_t used = 0;

            result = http_chunked_decode(&c, copy + (at - from), end - at, &used, &piece, e);
            if (result == HTTP_BAD)
                break;
            assert_true(used <= end - at);
            assert_int_equal(buffer_append(body, piece.data, piece.size), 0);
            at += used;
        }
        free(copy);
    }
    *ret_used = at;
    return result;
}

static void chunked_bodies_are_decoded(void **state)
{
    static const struct {
        const char *text;
        size_t size;
        size_t rest;
        const char *body;
    } cases[] = {
        {TEXT("0\r\n\r\n"), 0, ""},
        {TEXT("5\r\nhello\r\n0\r\n\r\n"), 0, "hello"},
        {TEXT("5\r\nhello\r\n0\r\n\r\nGET"), 3, "hello"},
        {TEXT("5\r\nhello\r\n1\r\n!\r\n00\r\n\r\n"), 0, "hello!"},
        {TEXT("a\r\n0123456789\r\n0\r\n\r\n"), 0, "0123456789"},
        {TEXT("A;x=\"y z\"\r\n0123456789\r\n0;end\r\n\r\n"), 0, "0123456789"},
        {TEXT("0000000000000003\r\nabc\r\n0\r\n\r\n"), 0, "abc"},
        {TEXT("2\r\n\r\n\r\n0\r\n\r\n"), 0, "\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t first = 0; first <= cases[i].size; first++) {
            struct buffer body = BUFFER_INIT(1024);
            struct error e = ERROR_INIT;
            size_t used = 0;

            if (decode_in_two(cases[i].text, cases[i].size, first, &body, &used, &e) != HTTP_DONE)
                fail_msg("case %zu cut at %zu: %s", i, first, e.message);
            assert_int_equal(used, cases[i].size - cases[i].rest);
            assert_int_equal(body.size, strlen(cases[i].body));
            if (body.size > 0)
                assert_memory_equal(buffer_bytes(&body), cases[i].body, body.size);
            buffer_fini(&body);
        }
    }
}

/* The largest size, and none larger. */
static void sizes_have_an_end(void **state)
{
    static const char largest[] = "7fffffffffffffff\r\n", larger[] = "8000000000000000\r\n";
    struct buffer body = BUFFER_INIT(1024);
    struct error e = ERROR_INIT;
    size_t used = 0;

    (void)state;
    assert_int_equal(decode_in_two(TEXT(largest), 3, &body, &used, &e), HTTP_MORE);
    assert_int_equal(used, sizeof(largest) - 1);
    assert_int_equal(decode_in_two(TEXT(larger), 3, &body, &used, &e), HTTP_BAD);
    buffer_fini(&body);
}

static void broken_chunks_are_refused(void **state)
{
    static const struct {
        const char *text;
        size_t size;
    } cases[] = {
        {TEXT("\r\n")},
        {TEXT(";x\r\n")},
        {TEXT("g\r\n")},
        {TEXT("0x5\r\nhello\r\n")},
        {TEXT("+5\r\nhello\r\n")},
        {TEXT("-5\r\nhello\r\n")},
        {TEXT(" 5\r\nhello\r\n")},
        {TEXT("5 \r\nhello\r\n")},
        {TEXT("5 ;x\r\nhello\r\n")},
        {TEXT("5\nhello\r\n")},
        {TEXT("5\rhello\r\n")},
        {TEXT("5\r\nhello\n")},
        {TEXT("5\r\nhello\r0")},
        {TEXT("5\r\nhello!\r\n")},
        {TEXT("5\r\nhello0\r\n")},
        {TEXT("5;a\nb\r\nhello\r\n")},
        {TEXT("5;a\0b\r\nhello\r\n")},
        {TEXT("8000000000000000\r\n")},
        {TEXT("ffffffffffffffff\r\n")},
        {TEXT("10000000000000000\r\n")},
        {TEXT("00000000000000005\r\n")},
        {TEXT("0\r\nTrailer: x\r\n\r\n")},
        {TEXT("0\r\n\n")},
        {TEXT("0\n\r\n")},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t first = 0; first <= cases[i].size; first++) {
            struct buffer body = BUFFER_INIT(1024);
            struct error e = ERROR_INIT;
            size_t used = 0;

            if (decode_in_two(cases[i].text, cases[i].size, first, &body, &used, &e) != HTTP_BAD)
                fail_msg("case %zu cut at %zu was taken: %s", i, first, cases[i].text);
            assert_int_equal(e.code, ERR_BAD_REQUEST);
            buffer_fini(&body);
        }
    }
}

static void long_extensions_are_refused(void **state)
{
    char text[HTTP_CHUNK_LINE_MAX + 8];
    struct http_chunked c;
    struct http_span piece;
    struct error e = ERROR_INIT;
    size_t used;

    (void)state;
    memset(text, 'x', sizeof(text));
    memcpy(text, "5;", 2);
    http_chunked_init(&c);
    assert_int_equal(http_chunked_decode(&c, text, HTTP_CHUNK_LINE_MAX, &used, &piece, &e),
                     HTTP_MORE);
    assert_int_equal(http_chunked_decode(&c, text + 2, 1, &used, &piece, &e), HTTP_BAD);
}

static void written_chunks_come_back(void **state)
{
    struct buffer wire = BUFFER_INIT(1 << 20), body = BUFFER_INIT(1 << 20);
    static const size_t sizes[] = {1, 15, 16, 255, 4096, 65536};
    static uint8_t data[65536];
    struct error e = ERROR_INIT;
    size_t total = 0, used;

    (void)state;
    memset(data, '\r', sizeof(data));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        assert_int_equal(http_chunk_append(&wire, data, sizes[i]), 0);
        total += sizes[i];
    }
    assert_int_equal(buffer_append_text(&wire, HTTP_CHUNK_LAST), 0);
    assert_int_equal(decode_in_two((char *)buffer_bytes(&wire), wire.size, 20, &body, &used, &e),
                     HTTP_DONE);
    assert_int_equal(used, wire.size);
    assert_int_equal(body.size, total);
    /* What does not fit leaves nothing behind. */
    struct buffer small = BUFFER_INIT(8);
    assert_int_equal(http_chunk_append(&small, data, 8), -1);
    assert_int_equal(small.size, 0);
    buffer_fini(&wire);
    buffer_fini(&body);
}

static void targets_are_taken_apart(void **state)
{
    static const char text[] =
        "/v1/sb%20a%2e/caf%C3%A9?path=/workspace/a+b%26c%2F..&flag&x=%FF&empty=&eq=a=b";
    struct http_target t;
    struct error e = ERROR_INIT;

    (void)state;
    assert_int_equal(http_target_parse(text, sizeof(text) - 1, &t, &e), 0);
    assert_int_equal(t.segment_count, 3);
    assert_string_equal(t.segments[0], "v1");
    assert_string_equal(t.segments[1], "sb a.");
    assert_string_equal(t.segments[2], "caf\xc3\xa9");
    assert_int_equal(t.query_count, 5);
    assert_string_equal(t.query[0].name, "path");
    assert_string_equal(t.query[0].value, "/workspace/a+b&c/..");
    assert_string_equal(t.query[1].name, "flag");
    assert_string_equal(t.query[1].value, "");
    assert_string_equal(t.query[2].value, "\xff");
    assert_string_equal(t.query[4].value, "a=b");
    http_target_fini(&t);
    assert_int_equal(http_target_parse("/", 1, &t, &e), 0);
    assert_int_equal(t.segment_count, 0);
    http_target_fini(&t);
    assert_int_equal(http_target_parse("/?", 2, &t, &e), 0);
    assert_int_equal(t.query_count, 0);
    http_target_fini(&t);
}

static void hostile_targets_are_refused(void **state)
{
    static const char *const cases[] = {
        "",        "a",       "//",        "/a//b",    "/a/",    "/.",    "/a/..",
        "/%2e%2E", "/a/%2e",  "/a%2Fb",    "/a%2fb",   "/a%00",  "/%",    "/%4",
        "/a%4",    "/%zz",    "/%0a",      "/%7f",     "/%+1",   "/a?=x", "/a?x&&y",
        "/a?x=%",  "/a?x=%0", "/a?x=%00y", "/a?%00=1", "/a?x%g1"};
    char many[512] = "";
    struct http_target t;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error e = ERROR_INIT;
        char *copy = malloc(strlen(cases[i]) + 1);

        /* Without a NUL behind it, so that a sanitizer sees a read too far. */
        assert_non_null(copy);
        memcpy(copy, cases[i], strlen(cases[i]));
        char *exact = realloc(copy, strlen(cases[i]) > 0 ? strlen(cases[i]) : 1);
        assert_non_null(exact);
        if (http_target_parse(exact, strlen(cases[i]), &t, &e) == 0)
            fail_msg("taken: %s", cases[i]);
        assert_int_equal(e.code, ERR_BAD_REQUEST);
        free(exact);
    }
    for (size_t i = 0; i <= HTTP_SEGMENTS_MAX; i++)
        memcpy(many + 2 * i, "/a", 3);
    struct error e = ERROR_INIT;
    assert_int_equal(http_target_parse(many, strlen(many), &t, &e), -1);
    assert_int_equal(e.code, ERR_HEADER_TOO_LARGE);
    assert_int_equal(http_target_parse(many, strlen(many) - 2, &t, &e), 0);
    http_target_fini(&t);
    memcpy(many, "/?a", 4);
    for (size_t i = 1; i <= HTTP_QUERY_MAX; i++)
        memcpy(many + 1 + 2 * i, "&a", 3);
    assert_int_equal(http_target_parse(many, strlen(many), &t, &e), -1);
    assert_int_equal(http_target_parse(many, strlen(many) - 2, &t, &e), 0);
    assert_int_equal(t.query_count, HTTP_QUERY_MAX);
    http_target_fini(&t);
}

static void escaped_text_comes_back(void **state)
{
    struct buffer b = BUFFER_INIT(8192);
    struct http_target t;
    struct error e = ERROR_INIT;
    char all[256];

    (void)state;
    for (int i = 1; i < 256; i++)
        all[i - 1] = (char)i;
    all[255] = '\0';
    assert_int_equal(buffer_append_text(&b, "/x?v="), 0);
    assert_int_equal(http_escape_append(&b, all), 0);
    assert_int_equal(http_target_parse((char *)buffer_bytes(&b), b.size, &t, &e), 0);
    assert_string_equal(t.query[0].value, all);
    http_target_fini(&t);
    buffer_fini(&b);
}

static void written_heads_are_read(void **state)
{
    struct buffer b = BUFFER_INIT(8192);
    struct http_head head;
    struct error e = ERROR_INIT;
    size_t scanned = 0;

    (void)state;
    assert_int_equal(http_response_start(&b, 404), 0);
    assert_int_equal(http_header_put(&b, "Content-Length", "%d", 7), 0);
    assert_int_equal(http_head_end(&b), 0);
    assert_int_equal(
        http_response_parse((char *)buffer_bytes(&b), b.size, &scanned, HTTP_GET, &head, &e),
        HTTP_DONE);
    assert_int_equal(head.status, 404);
    assert_int_equal(head.content_length, 7);
    buffer_fini(&b);
    scanned = 0;
    assert_int_equal(http_request_start(&b, "PUT", "/a?b=c"), 0);
    assert_int_equal(http_header_put(&b, "Host", "localhost"), 0);
    assert_int_equal(http_head_end(&b), 0);
    assert_int_equal(http_request_parse((char *)buffer_bytes(&b), b.size, &scanned, &head, &e),
                     HTTP_DONE);
    assert_int_equal(head.method, HTTP_PUT);
    buffer_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunked_bodies_are_decoded),
        cmocka_unit_test(sizes_have_an_end),
        cmocka_unit_test(broken_chunks_are_refused),
        cmocka_unit_test(long_extensions_are_refused),
        cmocka_unit_test(written_chunks_come_back),
        cmocka_unit_test(targets_are_taken_apart),
        cmocka_unit_test(hostile_targets_are_refused),
        cmocka_unit_test(escaped_text_comes_back),
        cmocka_unit_test(written_heads_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
