/*
 * HTTP heads, chunked bodies and targets. The first byte picks the parser. Properties: the result
 * does not depend on how the bytes were cut; an accepted head written anew from its parts parses to
 * the same; decoded chunks encoded anew decode to the same; an accepted path has no tricks in it.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "http/chunked.h"
#include "http/head.h"
#include "http/target.h"
#include "http/websocket.h"

#define SIZE_MAX_HERE (64 * KIB)

static enum http_result parse(const char *data, size_t size, size_t *scanned, bool response,
                              struct http_head *ret_head, struct error *e)
{
    return response ? http_response_parse(data, size, scanned, HTTP_GET, ret_head, e)
                    : http_request_parse(data, size, scanned, ret_head, e);
}

static void append_span(struct buffer *b, struct http_span s, const char *after)
{
    int failed = buffer_append(b, s.data, s.size) || buffer_append_text(b, after);

    assert(failed == 0);
}

static bool same(struct http_span a, struct http_span b)
{
    return a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
}

static void check_head(const struct http_head *h)
{
    struct buffer b = BUFFER_INIT(2 * SIZE_MAX_HERE);
    struct http_head again;
    struct error e = ERROR_INIT;
    size_t scanned = 0;
    int failed;

    if (h->is_response) {
        failed = buffer_printf(&b, "HTTP/1.%d %d \r\n", h->minor_version, h->status);
    } else {
        append_span(&b, h->method_name, " ");
        append_span(&b, h->target, " ");
        failed = buffer_printf(&b, "HTTP/1.%d\r\n", h->minor_version);
    }
    for (size_t i = 0; i < h->header_count; i++) {
        append_span(&b, h->headers[i].name, ":");
        append_span(&b, h->headers[i].value, "\r\n");
    }
    failed |= buffer_append_text(&b, "\r\n");
    assert(failed == 0);
    enum http_result result =
        parse((const char *)buffer_bytes(&b), b.size, &scanned, h->is_response, &again, &e);
    assert(result == HTTP_DONE && again.size == b.size);
    assert(again.framing == h->framing && again.content_length == h->content_length);
    assert(again.keep_alive == h->keep_alive && again.expect_continue == h->expect_continue);
    assert(again.form == h->form && again.method == h->method && again.status == h->status);
    assert(again.header_count == h->header_count);
    for (size_t i = 0; i < h->header_count; i++)
        assert(same(h->headers[i].name, again.headers[i].name) &&
               same(h->headers[i].value, again.headers[i].value));
    buffer_fini(&b);
}

/* A WebSocket's opening: what is accepted has all that it must have. */
static void check_handshake(const struct http_head *h)
{
    char key[WEBSOCKET_KEY_BYTES];
    struct error e = ERROR_INIT;

    if (h->is_response) {
        (void)!websocket_response_check(h, "dGhlIHNhbXBsZSBub25jZQ==", &e);
    } else if (websocket_request_check(h, key, &e) == 0) {
        assert(strlen(key) == WEBSOCKET_KEY_BYTES - 1 && h->upgrade);
        assert(h->framing == HTTP_BODY_NONE && h->method == HTTP_GET);
    } else {
        assert(e.code == ERR_UPGRADE_REQUIRED || e.code == ERR_BAD_REQUEST);
    }
}

static void fuzz_head(const char *data, size_t size, size_t cut, bool response)
{
    struct http_head whole, parts;
    struct error e1 = ERROR_INIT, e2 = ERROR_INIT;
    size_t scanned = 0;

    enum http_result first = parse(data, size, &scanned, response, &whole, &e1);
    scanned = 0;
    enum http_result second = parse(data, cut, &scanned, response, &parts, &e2);
    if (second == HTTP_MORE)
        second = parse(data, size, &scanned, response, &parts, &e2);
    assert(first == second);
    assert(first != HTTP_BAD || (e1.code == e2.code && strcmp(e1.message, e2.message) == 0));
    if (first != HTTP_DONE)
        return;
    assert(whole.size <= size && whole.size <= HTTP_HEAD_BYTES_MAX);
    assert(whole.size == parts.size && whole.framing == parts.framing);
    check_head(&whole);
    check_handshake(&whole);
}

static enum http_result decode(const char *data, size_t size, size_t cut, struct buffer *body,
                               size_t *ret_used)
{
    struct http_chunked c;
    struct error e = ERROR_INIT;
    enum http_result result = HTTP_MORE;
    size_t at = 0;

    http_chunked_init(&c);
    for (int i = 0; i < 2 && result == HTTP_MORE; i++) {
        size_t end = i == 0 ? cut : size;

        while (at < end && result == HTTP_MORE) {
            struct http_span piece;
            size_t used = 0;

            result = http_chunked_decode(&c, data + at, end - at, &used, &piece, &e);
            if (result == HTTP_BAD)
                return result;
            assert(used > 0 && used <= end - at && piece.size <= used);
            int failed = buffer_append(body, piece.data, piece.size);
            assert(failed == 0);
            at += used;
        }
    }
    *ret_used = at;
    return result;
}

static void fuzz_chunked(const char *data, size_t size, size_t cut)
{
    struct buffer whole = BUFFER_INIT(SIZE_MAX_HERE), parts = BUFFER_INIT(SIZE_MAX_HERE);
    struct buffer wire = BUFFER_INIT(2 * SIZE_MAX_HERE), again = BUFFER_INIT(SIZE_MAX_HERE);
    size_t used1 = 0, used2 = 0;

    enum http_result first = decode(data, size, size, &whole, &used1);
    enum http_result second = decode(data, size, cut, &parts, &used2);
    assert(first == second && used1 == used2);
    if (first != HTTP_BAD)
        assert(whole.size == parts.size &&
               (whole.size == 0 || memcmp(whole.data, parts.data, whole.size) == 0));
    if (first == HTTP_DONE) {
        int failed = whole.size > 0 ? http_chunk_append(&wire, whole.data, whole.size) : 0;

        failed |= buffer_append_text(&wire, HTTP_CHUNK_LAST);
        assert(failed == 0);
        second =
            decode((const char *)buffer_bytes(&wire), wire.size, wire.size / 2, &again, &used2);
        assert(second == HTTP_DONE && used2 == wire.size && again.size == whole.size);
        assert(whole.size == 0 || memcmp(whole.data, again.data, whole.size) == 0);
    }
    buffer_fini(&whole);
    buffer_fini(&parts);
    buffer_fini(&wire);
    buffer_fini(&again);
}

static void escape(struct buffer *b, const char *separator, const char *text)
{
    int failed = buffer_append_text(b, separator) || http_escape_append(b, text);

    assert(failed == 0);
}

static void fuzz_target(const char *data, size_t size)
{
    struct buffer b = BUFFER_INIT(4 * SIZE_MAX_HERE);
    struct http_target t, again;
    struct error e = ERROR_INIT;

    if (http_target_parse(data, size, &t, &e) != 0) {
        assert(e.code != ERR_NONE);
        return;
    }
    for (size_t i = 0; i < t.segment_count; i++) {
        const char *segment = t.segments[i];

        assert(segment[0] != '\0' && strchr(segment, '/') == NULL);
        assert(strcmp(segment, ".") != 0 && strcmp(segment, "..") != 0);
        escape(&b, "/", segment);
    }
    if (t.segment_count == 0)
        escape(&b, "/", "");
    for (size_t i = 0; i < t.query_count; i++) {
        escape(&b, i == 0 ? "?" : "&", t.query[i].name);
        escape(&b, "=", t.query[i].value);
    }
    /* Escaped anew it may have become too long, and nothing else. */
    if (http_target_parse((const char *)buffer_bytes(&b), b.size, &again, &e) != 0) {
        assert(e.code == ERR_HEADER_TOO_LARGE);
    } else {
        assert(again.segment_count == t.segment_count && again.query_count == t.query_count);
        for (size_t i = 0; i < t.segment_count; i++)
            assert(strcmp(t.segments[i], again.segments[i]) == 0);
        for (size_t i = 0; i < t.query_count; i++)
            assert(strcmp(t.query[i].value, again.query[i].value) == 0);
        http_target_fini(&again);
    }
    http_target_fini(&t);
    buffer_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > SIZE_MAX_HERE)
        return 0;
    /* In memory of the exact size, so that a read past the end is seen. */
    char *copy = malloc(size > 2 ? size - 2 : 1);
    size_t length = size - 2, cut = length > 0 ? data[1] * length / 255 : 0;

    assert(copy != NULL);
    memcpy(copy, data + 2, length);
    switch (data[0] & 3) {
    case 0:
    case 1:
        fuzz_head(copy, length, cut, (data[0] & 3) == 1);
        break;
    case 2:
        fuzz_chunked(copy, length, cut);
        break;
    case 3:
        fuzz_target(copy, length);
        break;
    }
    free(copy);
    return 0;
}
