/* Request-Timeout at the server: work is stopped, the client is told, the connection goes on. */
#include "test_server_peer.h"

#define SHORT "Request-Timeout: 0.02\r\n"

static void expect_late(struct client *c)
{
    struct reply r = client_reply(c);

    if (r.head.status != 504 || !reply_contains(&r, "\"deadline_exceeded\""))
        fail_msg("%d: %.*s", r.head.status, (int)r.body.size, (char *)buffer_bytes(&r.body));
    assert_true(reply_contains(&r, "0.020 s"));
    assert_null(http_head_find(&r.head, "X-Early"));
    reply_fini(&r);
}

/* A second request shows that the connection has come to no harm. */
static void expect_echo(struct client *c)
{
    client_send_text(c, "GET /echo/next HTTP/1.1\r\n" HOST "\r\n");
    struct reply r = client_reply(c);
    assert_true(reply_contains(&r, "next"));
    reply_fini(&r);
}

static void work_is_stopped(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    client_post(c, "/make", SHORT, "wait");
    expect_late(c);
    assert_int_equal(f->gone, 1);
    assert_int_equal(f->closes, 1);
    expect_echo(c);
    client_free(c);
    fixture_free(f);
}

/* The handler takes its time to stop, and then says what nobody wants to hear. */
static void late_replies_are_dropped(void **state)
{
    struct fixture *f = fixture_new(NULL);

    (void)state;
    for (unsigned how = 0; how < 5; how++) {
        struct client *c = client_new(f);
        struct error e = ERROR_INIT;

        f->gone = 0;
        f->waiting = NULL;
        client_post(c, "/wait", SHORT, "");
        turn_until(f, f->waiting != NULL);
        exchange_set_header(f->waiting, "X-Early", "1");
        expect_late(c);
        assert_int_equal(f->gone, 1);
        client_send_text(c, "GET /echo/next HTTP/1.1\r\n" HOST "\r\n");
        turn_for(f, 30);
        client_receive(c, 4096);
        assert_int_equal(c->in.size, 0); /* it waits for the handler */
        exchange_set_header(f->waiting, "X-Late", "1");
        (void)error_set(&e, ERR_INTERNAL, "late");
        if (how == 0) {
            exchange_reply(f->waiting, 200, "text/plain", "late", 4);
        } else if (how == 1) {
            exchange_reply_error(f->waiting, &e);
        } else if (how == 2) {
            exchange_abort(f->waiting);
        } else {
            exchange_start(f->waiting, 200, NULL, how == 3 ? 9 : EXCHANGE_LENGTH_UNKNOWN, NULL);
            assert_int_equal(exchange_write(f->waiting, "late", 4), 0);
            exchange_end(f->waiting);
        }
        struct reply r = client_reply(c);
        assert_true(reply_contains(&r, "next"));
        assert_null(http_head_find(&r.head, "X-Late"));
        reply_fini(&r);
        client_free(c);
    }
    fixture_free(f);
}

static void fast_requests_know_nothing_of_it(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        client_post(c, "/whole", SHORT, "abc");
        struct reply r = client_reply(c);
        assert_int_equal(r.head.status, 200);
        reply_fini(&r);
        turn_for(f, 40);
    }
    /* A reply that is whole may take long to be read. */
    client_send_text(c, "GET /large/9000000 HTTP/1.1\r\n" HOST SHORT "\r\n");
    turn_for(f, 60);
    struct reply r = client_reply(c);
    assert_int_equal(r.body.size, 9000000);
    assert_false(r.truncated);
    reply_fini(&r);
    client_free(c);
    fixture_free(f);
}

static void bodies_that_come_too_slowly(void **state)
{
    static const char *const targets[] = {"/whole", "/upload", "/make"};
    struct fixture *f = fixture_new(NULL);

    (void)state;
    f->upload_any = true;
    for (unsigned i = 0; i < 3; i++) {
        struct client *c = client_new(f);
        char head[256];

        (void)snprintf(head, sizeof(head),
                       "%s %s HTTP/1.1\r\n" HOST SHORT
                       "Idempotency-Key: k\r\nContent-Length: 100000\r\n\r\n",
                       i == 1 ? "PUT" : "POST", targets[i]);
        client_send_text(c, head);
        client_send_text(c, "abc");
        expect_late(c);
        client_wait_eof(c); /* the rest of the body is not worth a wait */
        client_free(c);
    }
    assert_int_equal(f->failures, 1); /* on_end of the upload, which has no on_gone as well */
    assert_int_equal(f->gone, 0);
    assert_int_equal(f->made, 0);
    fixture_free(f);
}

static void streams_of_records_end_with_one(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    client_post(c, "/records", SHORT, "{\"a\":1}\n");
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 200);
    assert_false(r.truncated);
    assert_true(reply_contains(&r, "{\"a\":1}\n{\"type\":\"error\",\"error\":{\"code\":"
                                   "\"deadline_exceeded\","));
    assert_int_equal(buffer_bytes(&r.body)[r.body.size - 1], '\n');
    reply_fini(&r);
    assert_int_equal(f->gone, 1);
    expect_echo(c);
    client_free(c);
    fixture_free(f);
}

/* Nowhere to put a record: a cut says that something is missing. */
static void other_streams_are_cut(void **state)
{
    static const char *const requests[] = {
        "POST /records HTTP/1.1\r\n" HOST SHORT "Content-Length: 3\r\n\r\n{\"a",
        "GET /chunked/9000000 HTTP/1.1\r\n" HOST SHORT "\r\n",
        "GET /length/9000000 HTTP/1.1\r\n" HOST SHORT "\r\n",
    };
    struct fixture *f = fixture_new(NULL);

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct client *c = client_new(f);
        f->gone = 0;
        client_send_text(c, requests[i]);
        turn_until(f, f->gone == 1);
        struct reply r = client_reply(c);
        assert_int_equal(r.head.status, 200);
        assert_true(r.truncated);
        assert_false(reply_contains(&r, "deadline"));
        reply_fini(&r);
        client_free(c);
    }
    fixture_free(f);
}

static void clients_may_go_first_or_after(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    client_post(c, "/wait", SHORT, "");
    turn_until(f, f->waiting != NULL);
    client_free(c);
    turn_until(f, f->gone == 1);
    turn_for(f, 40);
    exchange_abort(f->waiting);
    turn_until(f, f->closes == 1);

    c = client_new(f);
    client_post(c, "/wait", SHORT, "");
    turn_until(f, f->gone == 2);
    client_free(c);
    turn_for(f, 5);
    assert_int_equal(f->gone, 2); /* told once */
    exchange_reply(f->waiting, 200, "text/plain", "late", 4);
    turn_until(f, f->closes == 2);
    fixture_free(f);
}

/* What a key stands for is as if the client had gone; a reply that is made all the same is kept. */
static void keys_and_deadlines(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    client_post(c, "/make", SHORT "Idempotency-Key: k\r\n", "wait");
    expect_late(c);
    client_post(c, "/make", "Idempotency-Key: k\r\n", "wait");
    turn_until(f, f->made == 2);
    exchange_reply(f->waiting, 201, "text/plain", "second", 6);
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 201);
    reply_fini(&r);
    client_post(c, "/once", SHORT "Idempotency-Key: k\r\n", "wait");
    expect_late(c);
    client_post(c, "/once", SHORT "Idempotency-Key: k\r\n", "wait");
    r = client_reply(c);
    assert_int_equal(r.head.status, 409);
    assert_true(reply_contains(&r, "broken off"));
    reply_fini(&r);
    client_free(c);
    fixture_free(f);
}

static void times_are_judged(void **state)
{
    static const char *const bad[] = {"0",
                                      "0.0",
                                      "-1",
                                      "+1",
                                      "1s",
                                      "",
                                      ".5",
                                      "1.",
                                      "1.5.5",
                                      "1,5",
                                      "1e3",
                                      "0x10",
                                      "604801",
                                      "604800.001",
                                      "1 2",
                                      "nan",
                                      "99999999999999999999999",
                                      "0.00 1",
                                      "inf",
                                      "604800.0000000000001"};
    static const char *const good[] = {
        "1", "0.5", "604800", "604800.000", "0001.5000000000000000", "30.25"};
    struct fixture *f = fixture_new(NULL);
    char request[256];

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        (void)snprintf(request, sizeof(request),
                       "GET /echo/a HTTP/1.1\r\n" HOST "Request-Timeout: %s\r\n\r\n", bad[i]);
        expect_status(f, request, 400);
    }
    expect_status(f, "GET /echo/a HTTP/1.1\r\n" HOST SHORT SHORT "\r\n", 400);
    assert_int_equal(f->calls, 0);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        (void)snprintf(request, sizeof(request),
                       "GET /echo/a HTTP/1.1\r\n" HOST "Request-Timeout: %s\r\n\r\n", good[i]);
        expect_status(f, request, 200);
    }
    /* More than nothing is at least a millisecond. */
    struct client *c = client_new(f);
    client_post(c, "/make", "Request-Timeout: 0.0000001\r\n", "wait");
    struct reply r = client_reply(c);
    assert_true(reply_contains(&r, "0.001 s"));
    reply_fini(&r);
    client_free(c);
    fixture_free(f);
}

static void heads_are_told_without_a_body(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    client_send_text(c, "HEAD /wait HTTP/1.1\r\n" HOST SHORT "\r\n");
    struct reply r = client_reply_to(c, HTTP_HEAD);
    assert_int_equal(r.head.status, 504);
    reply_fini(&r);
    exchange_abort(f->waiting);
    expect_echo(c);
    client_free(c);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_is_stopped),
        cmocka_unit_test(late_replies_are_dropped),
        cmocka_unit_test(fast_requests_know_nothing_of_it),
        cmocka_unit_test(bodies_that_come_too_slowly),
        cmocka_unit_test(streams_of_records_end_with_one),
        cmocka_unit_test(other_streams_are_cut),
        cmocka_unit_test(clients_may_go_first_or_after),
        cmocka_unit_test(keys_and_deadlines),
        cmocka_unit_test(times_are_judged),
        cmocka_unit_test(heads_are_told_without_a_body),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
