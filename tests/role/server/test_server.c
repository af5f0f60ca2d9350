/* The API's server with clients that behave: requests, bodies, replies, connections. */
#include "test_server_peer.h"

static void requests_are_answered(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    for (int i = 0; i < 3; i++) {
        client_send_text(c, "GET /echo/caf%C3%A9%20x?q=a+b&many=1&many=2 HTTP/1.1\r\n" HOST
                            "X-Test:  v w \r\nX-Request-Id: my-id_1.2\r\n"
                            "Accept: text/html, application/x-ndjson;q=0.5\r\n\r\n");
        struct reply r = client_reply(c);
        assert_int_equal(r.head.status, 200);
        assert_true(reply_has(&r, "Content-Type", "application/json"));
        assert_true(reply_has(&r, "X-Request-Id", "my-id_1.2"));
        assert_true(reply_has(&r, "X-Extra", "42"));
        assert_non_null(http_head_find(&r.head, "Date"));
        assert_null(http_head_find(&r.head, "Connection"));
        assert_true(reply_contains(
            &r, "{\"word\":\"caf\xc3\xa9 x\",\"q\":\"a+b\",\"x\":\"v w\",\"ndjson\":true}"));
        reply_fini(&r);
    }
    client_free(c);
    fixture_free(f);
}

static void request_ids_are_made(void **state)
{
    static const char *const ids[] = {"", "X-Request-Id: a b\r\n", "X-Request-Id: \xc3\xa4\r\n",
                                      "X-Request-Id:\r\n",
                                      "X-Request-Id: "
                                      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                                      "aaaaa\r\n"};
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        char request[512];
        (void)snprintf(request, sizeof(request), "GET /nowhere HTTP/1.1\r\n" HOST "%s\r\n", ids[i]);
        client_send_text(c, request);
        struct reply r = client_reply(c);
        const struct http_header *id = http_head_find(&r.head, "x-request-id");
        assert_int_equal(id->value.size, 20);
        assert_memory_equal(id->value.data, "req_", 4);
        assert_true(reply_contains(&r, "\"request_id\":\"req_"));
        reply_fini(&r);
    }
    client_free(c);
    fixture_free(f);
}

static void bytes_may_come_one_by_one(void **state)
{
    static const char request[] = "POST /whole HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n"
                                  "\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n";
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    for (size_t i = 0; i < sizeof(request) - 1; i++)
        client_send(c, request + i, 1);
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 200);
    assert_int_equal(r.body.size, 5);
    assert_memory_equal(buffer_bytes(&r.body), "abcde", 5);
    reply_fini(&r);
    client_free(c);
    fixture_free(f);
}

static void routes_are_found(void **state)
{
    static const struct {
        const char *request;
        int status;
        const char *allow;
        const char *code;
    } cases[] = {
        {"GET / HTTP/1.1\r\n" HOST "\r\n", 204, NULL, NULL},
        {"GET /echo HTTP/1.1\r\n" HOST "\r\n", 404, NULL, "not_found"},
        {"GET /echo/a/b HTTP/1.1\r\n" HOST "\r\n", 404, NULL, "not_found"},
        {"GET /echo/fixed/x HTTP/1.1\r\n" HOST "\r\n", 204, NULL, NULL},
        {"DELETE /echo/a HTTP/1.1\r\n" HOST "\r\n", 204, NULL, NULL},
        {"PUT /echo/a HTTP/1.1\r\n" HOST "\r\n", 405, "GET, HEAD, DELETE", "method_not_allowed"},
        {"BREW /echo/a HTTP/1.1\r\n" HOST "\r\n", 405, "GET, HEAD, DELETE", "method_not_allowed"},
        {"get /whole HTTP/1.1\r\n" HOST "\r\n", 405, "POST", "method_not_allowed"},
        {"OPTIONS * HTTP/1.1\r\n" HOST "\r\n", 400, NULL, "bad_request"},
        {"GET http://localhost/ HTTP/1.1\r\n" HOST "\r\n", 400, NULL, "bad_request"},
        {"CONNECT localhost:80 HTTP/1.1\r\n" HOST "\r\n", 400, NULL, "bad_request"},
        {"GET /echo/.. HTTP/1.1\r\n" HOST "\r\n", 400, NULL, "bad_request"},
        {"GET /echo/a%00 HTTP/1.1\r\n" HOST "\r\n", 400, NULL, "bad_request"},
        {"GET /echo/a?unknown=1 HTTP/1.1\r\n" HOST "\r\n", 400, NULL, "unknown_field"},
        {"GET /echo/a?many*=1 HTTP/1.1\r\n" HOST "\r\n", 400, NULL, "unknown_field"},
        {"GET /echo/a?q=1&q=2 HTTP/1.1\r\n" HOST "\r\n", 400, NULL, "invalid_field"},
    };
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    /* All on one connection: none of these errors costs it. */
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        client_send_text(c, cases[i].request);
        struct reply r = client_reply(c);
        if (r.head.status != cases[i].status)
            fail_msg("%d to %s", r.head.status, cases[i].request);
        if (cases[i].allow != NULL)
            assert_true(reply_has(&r, "Allow", cases[i].allow));
        if (cases[i].code != NULL)
            assert_true(reply_contains(&r, cases[i].code));
        reply_fini(&r);
    }
    client_free(c);
    fixture_free(f);
}

static void heads_have_no_body(void **state)
{
    static const char *const targets[] = {"/echo/a", "/chunked/100000", "/length/5000000",
                                          "/large/70000", "/nowhere"};
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        char request[256];
        (void)snprintf(request, sizeof(request), "HEAD %s HTTP/1.1\r\n" HOST "\r\n", targets[i]);
        client_send_text(c, request);
        struct reply r = client_reply_to(c, HTTP_HEAD);
        assert_int_equal(r.head.status, i == 4 ? 404 : 200);
        if (i == 2)
            assert_true(reply_has(&r, "Content-Length", "5000000"));
        turn_for(f, 2);
        client_receive(c, 100);
        assert_int_equal(c->in.size, 0);
        reply_fini(&r);
    }
    client_free(c);
    fixture_free(f);
}

static void pipelined_requests_wait_their_turn(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    client_send_text(c, "POST /wait HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nxx"
                        "GET /echo/second HTTP/1.1\r\n" HOST "\r\n"
                        "GET /nowhere HTTP/1.1\r\n" HOST "\r\nGET /echo/four");
    turn_for(f, 5);
    assert_int_equal(f->calls, 1);
    exchange_reply(f->waiting, 200, "text/plain", "first", 5);
    struct reply r = client_reply(c);
    assert_true(reply_contains(&r, "first"));
    reply_fini(&r);
    r = client_reply(c);
    assert_true(reply_contains(&r, "second"));
    reply_fini(&r);
    r = client_reply(c);
    assert_int_equal(r.head.status, 404);
    reply_fini(&r);
    client_send_text(c, "th HTTP/1.1\r\n" HOST "\r\n");
    r = client_reply(c);
    assert_true(reply_contains(&r, "fourth"));
    reply_fini(&r);
    client_free(c);
    fixture_free(f);
}

static void half_closed_clients_get_their_reply(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    client_send_text(c,
                     "GET /wait HTTP/1.1\r\n" HOST "\r\nGET /echo/more HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(shutdown(c->fd, SHUT_WR), 0);
    turn_for(f, 5);
    assert_int_equal(f->gone, 0);
    exchange_reply(f->waiting, 200, "text/plain", "late", 4);
    struct reply r = client_reply(c);
    assert_true(reply_contains(&r, "late"));
    reply_fini(&r);
    r = client_reply(c);
    assert_true(reply_contains(&r, "more"));
    reply_fini(&r);
    client_wait_eof(c);
    client_free(c);
    /* A streamed one, larger than the socket's buffer, and an upload. */
    c = client_new(f);
    client_send_text(c, "GET /chunked/3000000 HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(shutdown(c->fd, SHUT_WR), 0);
    r = client_reply(c);
    assert_int_equal(r.body.size, 3000000);
    check_pattern(&r.body);
    reply_fini(&r);
    client_free(c);
    fixture_free(f);
}

static void whole_bodies_are_read(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);
    size_t size = 3 * MIB + 17;
    char *body = malloc(size);

    (void)state;
    assert_non_null(body);
    for (size_t i = 0; i < size; i++)
        body[i] = (char)(i * 7);
    client_send_text(c, "POST /whole HTTP/1.1\r\n" HOST "\r\n");
    struct reply r = client_reply(c);
    assert_int_equal(r.body.size, 0);
    reply_fini(&r);
    char head[128];
    (void)snprintf(head, sizeof(head),
                   "POST /whole HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n", size);
    client_send_text(c, head);
    client_send(c, body, size);
    r = client_reply(c);
    assert_int_equal(r.body.size, size);
    check_pattern(&r.body);
    reply_fini(&r);
    client_send_text(c, "POST /whole HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n");
    struct buffer wire = BUFFER_INIT(8 * MIB);
    assert_int_equal(http_chunk_append(&wire, body, 100), 0);
    assert_int_equal(http_chunk_append(&wire, body + 100, size - 100), 0);
    assert_int_equal(buffer_append_text(&wire, HTTP_CHUNK_LAST), 0);
    client_send(c, buffer_bytes(&wire), wire.size);
    r = client_reply(c);
    assert_int_equal(r.body.size, size);
    check_pattern(&r.body);
    reply_fini(&r);
    buffer_fini(&wire);
    free(body);
    client_free(c);
    fixture_free(f);
}

static void continue_is_sent_when_the_body_is_wanted(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    client_send_text(c, "POST /small HTTP/1.1\r\n" HOST
                        "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 100);
    reply_fini(&r);
    client_send_text(c, "hello");
    r = client_reply(c);
    assert_int_equal(r.head.status, 200);
    reply_fini(&r);
    /* A client that did not wait is not told. */
    client_send_text(c, "POST /small HTTP/1.1\r\n" HOST
                        "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    r = client_reply(c);
    assert_int_equal(r.head.status, 200);
    assert_null(http_head_find(&r.head, "Connection"));
    reply_fini(&r);
    /* Too large: no 100, and the connection ends, since the body may come or not. */
    client_send_text(c, "POST /small HTTP/1.1\r\n" HOST
                        "Content-Length: 17\r\nExpect: 100-continue\r\n\r\n");
    r = client_reply(c);
    assert_int_equal(r.head.status, 413);
    assert_true(reply_has(&r, "Connection", "close"));
    reply_fini(&r);
    client_wait_eof(c);
    client_free(c);
    c = client_new(f);
    client_send_text(c, "POST /ignore HTTP/1.1\r\n" HOST
                        "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    r = client_reply(c);
    assert_int_equal(r.head.status, 204);
    assert_true(reply_has(&r, "Connection", "close"));
    reply_fini(&r);
    client_free(c);
    fixture_free(f);
}

static void unread_bodies_are_skipped(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);
    static char large[100000];

    (void)state;
    memset(large, 'G', sizeof(large));
    client_send_text(c, "POST /ignore HTTP/1.1\r\n" HOST "Content-Length: 60000\r\n\r\n");
    client_send(c, large, 60000);
    client_send_text(c, "GET /echo/after HTTP/1.1\r\n" HOST "\r\n");
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 204);
    reply_fini(&r);
    r = client_reply(c);
    assert_true(reply_contains(&r, "after"));
    reply_fini(&r);
    /* Also behind an error. */
    client_send_text(c, "POST /nowhere HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc"
                        "POST /small HTTP/1.1\r\n" HOST "Content-Length: 17\r\n\r\n"
                        "aaaaaaaaaaaaaaaaaGET /echo/b HTTP/1.1\r\n" HOST "\r\n");
    static const int statuses[] = {404, 413, 200};
    for (size_t i = 0; i < 3; i++) {
        r = client_reply(c);
        assert_int_equal(r.head.status, statuses[i]);
        reply_fini(&r);
    }
    /* More than is worth it: the reply comes, though all of the body is still being sent. */
    client_send_text(c, "POST /ignore HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n");
    client_send(c, large, sizeof(large));
    r = client_reply(c);
    assert_int_equal(r.head.status, 204);
    assert_true(reply_has(&r, "Connection", "close"));
    reply_fini(&r);
    client_wait_eof(c);
    client_free(c);
    fixture_free(f);
}

static void uploads_have_back_pressure(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);
    static uint8_t piece[7 * 256];
    uint64_t total = 4 * MIB, sent = 0;
    char head[128];

    (void)state;
    for (size_t i = 0; i < sizeof(piece); i++)
        piece[i] = (uint8_t)(i * 7);
    f->upload_auto = false;
    (void)snprintf(head, sizeof(head),
                   "PUT /upload HTTP/1.1\r\n" HOST "Content-Length: %llu\r\n\r\n",
                   (unsigned long long)total);
    client_send_text(c, head);
    /* While the handler has paused, no more than the buffers between can be sent. */
    for (size_t more = 1; more > 0; sent += more) {
        size_t at = sent % sizeof(piece);
        more = client_push(c, piece + at, sizeof(piece) - at);
        turn_to_rest(f);
        assert_true(sent < MIB);
    }
    assert_true(f->upload_paused);
    assert_true(f->uploaded < 3 * UPLOAD_PIECE);
    /* And then all of it arrives. */
    f->upload_auto = true;
    resume_upload(&f->resume_timer);
    while (sent < total) {
        size_t at = sent % sizeof(piece);
        size_t size = sizeof(piece) - at < total - sent ? sizeof(piece) - at : total - sent;
        client_send(c, piece + at, size);
        sent += size;
    }
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 201);
    assert_true(reply_contains(&r, "4194304"));
    reply_fini(&r);
    assert_int_equal(f->ends, 1);
    assert_int_equal(f->failures, 0);
    client_free(c);
    fixture_free(f);
}

static void large_replies_arrive(void **state)
{
    static const char *const targets[] = {"/chunked/5000000", "/length/5000000", "/large/5000000",
                                          "/chunked/0", "/length/0"};
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        char request[256];
        (void)snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\n" HOST "\r\n", targets[i]);
        client_send_text(c, request);
        /* The client reads nothing for a while: the handler must not write on and on. */
        turn_for(f, 10);
        struct reply r = client_reply(c);
        assert_int_equal(r.head.status, 200);
        assert_false(r.truncated);
        assert_int_equal(r.body.size, i < 3 ? 5000000 : 0);
        check_pattern(&r.body);
        reply_fini(&r);
    }
    assert_true(f->queue_peak > 200 * KIB && f->queue_peak < 300 * KIB);
    client_free(c);
    fixture_free(f);
}

static void old_clients_are_served(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    client_send_text(c, "GET /length/10 HTTP/1.0\r\n\r\n");
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 200);
    assert_int_equal(r.body.size, 10);
    assert_true(reply_has(&r, "Connection", "close"));
    reply_fini(&r);
    client_wait_eof(c);
    client_free(c);
    c = client_new(f);
    client_send_text(c, "GET /chunked/100000 HTTP/1.0\r\n\r\n");
    r = client_reply(c);
    assert_int_equal(r.head.status, 505);
    assert_true(reply_contains(&r, "use HTTP/1.1"));
    reply_fini(&r);
    client_wait_eof(c);
    client_free(c);
    c = client_new(f);
    client_send_text(c, "GET /echo/a HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n");
    r = client_reply(c);
    assert_true(reply_has(&r, "Connection", "close"));
    reply_fini(&r);
    client_wait_eof(c);
    client_free(c);
    fixture_free(f);
}

static void full_means_try_again(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    client_send_text(c, "GET /full HTTP/1.1\r\n" HOST "\r\n");
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 503);
    assert_true(reply_has(&r, "Retry-After", "1"));
    assert_true(reply_contains(&r, "{\"error\":{\"code\":\"no_capacity\",\"message\":\"no room\","
                                   "\"remedy\":\"delete a sandbox\",\"request_id\":\"req_"));
    reply_fini(&r);
    client_free(c);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_answered),
        cmocka_unit_test(request_ids_are_made),
        cmocka_unit_test(bytes_may_come_one_by_one),
        cmocka_unit_test(routes_are_found),
        cmocka_unit_test(heads_have_no_body),
        cmocka_unit_test(pipelined_requests_wait_their_turn),
        cmocka_unit_test(half_closed_clients_get_their_reply),
        cmocka_unit_test(whole_bodies_are_read),
        cmocka_unit_test(continue_is_sent_when_the_body_is_wanted),
        cmocka_unit_test(unread_bodies_are_skipped),
        cmocka_unit_test(uploads_have_back_pressure),
        cmocka_unit_test(large_replies_arrive),
        cmocka_unit_test(old_clients_are_served),
        cmocka_unit_test(full_means_try_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
