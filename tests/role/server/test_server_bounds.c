/* What clients may take of the API's server: connections, descriptors, memory, time of its loop. */
#include <sys/resource.h>
#include <sys/syscall.h>

#include "test_server_peer.h"

static void too_many_connections_are_turned_away(void **state)
{
    const struct server_options limits = {.connections_max = 3};
    struct fixture *f = fixture_new(&limits);
    struct client *c[200];

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        c[i] = client_new(f);
        client_send_text(c[i], "GET /echo/a HTTP/1.1\r\n" HOST "\r\n");
        struct reply r = client_reply(c[i]);
        assert_int_equal(r.head.status, 200);
        reply_fini(&r);
    }
    for (size_t i = 3; i < 200; i++) {
        c[i] = client_new(f);
        struct reply r = client_reply(c[i]);
        assert_int_equal(r.head.status, 503);
        assert_true(reply_has(&r, "Retry-After", "1"));
        assert_true(reply_contains(&r, "no_capacity"));
        reply_fini(&r);
    }
    assert_true(connection_handles(f) <= 2 * (3 + 64));
    for (size_t i = 0; i < 200; i++)
        client_free(c[i]);
    turn_until(f, connection_handles(f) == 0);
    expect_status(f, "GET /echo/a HTTP/1.1\r\n" HOST "\r\n", 200);
    fixture_free(f);
}

/* Clients wait in the socket's queue, and the process may open nothing more. */
static void clients_are_refused_without_descriptors(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c[3];
    struct rlimit old, low;

    (void)state;
    for (size_t i = 0; i < 3; i++)
        c[i] = client_new(f);
    int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    (void)close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = (struct rlimit){.rlim_cur = (rlim_t)next, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    for (size_t i = 0; i < 3; i++) {
        struct reply r = client_reply(c[i]);
        assert_int_equal(r.head.status, 503);
        reply_fini(&r);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    expect_status(f, "GET /echo/a HTTP/1.1\r\n" HOST "\r\n", 200);
    for (size_t i = 0; i < 3; i++)
        client_free(c[i]);
    fixture_free(f);
}

/* All together may hold so much and no more; what one gives back another may have. */
static void bodies_are_bounded_in_sum(void **state)
{
    static const char waiting[] = "POST /whole HTTP/1.1\r\n" HOST "Content-Length: 100\r\n\r\n";
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);
    char body[100];

    (void)state;
    memset(body, 'x', sizeof(body));
    f->budget.bodies.bytes_max = 150;
    client_send_text(c, waiting);
    client_send(c, body, 60);
    turn_to_rest(f);
    assert_int_equal(f->budget.bodies.bytes, 60);
    for (unsigned i = 0; i < 2; i++) {
        struct client *other = client_new(f);

        client_send_text(other, waiting);
        client_send(other, body, sizeof(body));
        struct reply r = client_reply(other);
        assert_int_equal(r.head.status, i == 0 ? 503 : 200);
        assert_true(reply_contains(&r, i == 0 ? "too many large requests" : "xxx"));
        reply_fini(&r);
        client_free(other);
        if (i == 0) {
            client_free(c);
            turn_to_rest(f);
            assert_int_equal(f->budget.bodies.bytes, 0);
        }
    }
    fixture_free(f);
}

/* In place of libc's: fails as the kernel would. */
static int accept_errno;

int accept4(int fd, __SOCKADDR_ARG address, socklen_t *restrict size, int flags)
{
    if (accept_errno == 0)
        return (int)syscall(SYS_accept4, fd, address.__sockaddr__, size, flags);
    errno = accept_errno;
    return -1;
}

static void a_kernel_without_memory_is_left_alone(void **state)
{
    struct fixture *f = fixture_new(NULL);
    struct client *c = client_new(f);

    (void)state;
    accept_errno = ENOMEM;
    turn_to_rest(f);
    accept_errno = 0;
    client_send_text(c, "GET /echo/a HTTP/1.1\r\n" HOST "\r\n");
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 200);
    reply_fini(&r);
    client_free(c);
    fixture_free(f);
}

/* A byte out of band is nothing of HTTP. On a connection that is not read from, since its input is
 * full, it must not wake the loop for as long as it lies there. */
static void bytes_out_of_band_are_dropped(void **state)
{
    static const char *const requests[] = {
        "GET /wait HTTP/1.1\r\n" HOST "\r\n",
        "PUT /upload HTTP/1.1\r\n" HOST "Content-Length: 1000000\r\n\r\n",
        "GET /chunked/9000000 HTTP/1.1\r\n" HOST "\r\n",
    };
    static uint8_t data[HTTP_INPUT_BYTES_MAX + 2 * UPLOAD_PIECE];
    struct fixture *f = fixture_new(NULL);

    (void)state;
    f->upload_auto = false;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        for (unsigned half = 0; half < 2; half++) {
            struct client *c = client_new(f);
            unsigned closes = f->closes;

            f->waiting = NULL;
            client_send_text(c, requests[i]);
            turn_to_rest(f);
            client_send(c, data, sizeof(data));
            turn_to_rest(f);
            for (unsigned k = 0; k < 3; k++) {
                assert_int_equal(send(c->fd, "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
                turn_to_rest(f);
            }
            if (half)
                assert_int_equal(shutdown(c->fd, SHUT_WR), 0);
            turn_to_rest(f);
            assert_int_equal(f->closes, closes);
            client_free(c);
            turn_to_rest(f);
            if (f->waiting != NULL)
                exchange_abort(f->waiting);
            turn_until(f, f->closes == closes + 1);
        }
    }
    /* Where it is read, what is around it stays together. */
    struct client *c = client_new(f);
    assert_int_equal(send(c->fd, "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
    turn_to_rest(f);
    client_send_text(c, "GET /ec");
    assert_int_equal(send(c->fd, "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
    turn_to_rest(f);
    client_send_text(c, "ho/a HTTP/1.1\r\n" HOST "\r\n");
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 200);
    reply_fini(&r);
    client_free(c);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(too_many_connections_are_turned_away),
        cmocka_unit_test(clients_are_refused_without_descriptors),
        cmocka_unit_test(bodies_are_bounded_in_sum),
        cmocka_unit_test(a_kernel_without_memory_is_left_alone),
        cmocka_unit_test(bytes_out_of_band_are_dropped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
