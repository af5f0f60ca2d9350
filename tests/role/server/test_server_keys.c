/* Idempotency-Key at the server: replies that come again, requests that do not run again. */
#include "test_server_peer.h"

#define KEY "Idempotency-Key: 8e03978e-40d5\r\n"

/* Posts on a connection of its own and checks the reply's status and that it has these words. */
static void post(struct fixture *f, const char *target, const char *headers, const char *body,
                 int status, const char *words, bool is_replayed)
{
    struct client *c = client_new(f);

    client_post(c, target, headers, body);
    struct reply r = client_reply(c);
    if (r.head.status != status || !reply_contains(&r, words))
        fail_msg("%d: %.*s", r.head.status, (int)r.body.size, (char *)buffer_bytes(&r.body));
    assert_int_equal(reply_has(&r, "Idempotency-Replayed", "true"), is_replayed);
    if (is_replayed)
        assert_true(reply_has(&r, "Content-Type", "text/plain"));
    reply_fini(&r);
    client_free(c);
}

/* A request that waits in its handler. */
static struct client *post_waiting(struct fixture *f, const char *target, const char *body)
{
    struct client *c = client_new(f);

    f->waiting = NULL;
    client_post(c, target, KEY, body);
    turn_until(f, f->waiting != NULL);
    return c;
}

static void a_reply_comes_again(void **state)
{
    struct fixture *f = fixture_new(NULL);

    (void)state;
    post(f, "/make", KEY, "a", 201, "made 1", false);
    post(f, "/make", KEY, "a", 201, "made 1", true);
    post(f, "/once", KEY, "a", 201, "made 2", false);
    post(f, "/make?q", KEY, "a", 201, "made 3", false);
    post(f, "/make", "Idempotency-Key: other\r\n", "a", 201, "made 4", false);
    post(f, "/make", "", "a", 201, "made 5", false);
    post(f, "/make", KEY, "a", 201, "made 1", true);
    assert_int_equal(f->made, 5);
    assert_int_equal(f->calls, 5); /* a replay never reaches a handler */
    fixture_free(f);
}

static void an_empty_reply_comes_again(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        client_post(c, "/make", KEY, "none");
        struct reply r = client_reply(c);
        assert_int_equal(r.head.status, 204);
        assert_int_equal(reply_has(&r, "Idempotency-Replayed", "true"), i);
        reply_fini(&r);
    }
    assert_int_equal(f->made, 1);
    client_free(c);
    fixture_free(f);
}

static void another_body_is_a_mistake(void **state)
{
    struct fixture *f = fixture_new(NULL);

    (void)state;
    post(f, "/make", KEY, "a", 201, "made 1", false);
    post(f, "/make", KEY, "b", 422, "idempotency_mismatch", false);
    post(f, "/make", KEY, "", 422, "idempotency_mismatch", false);
    post(f, "/make", KEY "Accept: application/x-ndjson\r\n", "a", 422, "idempotency_mismatch",
         false);
    post(f, "/make", KEY, "a", 201, "made 1", true);
    assert_int_equal(f->made, 1);
    fixture_free(f);
}

static void bad_keys_are_refused(void **state)
{
    static const char *const bad[] = {"Idempotency-Key:\r\n", "Idempotency-Key: \"a\"\r\n",
                                      "Idempotency-Key: a b\r\n",
                                      ("Idempotency-Key: 0123456789012345678901234567890123456789"
                                       "0123456789012345678901234\r\n")};
    struct fixture *f = fixture_new(NULL);

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        post(f, "/make", bad[i], "a", 400, "Idempotency-Key", false);
    post(f, "/make", KEY KEY, "a", 400, "more than one", false);
    assert_int_equal(f->calls, 0);
    /* Where a route makes nothing, the header says nothing. */
    post(f, "/whole", "Idempotency-Key: \"a\"\r\n", "a", 200, "a", false);
    post(f, "/whole", KEY, "a", 200, "a", false);
    post(f, "/whole", KEY, "b", 200, "b", false);
    fixture_free(f);
}

static void two_at_once_are_one(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *first;

    (void)state;
    first = post_waiting(f, "/make", "wait");
    post(f, "/make", KEY, "wait", 409, "still running", false);
    post(f, "/make", KEY, "other", 422, "idempotency_mismatch", false);
    exchange_reply(f->waiting, 201, "text/plain", "done", 4);
    struct reply r = client_reply(first);
    assert_true(reply_contains(&r, "done"));
    reply_fini(&r);
    post(f, "/make", KEY, "wait", 201, "done", true);
    assert_int_equal(f->made, 1);
    client_free(first);
    fixture_free(f);
}

/* Both have sent their heads before either has sent its body. */
static void two_slow_bodies_are_one(void **state)
{
    static const char head[] = "POST /make HTTP/1.1\r\n" HOST KEY "Content-Length: 4\r\n\r\n";
    struct fixture *f = fixture_new(NULL);
    struct client *a = client_new(f), *b = client_new(f);

    (void)state;
    client_send_text(a, head);
    client_send_text(b, head);
    client_send_text(b, "wa");
    client_send_text(a, "wait");
    turn_until(f, f->waiting != NULL);
    client_send_text(b, "it");
    struct reply r = client_reply(b);
    assert_int_equal(r.head.status, 409);
    reply_fini(&r);
    assert_int_equal(f->made, 1);
    exchange_reply(f->waiting, 201, "text/plain", "done", 4);
    r = client_reply(a);
    assert_int_equal(r.head.status, 201);
    reply_fini(&r);
    client_free(a);
    client_free(b);
    fixture_free(f);
}

static void errors_are_not_kept(void **state)
{
    struct fixture *f = fixture_new(NULL);

    (void)state;
    post(f, "/once", KEY, "fail", 422, "failed 1", false);
    post(f, "/once", KEY, "fail", 422, "failed 2", false);
    post(f, "/once", KEY, "good", 201, "made 3", false); /* the key was never used */
    fixture_free(f);
}

/* The daemon's own failure may have come when the work was done. */
static void failures_are_not_tried_again(void **state)
{
    struct fixture *f = fixture_new(NULL);

    (void)state;
    post(f, "/make", KEY, "full", 503, "full 1", false);
    post(f, "/make", KEY, "full", 503, "full 2", false);
    post(f, "/once", KEY, "full", 503, "full 3", false);
    post(f, "/once", KEY, "full", 409, "in part", false);
    assert_int_equal(f->made, 3);
    fixture_free(f);
}

static void large_replies_are_given_once(void **state)
{
    struct fixture *f = fixture_new(NULL);

    (void)state;
    post(f, "/make", KEY, "large", 201, "made 1", false);
    post(f, "/make", KEY, "large", 409, "too large", false);
    post(f, "/make", KEY, "large", 409, "new key", false);
    assert_int_equal(f->made, 1);
    fixture_free(f);
}

/* What vanishes with its client may be done anew, unless it may have left traces. */
static void clients_that_vanish_come_again(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c;

    (void)state;
    c = post_waiting(f, "/make", "wait");
    client_free(c);
    turn_until(f, f->closes == 1);
    c = post_waiting(f, "/make", "wait");
    assert_int_equal(f->made, 2);
    exchange_reply(f->waiting, 201, "text/plain", "second", 6);
    client_free(c);
    turn_until(f, f->closes == 2);
    post(f, "/make", KEY, "wait", 201, "second", true); /* it was made, and nobody had read it */

    c = post_waiting(f, "/once", "wait");
    client_free(c);
    turn_until(f, f->closes == 3);
    post(f, "/once", KEY, "wait", 409, "broken off", false);
    assert_int_equal(f->made, 3);
    fixture_free(f);
}

/* One that goes in the middle of its body has asked for nothing yet. */
static void half_a_body_claims_nothing(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    client_send_text(c, "POST /once HTTP/1.1\r\n" HOST KEY "Content-Length: 4\r\n\r\ngo");
    turn_for(f, 5);
    client_free(c);
    turn_until(f, connection_handles(f) == 0);
    assert_int_equal(f->calls, 0);
    post(f, "/once", KEY, "good", 201, "made 1", false);
    fixture_free(f);
}

static void streams_are_not_replayed(void **state)
{
    static const char stream[] = KEY "Accept: application/x-ndjson\r\n";
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    client_post(c, "/records", stream, "{}\n");
    turn_until(f, f->waiting != NULL);
    post(f, "/records", stream, "{}\n", 409, "still running", false);
    exchange_end(f->waiting);
    struct reply r = client_reply(c);
    assert_true(reply_contains(&r, "{}\n"));
    reply_fini(&r);
    post(f, "/records", stream, "{}\n", 409, "processes", false);
    assert_int_equal(f->made, 1);
    client_free(c);
    fixture_free(f);
}

/* The server has read the body before the handler says how much it takes. */
static void the_handlers_limit_holds(void **state)
{
    struct fixture *f = fixture_new(NULL);

    (void)state;
    for (unsigned chunked = 0; chunked < 2; chunked++) {
        struct client *c = client_new(f);
        char *data = malloc(64 * KIB + 1);
        assert_non_null(data);
        memset(data, 'x', 64 * KIB + 1);
        client_send_text(c, "POST /make HTTP/1.1\r\n" HOST KEY);
        client_send_text(c, chunked ? "Transfer-Encoding: chunked\r\n\r\n10001\r\n"
                                    : "Content-Length: 65537\r\n\r\n");
        client_send(c, data, 64 * KIB + 1);
        client_send_text(c, chunked ? "\r\n0\r\n\r\n" : "");
        struct reply r = client_reply(c);
        assert_int_equal(r.head.status, 413);
        reply_fini(&r);
        client_free(c);
        free(data);
    }
    assert_int_equal(f->made, 0);
    post(f, "/make", KEY, "a", 201, "made 1", false);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reply_comes_again),
        cmocka_unit_test(an_empty_reply_comes_again),
        cmocka_unit_test(another_body_is_a_mistake),
        cmocka_unit_test(bad_keys_are_refused),
        cmocka_unit_test(two_at_once_are_one),
        cmocka_unit_test(two_slow_bodies_are_one),
        cmocka_unit_test(errors_are_not_kept),
        cmocka_unit_test(failures_are_not_tried_again),
        cmocka_unit_test(large_replies_are_given_once),
        cmocka_unit_test(clients_that_vanish_come_again),
        cmocka_unit_test(half_a_body_claims_nothing),
        cmocka_unit_test(streams_are_not_replayed),
        cmocka_unit_test(the_handlers_limit_holds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
