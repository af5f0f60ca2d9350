/* The API's server with clients that vanish, stall, flood and lie. */
#include "test_server_peer.h"

#define SHORT_MS 200u

static struct fixture *short_fixture(void)
{
    const struct server_options limits = {.head_timeout_ms = SHORT_MS,
                                          .idle_timeout_ms = SHORT_MS,
                                          .stall_timeout_ms = SHORT_MS,
                                          .linger_ms = SHORT_MS};

    return fixture_new(&limits);
}

static void malformed_requests_end_the_connection(void **state)
{
    static const struct {
        const char *request;
        int status;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1\n", 400},
        {"POST /whole HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400},
        {"POST /whole HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip\r\n\r\n", 501},
        {"GET / HTTP/2.0\r\n" HOST "\r\n", 505},
        {"\x16\x03\x01", 400},
        /* Bodies whose framing is lost: nothing behind them may be taken for a request. */
        {"POST /whole HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nzz\r\n"
         "GET /echo/a HTTP/1.1\r\n" HOST "\r\n",
         400},
        {"PUT /upload HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n",
         400},
        {"POST /small HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
         "11\r\n01234567890123456\r\n0\r\n\r\n",
         413},
    };
    struct fixture *f = fixture_new(NULL);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct client *c = client_new(f);

        client_send_text(c, cases[i].request);
        struct reply r = client_reply(c);
        if (r.head.status != cases[i].status)
            fail_msg("%d to %s", r.head.status, cases[i].request);
        assert_true(reply_has(&r, "Connection", "close"));
        assert_true(reply_contains(&r, "\"error\""));
        reply_fini(&r);
        client_wait_eof(c);
        assert_int_equal(c->in.size, 0);
        client_free(c);
    }
    fixture_free(f);
}

static void floods_are_answered(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);
    static char flood[HTTP_HEAD_BYTES_MAX];

    (void)state;
    memset(flood, 'a', sizeof(flood));
    client_send_text(c, "GET / HTTP/1.1\r\n" HOST "x: ");
    client_send(c, flood, sizeof(flood));
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 431);
    reply_fini(&r);
    client_free(c);
    c = client_new(f);
    for (size_t i = 0; i + 3 < sizeof(flood); i += 3)
        memcpy(flood + i, "a:b", 3);
    client_send_text(c, "GET / HTTP/1.1\r\n" HOST);
    for (size_t i = 0; i < HTTP_HEADERS_MAX; i++)
        client_send_text(c, "a: b\r\n");
    client_send_text(c, "\r\n");
    r = client_reply(c);
    assert_int_equal(r.head.status, 431);
    reply_fini(&r);
    client_free(c);
    /* Behind a request that takes its time, only so much is taken. */
    c = client_new(f);
    client_send_text(c, "GET /wait HTTP/1.1\r\n" HOST "\r\n");
    turn_until(f, f->waiting != NULL);
    size_t sent = 0;
    for (size_t more = 1; more > 0; sent += more) {
        more = client_push(c, flood, sizeof(flood));
        turn_to_rest(f);
        assert_true(sent < MIB);
    }
    exchange_reply_empty(f->waiting);
    r = client_reply(c);
    assert_int_equal(r.head.status, 204);
    reply_fini(&r);
    client_free(c);
    fixture_free(f);
}

static void vanished_clients_are_noticed(void **state)
{
    struct fixture *f = fixture_new(NULL);
    static char flood[MIB];

    (void)state;
    for (int round = 0; round < 4; round++) {
        struct client *c = client_new(f);

        f->waiting = NULL;
        f->gone = 0;
        client_send_text(c, "GET /wait HTTP/1.1\r\n" HOST "\r\n");
        turn_until(f, f->waiting != NULL);
        /* With nothing more sent; with bytes waiting in the server; with its buffers full; after
         * a half close. */
        if (round == 1)
            client_send_text(c, "GET /echo/a HTTP/1.1\r\n" HOST "\r\n");
        for (int i = 0; round == 2 && i < 100; i++) {
            (void)client_push(c, flood, sizeof(flood));
            turn(f);
        }
        if (round == 3)
            assert_int_equal(shutdown(c->fd, SHUT_WR), 0);
        turn_for(f, 3);
        assert_int_equal(f->gone, 0);
        client_free(c);
        turn_until(f, f->gone == 1);
        turn_for(f, 3);
        /* The handler comes to its end later; all calls are harmless. */
        struct exchange *x = f->waiting;
        assert_int_equal(exchange_queued(x), 0);
        assert_int_equal(connection_handles(f), 1);
        if (round == 0) {
            exchange_abort(x);
        } else if (round == 1) {
            exchange_reply(x, 200, "text/plain", "abc", 3);
        } else {
            exchange_start(x, 200, "text/plain", EXCHANGE_LENGTH_UNKNOWN, NULL);
            for (int i = 0; i < 100; i++)
                assert_int_equal(exchange_write(x, flood, 64 * KIB), 0);
            exchange_end(x);
        }
        turn_until(f, connection_handles(f) == 0);
        assert_int_equal(f->gone, 1);
    }
    fixture_free(f);
}

static void uploads_that_break_off_fail(void **state)
{
    static const struct {
        const char *head;
        bool half;
        enum error_code code;
    } cases[] = {
        {"Content-Length: 100000\r\n", false, ERR_UNREACHABLE},
        {"Content-Length: 100000\r\n", true, ERR_BAD_REQUEST},
        {"Transfer-Encoding: chunked\r\n", false, ERR_UNREACHABLE},
        {"Transfer-Encoding: chunked\r\n", true, ERR_BAD_REQUEST},
    };
    struct fixture *f = fixture_new(NULL);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct client *c = client_new(f);

        f->failures = 0;
        client_send_text(c, "PUT /upload HTTP/1.1\r\n" HOST);
        client_send_text(c, cases[i].head);
        client_send_text(c, i < 2 ? "\r\n" : "\r\n1\r\n");
        client_send(c, "\0", 1);
        turn_until(f, f->uploaded == 1);
        if (cases[i].half) {
            assert_int_equal(shutdown(c->fd, SHUT_WR), 0);
            struct reply r = client_reply(c);
            assert_int_equal(r.head.status, 400);
            reply_fini(&r);
            client_wait_eof(c);
        }
        client_free(c);
        turn_until(f, f->failures == 1);
        assert_int_equal(f->failure, cases[i].code);
        assert_int_equal(f->gone, 0);
        f->uploaded = 0;
    }
    /* Also while paused, with bytes left to read. */
    struct client *c = client_new(f);
    static uint8_t data[2 * UPLOAD_PIECE];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    f->upload_auto = false;
    f->failures = 0;
    client_send_text(c, "PUT /upload HTTP/1.1\r\n" HOST "Content-Length: 1000000\r\n\r\n");
    client_send(c, data, sizeof(data));
    turn_until(f, f->upload_paused);
    client_free(c);
    turn_until(f, f->failures == 1);
    assert_int_equal(f->failure, ERR_UNREACHABLE);
    /* And a whole body. */
    unsigned calls = f->calls;
    c = client_new(f);
    client_send_text(c, "POST /whole HTTP/1.1\r\n" HOST "Content-Length: 100\r\n\r\nabc");
    turn_until(f, f->calls == calls + 1);
    client_free(c);
    turn_until(f, f->closes == f->calls);
    fixture_free(f);
}

static void cut_replies_look_cut(void **state)
{
    static const char *const how[] = {"abort", "length", "error"};
    struct fixture *f = fixture_new(NULL);

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct client *c = client_new(f);
        char request[128];

        (void)snprintf(request, sizeof(request), "GET /cut?how=%s HTTP/1.1\r\n" HOST "\r\n",
                       how[i]);
        client_send_text(c, request);
        struct reply r = client_reply(c);
        assert_int_equal(r.head.status, 200);
        assert_true(r.truncated);
        reply_fini(&r);
        client_free(c);
    }
    struct client *c = client_new(f);
    client_send_text(c, "GET /flood HTTP/1.1\r\n" HOST "\r\n");
    struct reply r = client_reply(c);
    assert_true(r.truncated);
    reply_fini(&r);
    client_free(c);
    fixture_free(f);
}

static void waits_are_bounded(void **state)
{
    struct fixture *f = short_fixture();

    (void)state;
    /* Nothing sent at all, and nothing after a request. */
    struct client *c = client_new(f);
    client_wait_eof(c);
    assert_int_equal(c->in.size, 0);
    client_free(c);
    c = client_new(f);
    client_send_text(c, "GET /echo/a HTTP/1.1\r\n" HOST "\r\n");
    struct reply r = client_reply(c);
    reply_fini(&r);
    client_wait_eof(c);
    assert_int_equal(c->in.size, 0);
    client_free(c);
    /* A head that dribbles in: from its first byte to its last, not from byte to byte. */
    c = client_new(f);
    uint64_t start_ns = clock_mono_ns();
    client_send_text(c, "GET /echo/");
    while (clock_mono_ns() < start_ns + 4 * SHORT_MS * NS_PER_MS && !c->eof && c->in.size == 0) {
        (void)client_push(c, "a", 1);
        turn_for(f, 5);
        client_receive(c, 4096);
    }
    assert_true(clock_mono_ns() < start_ns + 3 * SHORT_MS * NS_PER_MS);
    r = client_reply(c);
    assert_int_equal(r.head.status, 408);
    reply_fini(&r);
    client_free(c);
    /* Bodies that stall. */
    static const char *const stalls[] = {
        "POST /whole HTTP/1.1\r\n" HOST "Content-Length: 9\r\n\r\nabc",
        "PUT /upload HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\n"};
    for (size_t i = 0; i < 2; i++) {
        c = client_new(f);
        client_send_text(c, stalls[i]);
        r = client_reply(c);
        assert_int_equal(r.head.status, 408);
        reply_fini(&r);
        client_wait_eof(c);
        client_free(c);
    }
    /* A handler may take as long as it likes. */
    c = client_new(f);
    client_send_text(c, "GET /wait HTTP/1.1\r\n" HOST "\r\n");
    turn_for(f, 3 * SHORT_MS);
    exchange_reply_empty(f->waiting);
    r = client_reply(c);
    assert_int_equal(r.head.status, 204);
    reply_fini(&r);
    client_free(c);
    /* A reader that stalls is cut off; one that reads slowly is not. */
    c = client_new(f);
    f->gone = 0;
    client_send_text(c, "GET /chunked/100000000 HTTP/1.1\r\n" HOST "\r\n");
    for (int i = 0; i < 40; i++) {
        turn_for(f, 5);
        client_receive(c, 100000);
    }
    assert_int_equal(f->gone, 0);
    turn_until(f, f->gone == 1);
    client_free(c);
    fixture_free(f);
}

static void refused_clients_get_to_read_it(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);
    static char body[400000];

    (void)state;
    /* A client that sends all before it reads must not be met by a closed socket half way. */
    memset(body, 'x', sizeof(body));
    client_send_text(c, "POST /small HTTP/1.1\r\n" HOST "Content-Length: 400000\r\n\r\n");
    client_send(c, body, sizeof(body));
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 413);
    assert_true(reply_contains(&r, "too_large"));
    reply_fini(&r);
    client_wait_eof(c);
    client_free(c);
    fixture_free(f);
    /* But not for ever. */
    f = short_fixture();
    c = client_new(f);
    client_send_text(c, "POST /small HTTP/1.1\r\n" HOST "Content-Length: 400000\r\n\r\n");
    uint64_t end_ns = clock_mono_ns() + 4 * SHORT_MS * NS_PER_MS;
    while (clock_mono_ns() < end_ns && connection_handles(f) > 0) {
        (void)client_push(c, body, 1000);
        turn_for(f, 1);
    }
    assert_int_equal(connection_handles(f), 0);
    client_free(c);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_requests_end_the_connection),
        cmocka_unit_test(floods_are_answered),
        cmocka_unit_test(vanished_clients_are_noticed),
        cmocka_unit_test(uploads_that_break_off_fail),
        cmocka_unit_test(cut_replies_look_cut),
        cmocka_unit_test(waits_are_bounded),
        cmocka_unit_test(refused_clients_get_to_read_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
