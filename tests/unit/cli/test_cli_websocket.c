/* The client's side of a WebSocket against a peer that says what the test tells it to. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/client/client_websocket.h"
#include "cli/common/interrupt.h"
#include "http/websocket.h"

#define KEY_HEADER "Sec-WebSocket-Key: "
#define ANSWER     "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"

struct peer {
    int fd;
    const char *answer; /* "%s" is the accept value */
    const char *early;  /* bytes sent together with it */
    size_t early_size;
    char request[2048];
};

struct seen {
    char bytes[256];
    size_t size;
    char text[256];
    unsigned texts;
};

static void *answer_handshake(void *arg)
{
    struct peer *p = arg;
    char accept[WEBSOCKET_ACCEPT_BYTES] = "", key[WEBSOCKET_KEY_BYTES] = "", reply[1024];
    size_t used = 0;

    while (strstr(p->request, "\r\n\r\n") == NULL) {
        ssize_t n = recv(p->fd, p->request + used, sizeof(p->request) - 1 - used, 0);
        if (n <= 0)
            return NULL;
        used += (size_t)n;
    }
    const char *line = strstr(p->request, KEY_HEADER);
    if (line != NULL) {
        (void)snprintf(key, sizeof(key), "%s", line + strlen(KEY_HEADER));
        websocket_accept_of(key, accept);
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int size = snprintf(reply, sizeof(reply), p->answer, accept);
#pragma GCC diagnostic pop
    memcpy(reply + size, p->early, p->early_size);
    (void)!send(p->fd, reply, (size_t)size + p->early_size, MSG_NOSIGNAL);
    return NULL;
}

static int on_bytes(void *arg, const uint8_t *data, size_t size, struct error *e)
{
    struct seen *seen = arg;

    if (size == 4 && memcmp(data, "fail", 4) == 0)
        return error_set(e, ERR_INTERNAL, "as it was told");
    assert_true(seen->size + size < sizeof(seen->bytes));
    memcpy(seen->bytes + seen->size, data, size);
    seen->size += size;
    return 0;
}

static int on_text(void *arg, const char *text, size_t size, struct error *e)
{
    struct seen *seen = arg;

    (void)e;
    assert_true(size < sizeof(seen->text));
    memcpy(seen->text, text, size);
    seen->text[size] = '\0';
    seen->texts++;
    return 0;
}

static const struct client_websocket_calls calls = {.on_bytes = on_bytes, .on_text = on_text};

struct fixture {
    struct peer peer;
    struct client client;
    struct client_websocket websocket;
    struct seen seen;
    struct error e;
};

static int open_websocket(struct fixture *f, const char *answer, const char *early,
                          size_t early_size)
{
    pthread_t thread;
    int fds[2];

    *f = (struct fixture){.e = ERROR_INIT};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    f->client = (struct client){.fd = fds[0], .in = BUFFER_INIT(HTTP_HEAD_BYTES_MAX + 65536)};
    f->peer =
        (struct peer){.fd = fds[1], .answer = answer, .early = early, .early_size = early_size};
    assert_int_equal(pthread_create(&thread, NULL, answer_handshake, &f->peer), 0);
    int result = client_websocket_open(&f->websocket, &f->client, "/v1/x/pty?rows=1", &calls,
                                       &f->seen, &f->e);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return result;
}

static void close_websocket(struct fixture *f)
{
    client_websocket_close(&f->websocket);
    client_close(&f->client);
    (void)close(f->peer.fd);
}

static void say(struct fixture *f, const char *frame, size_t size)
{
    assert_int_equal(send(f->peer.fd, frame, size, MSG_NOSIGNAL), size);
}

/* A frame of ours as the daemon sees it: masked, and the mask taken off. */
static void expect_frame(struct fixture *f, unsigned first, const char *content)
{
    uint8_t bytes[256];
    size_t size = strlen(content);

    assert_int_equal(recv(f->peer.fd, bytes, 6 + size, MSG_WAITALL), 6 + size);
    assert_int_equal(bytes[0], first);
    assert_int_equal(bytes[1], 0x80 | size);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(bytes[6 + i] ^ bytes[2 + i % 4], (uint8_t)content[i]);
}

static void talks_both_ways(void **state)
{
    struct fixture f;

    (void)state;
    /* The first frames come in one piece with the handshake. */
    assert_int_equal(open_websocket(&f, ANSWER "Sec-WebSocket-Accept: %s\r\n\r\n",
                                    "\x81\x02{}\x82\x03\x1b[m", 9),
                     0);
    assert_non_null(strstr(f.peer.request, "GET /v1/x/pty?rows=1 HTTP/1.1\r\n"));
    assert_non_null(strstr(f.peer.request, "Connection: Upgrade\r\nUpgrade: websocket\r\n"));
    assert_int_equal(client_websocket_receive(&f.websocket, &f.e), 0);
    assert_string_equal(f.seen.text, "{}");
    assert_int_equal(f.seen.size, 3);
    assert_memory_equal(f.seen.bytes, "\x1b[m", 3);

    assert_int_equal(client_websocket_send_bytes(&f.websocket, "keys", 4, &f.e), 0);
    expect_frame(&f, 0x82, "keys");
    assert_int_equal(client_websocket_send_text(&f.websocket, "{\"a\":1}", 7, &f.e), 0);
    expect_frame(&f, 0x81, "{\"a\":1}");
    say(&f, "\x89\x01?", 3); /* a ping */
    assert_int_equal(client_websocket_receive(&f.websocket, &f.e), 0);
    expect_frame(&f, 0x8a, "?");
    say(&f,
        "\x01\x01"
        "a",
        3); /* a text in two frames */
    assert_int_equal(client_websocket_receive(&f.websocket, &f.e), 0);
    assert_int_equal(f.seen.texts, 1);
    say(&f,
        "\x80\x01"
        "b",
        3);
    assert_int_equal(client_websocket_receive(&f.websocket, &f.e), 0);
    assert_string_equal(f.seen.text, "ab");

    assert_false(f.websocket.is_over);
    say(&f, "\x88\x02\x03\xe8", 4);
    assert_int_equal(client_websocket_receive(&f.websocket, &f.e), 0);
    assert_true(f.websocket.is_over);
    close_websocket(&f);
}

static void says_goodbye(void **state)
{
    struct fixture f;

    (void)state;
    assert_int_equal(open_websocket(&f, ANSWER "Sec-WebSocket-Accept: %s\r\n\r\n", "", 0), 0);
    assert_int_equal(client_websocket_send_bytes(&f.websocket, "last", 4, &f.e), 0);
    assert_int_equal(client_websocket_send_close(&f.websocket, &f.e), 0);
    expect_frame(&f, 0x82, "last");
    expect_frame(&f, 0x88, "\x03\xe8");
    close_websocket(&f);
}

static void ends_with_its_peer(void **state)
{
    struct fixture f;

    (void)state;
    assert_int_equal(open_websocket(&f, ANSWER "Sec-WebSocket-Accept: %s\r\n\r\n", "", 0), 0);
    say(&f, "\x82\x02hi", 4);
    (void)shutdown(f.peer.fd, SHUT_RDWR);
    assert_int_equal(client_websocket_receive(&f.websocket, &f.e), 0);
    assert_memory_equal(f.seen.bytes, "hi", 2); /* what it said before */
    assert_true(f.websocket.is_over);
    close_websocket(&f);
    /* A callback's failure is the receiver's. */
    assert_int_equal(open_websocket(&f, ANSWER "Sec-WebSocket-Accept: %s\r\n\r\n", "", 0), 0);
    say(&f,
        "\x82\x04"
        "fail\x82\x01x",
        9);
    assert_int_equal(client_websocket_receive(&f.websocket, &f.e), -1);
    assert_string_equal(f.e.message, "as it was told");
    assert_int_equal(f.seen.size, 0);
    close_websocket(&f);
    /* And what breaks the protocol ends it. */
    assert_int_equal(open_websocket(&f, ANSWER "Sec-WebSocket-Accept: %s\r\n\r\n", "", 0), 0);
    say(&f, "\x82\x81\0\0\0\0x", 7); /* a server must not mask */
    assert_int_equal(client_websocket_receive(&f.websocket, &f.e), 0);
    assert_true(f.websocket.is_over && f.seen.size == 0);
    close_websocket(&f);
}

static void refuses_other_answers(void **state)
{
    static const struct {
        const char *answer;
        enum error_code code;
    } cases[] = {
        {ANSWER "Sec-WebSocket-Accept: x%s\r\n\r\n", ERR_BAD_REQUEST},
        {ANSWER "\r\n", ERR_BAD_REQUEST},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ERR_UNREACHABLE},
        {"HTTP/1.1 404 Not Found\r\nContent-Length: 55\r\n\r\n"
         "{\"error\":{\"code\":\"sandbox_not_found\",\"message\":\"gone\"}}",
         ERR_SANDBOX_NOT_FOUND},
    };
    struct fixture f;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(open_websocket(&f, cases[i].answer, "", 0), -1);
        if (f.e.code != cases[i].code)
            fail_msg("%s for: %s", f.e.message, cases[i].answer);
        close_websocket(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(talks_both_ways),
        cmocka_unit_test(says_goodbye),
        cmocka_unit_test(ends_with_its_peer),
        cmocka_unit_test(refuses_other_answers),
    };

    interrupt_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
