/* The parser of HTTP heads: good and hostile messages, each also cut at every byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/head.h"

#define HOST "Host: localhost\r\n"
#define END  "\r\n"

/* A text with its length, as some hold NUL bytes. */
#define TEXT(t) (t), sizeof(t) - 1

struct bad_case {
    const char *text;
    size_t size;
    enum error_code code;
};

static const struct bad_case bad_requests[] = {
    /* Two ways to tell the length. */
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n" END),
     ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n" END),
     ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 4\r\n" END),
     ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\ncontent-length: 3\r\n" END),
     ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: 3, 3\r\n" END), ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST
          "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END),
     ERR_BAD_REQUEST},
    /* Numbers that are read in more than one way. */
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: +3\r\n" END), ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: -3\r\n" END), ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: 0x3\r\n" END), ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: 1 0\r\n" END), ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: 3;\r\n" END), ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: 3.0\r\n" END), ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: 1e3\r\n" END), ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length:\r\n" END), ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: 9223372036854775808\r\n" END),
     ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551616\r\n" END),
     ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551619\r\n" END),
     ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length: 00000000000000000003\r\n" END),
     ERR_BAD_REQUEST},
    /* Transfer codings. */
    {TEXT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n" END),
     ERR_NOT_IMPLEMENTED},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n" END), ERR_NOT_IMPLEMENTED},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n" END), ERR_NOT_IMPLEMENTED},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked;q=1\r\n" END),
     ERR_NOT_IMPLEMENTED},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, chunked\r\n" END),
     ERR_NOT_IMPLEMENTED},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \"chunked\"\r\n" END),
     ERR_NOT_IMPLEMENTED},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding:\r\n" END), ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \x0b"
          "chunked\r\n" END),
     ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n" END), ERR_BAD_REQUEST},
    /* Lines and names. */
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length : 3\r\n" END), ERR_BAD_REQUEST},
    {TEXT("POST / HTTP/1.1\r\n" HOST "Content-Length\t: 3\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST " X: folded\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n Host: localhost\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "X: a\r\n\tfolded\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "no colon\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST ": no name\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "b\xc3\xa4r: x\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "a(b): x\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\nHost: localhost\n\r\n"), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "\n"), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "X: a\rb\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "\r\r\n"), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "X: a\0b\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "X: a\x7f\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "X: a\x1b[0m\r\n" END), ERR_BAD_REQUEST},
    /* The host. */
    {TEXT("GET / HTTP/1.1\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST HOST END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\nHost:\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\nHost: a, b\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\nHost: user@a\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\nHost: a/b\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\nHost: a:99999\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\nHost: [::1\r\n" END), ERR_BAD_REQUEST},
    /* The request line. */
    {TEXT("\r\nGET / HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET /\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET  / HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1 \r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET /a b HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET\t/\tHTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT(" GET / HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("G(T / HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GETGETGETGETGETGETGETGETGETGETGET / HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET / http/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.10\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.2\r\n" HOST END), ERR_HTTP_VERSION},
    {TEXT("GET / HTTP/0.9\r\n" HOST END), ERR_HTTP_VERSION},
    {TEXT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ERR_HTTP_VERSION},
    {TEXT("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), ERR_BAD_REQUEST},
    /* Targets. */
    {TEXT("GET /a#b HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET /\xff HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET /a\\b HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET a/b HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET * HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("GET :// HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("CONNECT / HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("CONNECT a HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    {TEXT("CONNECT a:1 HTTP/1.1\r\n" HOST "Content-Length: 1\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET a:1 HTTP/1.1\r\n" HOST END), ERR_BAD_REQUEST},
    /* Fields of which one counts. */
    {TEXT("GET / HTTP/1.1\r\n" HOST "Expect: 200-ok\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "Content-Type: a/b\r\nContent-Type: c/d\r\n" END),
     ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "Idempotency-Key: a\r\nIdempotency-Key: b\r\n" END),
     ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "Connection: close, content-length\r\n" END), ERR_BAD_REQUEST},
    {TEXT("GET / HTTP/1.1\r\n" HOST "Connection: a b\r\n" END), ERR_BAD_REQUEST},
};

static const struct bad_case bad_responses[] = {
    {TEXT("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n" END),
     ERR_BAD_REQUEST},
    {TEXT("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n" END), ERR_NOT_IMPLEMENTED},
    {TEXT("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/1.1 20 OK\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/1.1 2000 OK\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/1.1 600 OK\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/1.1 099 OK\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/1.1 +20 OK\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/1.1 200\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/2.0 200 OK\r\n" END), ERR_HTTP_VERSION},
    {TEXT("HTTP/1.1  200 OK\r\n" END), ERR_BAD_REQUEST},
    {TEXT("ICY 200 OK\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/1.1 200 OK\nX: a\r\n" END), ERR_BAD_REQUEST},
    {TEXT("HTTP/1.1 200 O\0K\r\n" END), ERR_BAD_REQUEST},
};

struct good_case {
    const char *text;
    size_t size;
    enum http_method method;
    enum http_form form;
    enum http_framing framing;
    uint64_t length;
    bool keep_alive;
    bool expect_continue;
    size_t headers;
};

static const struct good_case good_requests[] = {
    {TEXT("GET / HTTP/1.1\r\n" HOST END), HTTP_GET, HTTP_FORM_ORIGIN, HTTP_BODY_NONE, 0, true,
     false, 1},
    {TEXT("POST /v1/run?a=b HTTP/1.1\r\n" HOST "Content-Length: 12\r\n" END), HTTP_POST,
     HTTP_FORM_ORIGIN, HTTP_BODY_LENGTH, 12, true, false, 2},
    {TEXT("PUT /x HTTP/1.1\r\n" HOST "Content-Length:0\r\n" END), HTTP_PUT, HTTP_FORM_ORIGIN,
     HTTP_BODY_LENGTH, 0, true, false, 2},
    {TEXT("PUT /x HTTP/1.1\r\n" HOST "Content-Length: \t 9223372036854775807 \r\n" END), HTTP_PUT,
     HTTP_FORM_ORIGIN, HTTP_BODY_LENGTH, INT64_MAX, true, false, 2},
    {TEXT("PUT /x HTTP/1.1\r\n" HOST "transfer-encoding: Chunked\r\n" END), HTTP_PUT,
     HTTP_FORM_ORIGIN, HTTP_BODY_CHUNKED, 0, true, false, 2},
    {TEXT("PUT /x HTTP/1.1\r\n" HOST "Content-Length: 1\r\nExpect: 100-Continue\r\n" END), HTTP_PUT,
     HTTP_FORM_ORIGIN, HTTP_BODY_LENGTH, 1, true, true, 3},
    {TEXT("PUT /x HTTP/1.0\r\n" HOST "Content-Length: 1\r\nExpect: 100-continue\r\n" END), HTTP_PUT,
     HTTP_FORM_ORIGIN, HTTP_BODY_LENGTH, 1, false, false, 3},
    {TEXT("GET /x HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n" END), HTTP_GET, HTTP_FORM_ORIGIN,
     HTTP_BODY_NONE, 0, true, false, 2},
    {TEXT("HEAD / HTTP/1.1\r\n" HOST "Connection: foo, Close\r\n" END), HTTP_HEAD, HTTP_FORM_ORIGIN,
     HTTP_BODY_NONE, 0, false, false, 2},
    {TEXT("GET / HTTP/1.0\r\n" END), HTTP_GET, HTTP_FORM_ORIGIN, HTTP_BODY_NONE, 0, false, false,
     0},
    {TEXT("GET http://a.example/b HTTP/1.1\r\n" HOST END), HTTP_GET, HTTP_FORM_ABSOLUTE,
     HTTP_BODY_NONE, 0, true, false, 1},
    {TEXT("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n" END), HTTP_CONNECT,
     HTTP_FORM_AUTHORITY, HTTP_BODY_NONE, 0, true, false, 1},
    {TEXT("OPTIONS * HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n" END), HTTP_OPTIONS, HTTP_FORM_ASTERISK,
     HTTP_BODY_NONE, 0, true, false, 1},
    {TEXT("get / HTTP/1.1\r\n" HOST END), HTTP_OTHER, HTTP_FORM_ORIGIN, HTTP_BODY_NONE, 0, true,
     false, 1},
    {TEXT("GET /%7e/%zz HTTP/1.1\r\nX-Empty:\r\nX-Bytes: \xff\xfe a\tb\r\n" HOST END), HTTP_GET,
     HTTP_FORM_ORIGIN, HTTP_BODY_NONE, 0, true, false, 3},
};

/* The parse as an incremental reader does it: with the first `first` bytes, then with all. Each
 * part is in memory of its own size, so that a sanitizer sees a read past its end. */
static enum http_result parse_in_two(const char *text, size_t size, size_t first, bool response,
                                     struct http_head *ret_head, struct error *e)
{
    size_t scanned = 0;
    enum http_result result = HTTP_MORE;

    for (int i = 0; i < 2 && result == HTTP_MORE; i++) {
        size_t part = i == 0 ? first : size;
        char *copy = malloc(part > 0 ? part : 1);

        assert_non_null(copy);
        memcpy(copy, text, part);
        result = response ? http_response_parse(copy, part, &scanned, HTTP_GET, ret_head, e)
                          : http_request_parse(copy, part, &scanned, ret_head, e);
        if (result == HTTP_DONE)
            http_head_rebase(ret_head, copy, text);
        free(copy);
        if (i == 0 && part < size && result == HTTP_DONE)
            fail_msg("done after %zu of %zu bytes: %s", part, size, text);
    }
    return result;
}

static void check_bad(const struct bad_case *cases, size_t count, bool response)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t first = 0; first <= cases[i].size; first++) {
            struct http_head head;
            struct error e = ERROR_INIT;

            enum http_result result =
                parse_in_two(cases[i].text, cases[i].size, first, response, &head, &e);
            if (result != HTTP_BAD || e.code != cases[i].code)
                fail_msg("case %zu cut at %zu: result %d, code %s: %s\n%s", i, first, result,
                         error_name(e.code), e.message, cases[i].text);
        }
    }
}

static void hostile_requests_are_refused(void **state)
{
    (void)state;
    check_bad(bad_requests, sizeof(bad_requests) / sizeof(bad_requests[0]), false);
}

static void hostile_responses_are_refused(void **state)
{
    (void)state;
    check_bad(bad_responses, sizeof(bad_responses) / sizeof(bad_responses[0]), true);
}

static void good_requests_are_understood(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(good_requests) / sizeof(good_requests[0]); i++) {
        const struct good_case *c = &good_requests[i];

        for (size_t first = 0; first <= c->size; first++) {
            struct http_head head;
            struct error e = ERROR_INIT;

            if (parse_in_two(c->text, c->size, first, false, &head, &e) != HTTP_DONE)
                fail_msg("case %zu cut at %zu: %s", i, first, e.message);
            assert_int_equal(head.size, c->size);
            assert_int_equal(head.method, c->method);
            assert_int_equal(head.form, c->form);
            assert_int_equal(head.framing, c->framing);
            assert_int_equal(head.content_length, c->length);
            assert_int_equal(head.keep_alive, c->keep_alive);
            assert_int_equal(head.expect_continue, c->expect_continue);
            assert_int_equal(head.header_count, c->headers);
        }
    }
}

static void headers_are_found_and_trimmed(void **state)
{
    static const char text[] =
        "GET /p?q HTTP/1.1\r\nX-A:  one two\t\r\nHOST: h:1\r\nx-a: 2\r\n\r\nrest";
    struct http_head head;
    struct error e = ERROR_INIT;
    size_t scanned = 0;

    (void)state;
    assert_int_equal(http_request_parse(text, sizeof(text) - 1, &scanned, &head, &e), HTTP_DONE);
    assert_int_equal(head.size, sizeof(text) - 1 - 4);
    assert_memory_equal(head.target.data, "/p?q", head.target.size);
    assert_true(http_span_is(http_head_find(&head, "x-a")->value, "one two"));
    assert_true(http_span_is(head.host, "h:1"));
    assert_null(http_head_find(&head, "x"));
}

static void floods_are_refused(void **state)
{
    static char text[HTTP_HEAD_BYTES_MAX + 4096];
    struct http_head head;

    (void)state;
    for (size_t count = HTTP_HEADERS_MAX - 1; count <= HTTP_HEADERS_MAX; count++) {
        struct error e = ERROR_INIT;
        size_t scanned = 0;
        size_t size = (size_t)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n" HOST);
        for (size_t i = 0; i < count; i++)
            size += (size_t)snprintf(text + size, sizeof(text) - size, "a: b\r\n");
        size += (size_t)snprintf(text + size, sizeof(text) - size, "\r\n");
        enum http_result result = http_request_parse(text, size, &scanned, &head, &e);
        assert_int_equal(result, count < HTTP_HEADERS_MAX ? HTTP_DONE : HTTP_BAD);
        assert_int_equal(e.code, count < HTTP_HEADERS_MAX ? ERR_NONE : ERR_HEADER_TOO_LARGE);
    }
    /* One head of exactly the maximum, and one that is a byte longer. */
    for (size_t size = HTTP_HEAD_BYTES_MAX; size <= HTTP_HEAD_BYTES_MAX + 1; size++) {
        struct error e = ERROR_INIT;
        size_t scanned = 0;
        int start = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n" HOST "x: ");
        memset(text + start, 'a', size - (size_t)start);
        memcpy(text + size - 4, "\r\n\r\n", 4);
        bool fits = size <= HTTP_HEAD_BYTES_MAX;
        assert_int_equal(http_request_parse(text, size, &scanned, &head, &e),
                         fits ? HTTP_DONE : HTTP_BAD);
        assert_int_equal(e.code, fits ? ERR_NONE : ERR_HEADER_TOO_LARGE);
    }
    /* Targets likewise. */
    for (size_t target = HTTP_TARGET_BYTES_MAX; target <= HTTP_TARGET_BYTES_MAX + 1; target++) {
        struct error e = ERROR_INIT;
        size_t scanned = 0;
        memset(text, 'a', sizeof(text));
        memcpy(text, "GET /", 5);
        int end =
            snprintf(text + 4 + target, sizeof(text) - 4 - target, " HTTP/1.1\r\n" HOST "\r\n");
        bool fits = target <= HTTP_TARGET_BYTES_MAX;
        assert_int_equal(http_request_parse(text, 4 + target + (size_t)end, &scanned, &head, &e),
                         fits ? HTTP_DONE : HTTP_BAD);
        assert_int_equal(e.code, fits ? ERR_NONE : ERR_HEADER_TOO_LARGE);
    }
}

static void responses_are_framed(void **state)
{
    static const struct {
        const char *text;
        enum http_method method;
        enum http_framing framing;
        bool keep_alive;
        int status;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", HTTP_GET, HTTP_BODY_LENGTH, true, 200},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", HTTP_HEAD, HTTP_BODY_NONE, true, 200},
        {"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_GET, HTTP_BODY_CHUNKED, true,
         200},
        {"HTTP/1.1 200 OK\r\n\r\n", HTTP_GET, HTTP_BODY_UNTIL_CLOSE, false, 200},
        {"HTTP/1.0 200 Fine, thanks \xe2\x82\xac\r\n\r\n", HTTP_GET, HTTP_BODY_UNTIL_CLOSE, false,
         200},
        {"HTTP/1.1 204 No Content\r\n\r\n", HTTP_GET, HTTP_BODY_NONE, true, 204},
        {"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", HTTP_GET, HTTP_BODY_NONE, true,
         204},
        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", HTTP_GET, HTTP_BODY_NONE, true,
         304},
        {"HTTP/1.1 100 Continue\r\n\r\n", HTTP_PUT, HTTP_BODY_NONE, true, 100},
        {"HTTP/1.1 200 OK\r\n\r\n", HTTP_CONNECT, HTTP_BODY_NONE, true, 200},
        {"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 1\r\n\r\n", HTTP_GET,
         HTTP_BODY_LENGTH, false, 503},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct http_head head;
        struct error e = ERROR_INIT;
        size_t scanned = 0;

        if (http_response_parse(cases[i].text, strlen(cases[i].text), &scanned, cases[i].method,
                                &head, &e) != HTTP_DONE)
            fail_msg("case %zu: %s", i, e.message);
        assert_int_equal(head.framing, cases[i].framing);
        assert_int_equal(head.keep_alive, cases[i].keep_alive);
        assert_int_equal(head.status, cases[i].status);
    }
}

static void lists_are_walked(void **state)
{
    static const char text[] = " a ,, b\t,c;q=0 , ";
    static const char *const wanted[] = {"a", "b", "c;q=0"};
    struct http_span list = {text, sizeof(text) - 1}, element;
    size_t count = 0;

    (void)state;
    for (; http_list_next(&list, &element); count++)
        assert_true(http_span_is(element, wanted[count]));
    assert_int_equal(count, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_requests_are_refused),
        cmocka_unit_test(hostile_responses_are_refused),
        cmocka_unit_test(good_requests_are_understood),
        cmocka_unit_test(headers_are_found_and_trimmed),
        cmocka_unit_test(floods_are_refused),
        cmocka_unit_test(responses_are_framed),
        cmocka_unit_test(lists_are_walked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
