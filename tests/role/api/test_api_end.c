/* A sandbox, or the daemon, that ends while everything is under way: each request gets its end, and
 * nothing is touched afterwards. */
#include "api_fixture.h"

#define SANDBOX "/v1/sandboxes/sb_1"
#define EXEC    SANDBOX "/exec"
#define PROCESS SANDBOX "/processes/7"
#define NDJSON  "application/x-ndjson"
#define CLIENTS 10

/* Requests of all kinds, each with a client of its own. */
struct crowd {
    int fds[CLIENTS];
    unsigned count;
};

static void keep_client(struct fixture *f, struct crowd *c)
{
    assert_true(c->count < CLIENTS);
    c->fds[c->count++] = f->client_fd;
    f->client_fd = -1;
}

static uint32_t ask(struct fixture *f, struct crowd *c, const char *accept, const char *body,
                    uint32_t pid)
{
    request_json(f, EXEC, accept, body);
    uint32_t s = take_open(f);
    if (pid != 0)
        fake_exec_info(&f->agent, s, pid);
    turn(f);
    keep_client(f, c);
    while (fake_recv(&f->agent, &f->frame))
        continue;
    return s;
}

static void get(struct fixture *f, struct crowd *c, const char *target)
{
    request(f, "GET", target, NULL, "", 0);
    keep_client(f, c);
}

static void open_terminal(struct fixture *f, struct crowd *c)
{
    static const char head[] = "GET " SANDBOX "/pty?arg=x HTTP/1.1\r\nHost: x\r\n"
                               "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                               "Sec-WebSocket-Version: 13\r\n"
                               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    connect_client(f);
    client_send(f, head, sizeof(head) - 1);
    fake_exec_info(&f->agent, take_open(f), 10);
    turn(f);
    assert_int_equal(reply_status(f), 101);
    keep_client(f, c);
}

static void gather(struct fixture *f, struct crowd *c)
{
    static const char piece[32 * KIB];

    uint32_t s = ask(f, c, NULL, "{\"shell\":\"x\",\"background\":true,\"stdin_open\":true}", 7);
    fd_close(&c->fds[--c->count]); /* it has been answered */
    get(f, c, PROCESS "?wait_ms=600000");
    get(f, c, PROCESS "/output?follow=true");
    request(f, "DELETE", PROCESS, NULL, "", 0);
    keep_client(f, c);
    /* More than its reader takes at once. */
    for (unsigned i = 0; i < CHANNEL_WINDOW_BYTES / sizeof(piece) - 1; i++)
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, piece, sizeof(piece));
    uint32_t shell = ask(f, c, NDJSON, "{\"shell\":\"x\",\"session\":\"a\"}", 8);
    fake_send(&f->agent, CHANNEL_DATA, shell, CHANNEL_LANE_OUT, piece, sizeof(piece));
    f->headers = "Idempotency-Key: k\r\n";
    (void)ask(f, c, NULL, "{\"shell\":\"keyed\"}", 9);
    f->headers = "Request-Timeout: 600\r\n";
    (void)ask(f, c, NULL, "{\"shell\":\"starts\",\"background\":true}", 0);
    f->headers = NULL;
    open_terminal(f, c);
    get(f, c, SANDBOX "/files/watch?path=/");
    request(f, "PUT", SANDBOX "/files?path=/a", NULL, piece, sizeof(piece));
    keep_client(f, c);
}

static void leave(struct crowd *c)
{
    for (unsigned i = 0; i < c->count; i++)
        fd_close(&c->fds[i]);
}

static void test_the_sandbox_ends(void **state)
{
    struct fixture *f = *state;
    struct crowd c = {0};

    gather(f, &c);
    end_sandbox(&f->sandbox);
    for (unsigned i = 0; i < c.count; i++) {
        f->client_fd = c.fds[i];
        f->client_eof = false;
        buffer_consume(&f->reply, f->reply.size);
        for (unsigned k = 0; k < 20; k++)
            turn(f);
        if (f->reply.size == 0 && !f->client_eof)
            fail_msg("client %u got nothing", i);
    }
    f->client_fd = -1;
    assert_int_equal(f->process_memory.bytes, 0);
    leave(&c);
}

static void test_the_clients_leave_first(void **state)
{
    struct fixture *f = *state;
    struct crowd c = {0};

    gather(f, &c);
    leave(&c);
    turn(f);
    end_sandbox(&f->sandbox);
    turn(f);
    assert_int_equal(f->process_memory.bytes, 0);
}

/* tear_down() stops the server, and only then is the sandbox gone. */
static struct crowd left;

static void test_the_daemon_stops(void **state)
{
    left.count = 0;
    gather(*state, &left);
}

static int tear_down_crowd(void **state)
{
    int result = tear_down(state);

    leave(&left);
    return result;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        API_TEST(test_the_sandbox_ends),
        API_TEST(test_the_clients_leave_first),
        cmocka_unit_test_setup_teardown(test_the_daemon_stops, set_up, tear_down_crowd),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
