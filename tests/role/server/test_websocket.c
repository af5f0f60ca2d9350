/* WebSockets over the server, against clients that keep the rules and clients that do not. */
#include "test_server_peer.h"

#define KEY  "dGhlIHNhbXBsZSBub25jZQ=="
#define OPEN "GET /socket HTTP/1.1\r\n" HOST "Connection: keep-alive, Upgrade\r\n"
#define HANDSHAKE                                                                                  \
    OPEN "Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " KEY "\r\n\r\n"

enum { CONTINUATION, TEXT, BINARY, CLOSE = 8, PING, PONG };

#define FIN    0x80u
#define MASKED 0x80u

struct frame {
    unsigned first; /* FIN, reserved bits, opcode */
    uint64_t size;
    uint8_t data[WEBSOCKET_QUEUE_MAX];
};

static struct client *connect_socket(struct fixture *f)
{
    struct client *c = client_new(f);

    client_send_text(c, HANDSHAKE);
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 101);
    assert_true(r.head.upgrade);
    assert_true(reply_has(&r, "Upgrade", "websocket"));
    assert_true(reply_has(&r, "Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    reply_fini(&r);
    return c;
}

/* A header with any length, whatever follows; the mask is one that changes nothing. */
static void send_header(struct client *c, unsigned first, uint64_t size, unsigned masked)
{
    uint8_t bytes[14] = {(uint8_t)first};
    size_t used = 2;

    if (size < 126) {
        bytes[1] = (uint8_t)(size | masked);
    } else if (size < 65536) {
        bytes[1] = (uint8_t)(126 | masked);
        bytes[used++] = (uint8_t)(size >> 8);
        bytes[used++] = (uint8_t)size;
    } else {
        bytes[1] = (uint8_t)(127 | masked);
        for (unsigned i = 0; i < 8; i++)
            bytes[used++] = (uint8_t)(size >> (56 - 8 * i));
    }
    client_send(c, bytes, used + (masked != 0 ? 4 : 0));
}

static void send_frame(struct client *c, unsigned first, const void *data, size_t size)
{
    send_header(c, first, size, MASKED);
    client_send(c, data, size);
}

static void send_line(struct client *c, const char *text)
{
    send_frame(c, FIN | TEXT, text, strlen(text));
}

static void need(struct client *c, size_t size)
{
    struct patience patience = patience_new();

    while (c->in.size < size) {
        assert_false(c->eof);
        wait_turn(c->f, &patience, "a frame");
        client_receive(c, 65536);
    }
}

static const struct frame *next_frame(struct client *c)
{
    static struct frame frame;
    size_t header = 2;

    need(c, 2);
    frame.first = buffer_bytes(&c->in)[0];
    frame.size = buffer_bytes(&c->in)[1];
    assert_true(frame.size < 128); /* a server does not mask */
    if (frame.size >= 126) {
        header = frame.size == 126 ? 4 : 10;
        need(c, header);
        frame.size = 0;
        for (size_t i = 2; i < header; i++)
            frame.size = frame.size << 8 | buffer_bytes(&c->in)[i];
    }
    assert_true(frame.size <= sizeof(frame.data));
    need(c, header + frame.size);
    if (frame.size > 0)
        memcpy(frame.data, buffer_bytes(&c->in) + header, frame.size);
    buffer_consume(&c->in, header + frame.size);
    return &frame;
}

static void expect_frame(struct client *c, unsigned first, const void *data, size_t size)
{
    const struct frame *frame = next_frame(c);

    assert_int_equal(frame->first, first);
    assert_int_equal(frame->size, size);
    assert_memory_equal(frame->data, data, size);
}

/* The close message with that code, and then the end. */
static void expect_close(struct client *c, unsigned code)
{
    const struct frame *frame = next_frame(c);

    while (frame->first != (FIN | CLOSE))
        frame = next_frame(c);
    /* wslay gives no code for a header that cannot be. */
    if (frame->size > 0 || code != 1002)
        assert_int_equal(frame->data[0] << 8 | frame->data[1], code);
    client_wait_eof(c);
    client_free(c);
}

static int set_up(void **state)
{
    const struct server_options limits = {.stall_timeout_ms = 300, .linger_ms = 200};

    *state = fixture_new(&limits);
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

static void messages_go_both_ways(void **state)
{
    static uint8_t large[60000];
    struct client *c = connect_socket(*state);

    send_frame(c, FIN | BINARY, "\x00\xff\x1b[m", 5);
    expect_frame(c, FIN | BINARY, "\x00\xff\x1b[m", 5);
    send_line(c, "gr\xc3\xbc\xc3\x9f");
    expect_frame(c, FIN | TEXT, "gr\xc3\xbc\xc3\x9f", 6);
    send_line(c, "");
    expect_frame(c, FIN | TEXT, "", 0);
    send_frame(c, FIN | BINARY, "", 0); /* nothing, and nothing comes of it */
    /* A text in pieces with a ping between them, the two bytes of a character apart. */
    send_frame(c, TEXT, "a\xc3", 2);
    send_frame(c, FIN | PING, "still?", 6);
    expect_frame(c, FIN | PONG, "still?", 6);
    send_frame(c, FIN | CONTINUATION, "\xbc", 1);
    expect_frame(c, FIN | TEXT, "a\xc3\xbc", 3);
    send_frame(c, FIN | BINARY, large, sizeof(large));
    for (size_t got = 0; got < sizeof(large);) {
        const struct frame *frame = next_frame(c);
        assert_int_equal(frame->first, FIN | BINARY);
        got += frame->size;
    }
    send_frame(c, FIN | CLOSE, "\x03\xe8", 2);
    expect_close(c, 1000);
}

static void a_mask_is_taken_off(void **state)
{
    struct client *c = connect_socket(*state);

    client_send(c, "\x82\x83\x01\x02\x03\x04\x60\x60\x60", 9);
    expect_frame(c, FIN | BINARY, "abc", 3);
    client_free(c);
}

/* Silence is no fault, and neither is a byte at a time; the handshake too may come so. */
static void slow_clients(void **state)
{
    struct client *c = client_new(*state);

    for (const char *p = HANDSHAKE; *p != '\0'; p++)
        client_send(c, p, 1);
    struct reply r = client_reply(c);
    assert_int_equal(r.head.status, 101);
    reply_fini(&r);
    turn_for(*state, 500); /* longer than a body may stall */
    for (const char *p = "\x82\x83\0\0\0\0abc"; p < &"\x82\x83\0\0\0\0abc"[9]; p++)
        client_send(c, p, 1);
    for (unsigned i = 0; i < 3; i++)
        expect_frame(c, FIN | BINARY, &"abc"[i], 1);
    client_free(c);
}

static void refuse(struct fixture *f, const char *request, int status, const char *text)
{
    struct client *c = client_new(f);

    client_send_text(c, request);
    struct reply r = client_reply(c);
    if (r.head.status != status || !reply_contains(&r, text))
        fail_msg("%d, not %d with \"%s\", to: %s", r.head.status, status, text, request);
    if (status == 426)
        assert_true(reply_has(&r, "Upgrade", "websocket") &&
                    reply_has(&r, "Sec-WebSocket-Version", "13"));
    reply_fini(&r);
    client_free(c);
}

/* The cases are test_http_websocket.c's; here is what the server makes of them. */
static void handshakes_that_are_wrong(void **state)
{
    refuse(*state, "GET /socket HTTP/1.1\r\n" HOST "\r\n", 426, "cloche shell");
    refuse(*state, OPEN "Upgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\r\n", 426, "Version");
    refuse(*state, OPEN "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n", 400, "16 bytes");
    /* Another path takes no notice. */
    expect_status(*state,
                  "GET / HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " KEY "\r\n\r\n",
                  204);
}

/* What breaks the protocol is told so by the code of the close message. */
static void broken_frames(void **state)
{
    struct fixture *f = *state;
    struct client *c = connect_socket(f);

    send_header(c, FIN | BINARY, 3, 0); /* not masked */
    client_send(c, "abc", 3);
    expect_close(c, 1002);

    c = connect_socket(f);
    send_frame(c, FIN | 0x40 | BINARY, "abc", 3); /* a reserved bit */
    expect_close(c, 1002);

    c = connect_socket(f);
    send_frame(c, FIN | 3, "abc", 3); /* no such opcode */
    expect_close(c, 1002);

    c = connect_socket(f);
    send_frame(c, FIN | CONTINUATION, "abc", 3); /* of what? */
    expect_close(c, 1002);

    c = connect_socket(f);
    send_frame(c, BINARY, "abc", 3);
    send_frame(c, FIN | BINARY, "abc", 3); /* within another message */
    expect_close(c, 1002);

    c = connect_socket(f);
    send_header(c, FIN | PING, 126, MASKED); /* a control frame too long */
    expect_close(c, 1002);

    c = connect_socket(f);
    send_frame(c, PING, "abc", 3); /* a control frame in pieces */
    expect_close(c, 1002);

    c = connect_socket(f);
    send_line(c, "\xc3("); /* not UTF-8 */
    expect_close(c, 1007);
    assert_int_equal(f->calls, 8);
}

static void lengths_past_the_limits(void **state)
{
    static const uint64_t sizes[] = {WEBSOCKET_FRAME_MAX + 1, UINT64_C(1) << 40, INT64_MAX,
                                     UINT64_MAX};
    struct fixture *f = *state;
    char text[WEBSOCKET_TEXT_MAX + 1];
    struct client *c;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        c = connect_socket(f);
        send_header(c, FIN | BINARY, sizes[i], MASKED);
        client_send(c, "x", 1);
        expect_close(c, sizes[i] > INT64_MAX ? 1002 : 1009);
    }
    memset(text, 'x', sizeof(text));
    c = connect_socket(f);
    send_frame(c, FIN | TEXT, text, sizeof(text) - 1);
    expect_frame(c, FIN | TEXT, text, sizeof(text) - 1);
    send_frame(c, FIN | TEXT, text, sizeof(text));
    expect_close(c, 1009);
    assert_int_equal(f->socket_texts, 1); /* of the long one not even the part that fits */
    /* A text that never ends, in the smallest pieces. */
    c = connect_socket(f);
    send_frame(c, TEXT, "x", 1);
    for (unsigned i = 0; i < WEBSOCKET_TEXT_MAX; i++)
        send_frame(c, CONTINUATION, "x", 1);
    expect_close(c, 1009);
    assert_int_equal(f->socket_text_max, WEBSOCKET_TEXT_MAX);
}

/* Fragments of nothing cost time and no memory; the message ends as it should. */
static void empty_fragments(void **state)
{
    struct client *c = connect_socket(*state);

    send_frame(c, TEXT, "a", 1);
    for (unsigned i = 0; i < 20000; i++)
        send_frame(c, CONTINUATION, "", 0);
    send_frame(c, FIN | CONTINUATION, "b", 1);
    expect_frame(c, FIN | TEXT, "ab", 2);
    client_free(c);
}

/* A client that floods and reads nothing is not read from any more, and cut in the end. */
static void floods_of(struct fixture *f, unsigned first, size_t size)
{
    static const uint8_t zeroes[125];
    uint8_t frame[6 + 125] = {(uint8_t)first, (uint8_t)(MASKED | size)};
    struct client *c = connect_socket(f);
    unsigned stuck = 0, closes = f->closes;
    uint64_t sent = 0;

    memcpy(frame + 6, zeroes, size);
    while (stuck < 200) {
        size_t n = client_push(c, frame, 6 + size);
        assert_true(n == 0 || n == 6 + size);
        sent += n;
        stuck = n == 0 ? stuck + 1 : 0;
        turn(f);
    }
    /* What the sockets, the input and the queue hold, twice over. */
    assert_true(sent < 2 * (HTTP_REPLY_QUEUE_MAX * 20 + HTTP_INPUT_BYTES_MAX + (1u << 20)));
    turn_until(f, f->closes > closes);
    client_free(c);
}

static void a_flood_of_pings(void **state)
{
    floods_of(*state, FIN | PING, 125);
    floods_of(*state, FIN | PING, 0);
}

static void a_flood_of_bytes(void **state)
{
    floods_of(*state, FIN | BINARY, 125);
}

/* The owner's side: it sends as the client takes, and one that takes nothing is cut. */
static void the_queue_is_bounded(void **state)
{
    struct fixture *f = *state;
    struct client *c = connect_socket(f);

    send_line(c, "flood");
    for (unsigned i = 0; i < 500; i++) {
        const struct frame *frame = next_frame(c);
        assert_int_equal(frame->size, 8000);
    }
    assert_true(f->queue_peak < 128 * KIB + 9000);
    send_line(c, "and on");
    expect_frame(c, FIN | TEXT, "and on", 6);
    send_line(c, "flood");
    turn_until(f, f->closes == 1);
    client_free(c);
}

static void the_owner_closes(void **state)
{
    struct client *c = connect_socket(*state);

    send_line(c, "bye");
    send_line(c, "not heard any more");
    const struct frame *frame = next_frame(c);
    assert_int_equal(frame->first, FIN | CLOSE);
    assert_memory_equal(frame->data,
                        "\x03\xf3"
                        "as you like",
                        13);
    client_wait_eof(c);
    client_free(c);
    assert_int_equal(((struct fixture *)*state)->socket_text_max, 3);
}

/* One that we do not read from has no other way to keep the loop busy either. */
static void bytes_out_of_band(void **state)
{
    static const uint8_t zeroes[4000];
    struct fixture *f = *state;
    struct client *c = connect_socket(f);

    f->socket_mute = true;
    send_frame(c, FIN | BINARY, "abc", 3);
    expect_frame(c, FIN | BINARY, "abc", 3);
    for (size_t sent = 0; sent < 2 * HTTP_INPUT_BYTES_MAX; sent += sizeof(zeroes))
        send_frame(c, FIN | BINARY, zeroes, sizeof(zeroes));
    turn_to_rest(f);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(send(c->fd, "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
        turn_to_rest(f);
    }
    assert_int_equal(f->closes, 0);
    client_free(c);
    turn_until(f, f->closes == 1);
}

static void clients_that_vanish(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 3; i++) {
        struct client *c = connect_socket(f);
        if (i == 1)
            send_header(c, FIN | BINARY, 1000, MASKED);
        if (i == 2) {
            f->socket_mute = true;
            send_frame(c, FIN | BINARY, "abc", 3);
            expect_frame(c, FIN | BINARY, "abc", 3);
        }
        client_free(c);
        turn_until(f, f->closes == i + 1);
    }
    /* Half closed is the same: nothing could be said any more. */
    f->socket_mute = false;
    struct client *c = connect_socket(f);
    (void)shutdown(c->fd, SHUT_WR);
    client_wait_eof(c);
    client_free(c);
}

static void silent_clients_are_asked(void **state)
{
    struct fixture *f = *state;

    f->ping_ms = 50;
    struct client *c = connect_socket(f);
    for (unsigned i = 0; i < 3; i++) {
        expect_frame(c, FIN | PING, "", 0);
        send_frame(c, FIN | PONG, "", 0);
    }
    assert_int_equal(f->closes, 0);
    expect_frame(c, FIN | PING, "", 0);
    client_wait_eof(c); /* it did not answer */
    client_free(c);
}

static void a_stop_ends_it(void **state)
{
    struct fixture *f = *state;
    struct client *c = connect_socket(f);

    server_stop(f->server, 20, on_fixture_stopped, f);
    client_wait_eof(c);
    client_free(c);
    turn_until(f, f->stopped);
}

/* Frames of random kinds, lengths and content, some of them legal: the server outlives them all. */
static void random_frames(void **state)
{
    static const unsigned sizes[] = {0, 1, 2, 125, 126, 127, 4096, 5000, 70000};
    static uint8_t data[70000];
    struct fixture *f = *state;
    unsigned seed = 1;

    for (unsigned round = 0; round < 300; round++) {
        struct client *c = connect_socket(f);
        for (unsigned i = 0; i < 8; i++) {
            size_t size = sizes[(unsigned)rand_r(&seed) % 9];
            for (size_t k = 0; k < 64 && k < size; k++)
                data[k] = (uint8_t)rand_r(&seed);
            unsigned first = (unsigned)rand_r(&seed) % 4 == 0 ? (unsigned)rand_r(&seed) & 0xff
                                                              : FIN | (unsigned)rand_r(&seed) % 3;
            send_header(c, first, size, rand_r(&seed) % 16 == 0 ? 0 : MASKED);
            (void)client_push(c, data, size);
            turn(f);
        }
        client_free(c);
    }
    turn_until(f, f->closes == f->calls);
}

#define SOCKET_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SOCKET_TEST(messages_go_both_ways), SOCKET_TEST(a_mask_is_taken_off),
        SOCKET_TEST(slow_clients),          SOCKET_TEST(handshakes_that_are_wrong),
        SOCKET_TEST(broken_frames),         SOCKET_TEST(lengths_past_the_limits),
        SOCKET_TEST(empty_fragments),       SOCKET_TEST(a_flood_of_pings),
        SOCKET_TEST(a_flood_of_bytes),      SOCKET_TEST(the_queue_is_bounded),
        SOCKET_TEST(the_owner_closes),      SOCKET_TEST(bytes_out_of_band),
        SOCKET_TEST(clients_that_vanish),   SOCKET_TEST(silent_clients_are_asked),
        SOCKET_TEST(a_stop_ends_it),        SOCKET_TEST(random_frames),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
