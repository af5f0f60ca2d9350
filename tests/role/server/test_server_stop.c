/* The API's server at its end: a graceful stop, and nothing left after clients in any order. */
#include "test_server_peer.h"

#define SHORT_MS 200u

static void a_stop_lets_requests_finish(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *idle = client_new(f), *busy = client_new(f), *half = client_new(f);

    (void)state;
    client_send_text(idle, "GET /echo/a HTTP/1.1\r\n" HOST "\r\n");
    struct reply r = client_reply(idle);
    reply_fini(&r);
    client_send_text(half, "GET /ec");
    client_send_text(busy,
                     "GET /wait HTTP/1.1\r\n" HOST "\r\nGET /echo/a HTTP/1.1\r\n" HOST "\r\n");
    turn_until(f, f->waiting != NULL);
    server_stop(f->server, 60000, on_fixture_stopped, f);
    client_wait_eof(idle);
    client_wait_eof(half);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&f->address, sizeof(f->address)), -1);
    (void)close(fd);
    assert_false(f->stopped);
    exchange_reply(f->waiting, 200, "text/plain", "done", 4);
    r = client_reply(busy);
    assert_true(reply_contains(&r, "done"));
    assert_true(reply_has(&r, "Connection", "close"));
    reply_fini(&r);
    client_wait_eof(busy);
    assert_int_equal(busy->in.size, 0);
    turn_until(f, f->stopped);
    assert_int_equal(f->calls, 2);
    client_free(idle);
    client_free(busy);
    client_free(half);
    fixture_free(f);
}

static void a_stop_ends_at_its_deadline(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *busy = client_new(f), *slow = client_new(f);

    (void)state;
    client_send_text(slow, "GET /large/9000000 HTTP/1.1\r\n" HOST "\r\n");
    client_send_text(busy, "GET /wait HTTP/1.1\r\n" HOST "\r\n");
    turn_until(f, f->waiting != NULL && f->calls == 2);
    server_stop(f->server, 60000, on_fixture_stopped, f);
    turn_for(f, 5);
    server_stop(f->server, 20, on_fixture_stopped, f);
    turn_until(f, f->gone == 1);
    client_wait_eof(busy);
    turn_for(f, 5);
    assert_false(f->stopped);
    exchange_abort(f->waiting);
    turn_until(f, f->stopped);
    client_free(busy);
    client_free(slow);
    fixture_free(f);
}

static void an_idle_server_stops_at_once(void **state)
{
    struct fixture *f = fixture_new(NULL);

    (void)state;
    uint64_t start_ns = clock_mono_ns();
    server_stop(f->server, 60000, on_fixture_stopped, f);
    turn_until(f, f->stopped);
    assert_true(clock_mono_ns() - start_ns < NS_PER_S);
    fixture_free(f);
}

static void a_server_that_cannot_start_leaves_nothing(void **state)
{
    struct exchange_budget budget = EXCHANGE_BUDGET_INIT;
    struct error e = ERROR_INIT;
    struct server *server = NULL;
    uv_loop_t loop;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    const struct server_options options = {
        .loop = &loop, .routes = routes, .route_count = 1, .budget = &budget};
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC); /* nothing to wait for */
    assert_int_equal(server_new(&options, fd, &server, &e), -1);
    assert_int_equal(e.code, ERR_INTERNAL);
    assert_null(server);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* Many clients doing anything in any order: whatever they leave a connection in, the loop comes to
 * rest, and at the end every exchange has been closed. */
static void a_random_walk_leaves_nothing(void **state)
{
    static const char *const texts[] = {
        "GET /echo/a HTTP/1.1\r\n" HOST "\r\n",
        "GET /chunked/300000 HTTP/1.1\r\n" HOST "\r\n",
        "GET /length/300000 HTTP/1.1\r\n" HOST "\r\n",
        "GET /large/300000 HTTP/1.1\r\n" HOST "\r\n",
        "GET /cut?how=abort HTTP/1.1\r\n" HOST "\r\n",
        "POST /whole HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc",
        "POST /small HTTP/1.1\r\n" HOST "Content-Length: 300\r\n\r\nabc",
        "POST /ignore HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "PUT /upload HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        "PUT /upload HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\n\0",
        "GET /flood HTTP/1.1\r\n" HOST "\r\n",
        "HEAD /chunked/300000 HTTP/1.1\r\n" HOST "\r\n",
        "GET /",
        "\r\n",
        "\n",
        "0\r\n\r\n",
        "junk junk junk",
    };
    const struct server_options limits = {.head_timeout_ms = SHORT_MS,
                                          .idle_timeout_ms = SHORT_MS,
                                          .stall_timeout_ms = SHORT_MS,
                                          .linger_ms = SHORT_MS};
    static const char flood[HTTP_INPUT_BYTES_MAX] = "GET /chunked/300000 HTTP/1.1\r\n" HOST "\r\n";
    struct fixture *f = fixture_new(&limits);
    struct client *clients[16] = {NULL};
    unsigned seed = 20261121;

    (void)state;
    f->upload_any = true;
    for (unsigned step = 0; step < 20000; step++) {
        seed = seed * 1103515245u + 12345u;
        struct client **c = &clients[(seed >> 16) % 16];
        unsigned action = (seed >> 20) % 16;

        if (*c == NULL) {
            *c = client_new(f);
        } else if (action == 0) {
            client_free(*c);
            *c = NULL;
        } else if (action == 1) {
            (void)shutdown((*c)->fd, SHUT_WR);
        } else if (action < 5) {
            client_receive(*c, 30000);
            buffer_consume(&(*c)->in, (*c)->in.size);
        } else if (action < 12) {
            const char *text = texts[(seed >> 8) % (sizeof(texts) / sizeof(texts[0]))];
            size_t size = strlen(text);
            (void)client_push(*c, text, action == 11 ? size / 2 : size);
        } else if (action == 12) {
            (void)!send((*c)->fd, "!", 1, MSG_OOB | MSG_NOSIGNAL);
        } else if (action == 13) {
            (void)client_push(*c, flood, sizeof(flood));
        }
        fake_clock_move_ms((seed >> 24) % 4);
        turn(f);
        if (step % 16 == 0)
            turn_to_rest(f);
    }
    for (size_t i = 0; i < 16; i++) {
        if (clients[i] != NULL)
            client_free(clients[i]);
    }
    turn_until(f, connection_handles(f) == 0);
    assert_true(f->calls > 500);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_lets_requests_finish),
        cmocka_unit_test(a_stop_ends_at_its_deadline),
        cmocka_unit_test(an_idle_server_stops_at_once),
        cmocka_unit_test(a_server_that_cannot_start_leaves_nothing),
        cmocka_unit_test(a_random_walk_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
