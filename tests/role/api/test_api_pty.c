/* Terminals over WebSockets: started, attached to, typed at, sized, left alone. */
#include "api_fixture.h"

#define PTY "/v1/sandboxes/sb_1/pty"
#define UPGRADE                                                                                    \
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"                   \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

enum { TEXT = 0x81, BINARY = 0x82, CLOSE = 0x88 };

static void ask(struct fixture *f, const char *query)
{
    char head[1024];

    connect_client(f);
    int size =
        snprintf(head, sizeof(head), "GET %s%s HTTP/1.1\r\nHost: x\r\n%s\r\n", PTY, query, UPGRADE);
    client_send(f, head, (size_t)size);
    turn(f);
}

/* The mask is one that changes nothing. */
static void send_frame(struct fixture *f, unsigned first, const void *data, size_t size)
{
    uint8_t header[8] = {(uint8_t)first, (uint8_t)(0x80 | size)};
    size_t used = 2;

    if (size >= 126) {
        header[1] = 0x80 | 126;
        header[used++] = (uint8_t)(size >> 8);
        header[used++] = (uint8_t)size;
    }
    client_send(f, header, used + 4);
    client_send(f, data, size);
    turn(f);
}

static void send_text(struct fixture *f, const char *text)
{
    send_frame(f, TEXT, text, strlen(text));
}

static bool has_come(const struct fixture *f, const char *text)
{
    return f->reply.size > 0 &&
           memmem(buffer_bytes(&f->reply), f->reply.size, text, strlen(text)) != NULL;
}

static void expect_shown(struct fixture *f, const char *text)
{
    for (unsigned i = 0; i < 20 && !has_come(f, text); i++)
        turn(f);
    if (!has_come(f, text))
        fail_msg("no \"%s\" in: %.*s", text, (int)f->reply.size, (char *)f->reply.data);
}

/* A terminal that runs as `pid`; returns its stream. */
static uint32_t start(struct fixture *f, uint32_t pid)
{
    ask(f, "?arg=x");
    uint32_t s = take_open(f);
    assert_int_equal(reply_status(f), 0); /* no answer before it has started */
    fake_exec_info(&f->agent, s, pid);
    expect_shown(f, "{\"type\":\"start\",\"pid\":7,\"command\":\"x\"}");
    assert_int_equal(reply_status(f), 101);
    return s;
}

static void leave(struct fixture *f)
{
    fd_close(&f->client_fd);
    fake_spin(&f->agent);
}

static void expect_request(struct fixture *f, const char *query, uint16_t rows, uint16_t columns,
                           const char *const *strings)
{
    struct wire_reader r;

    ask(f, query);
    (void)take_open(f);
    wire_reader_init(&r, f->frame.payload, f->frame.h.length);
    assert_int_equal(wire_get_u16(&r), CHANNEL_OP_EXEC);
    assert_int_equal(wire_get_u32(&r), CHANNEL_EXEC_STDIN | CHANNEL_EXEC_PTY);
    assert_int_equal(wire_get_u16(&r), rows);
    assert_int_equal(wire_get_u16(&r), columns);
    assert_int_equal(wire_get_u32(&r), CHANNEL_UMASK_DEFAULT);
    assert_string_equal(next_string(&r), strings[0]);
    assert_string_equal(next_string(&r), strings[1]);
    assert_int_equal(wire_get_u32(&r), 0); /* limits */
    assert_int_equal(wire_get_u32(&r), 2);
    assert_string_equal(next_string(&r), strings[2]);
    assert_string_equal(next_string(&r), strings[3]);
    assert_int_equal(wire_get_u32(&r), 3);
    assert_string_equal(next_string(&r), "PATH=/bin");
    assert_string_equal(next_string(&r), "LAYER=sandbox");
    assert_string_equal(next_string(&r), strings[4]);
    leave(f);
}

static void test_requests(void **state)
{
    static const char *const shell[] = {"", "/workspace", "/bin/sh", "-l", "TERM=xterm-256color"};
    static const char *const all[] = {"me", "/tmp", "a b", "", "TERM=dumb"};

    expect_request(*state, "", 24, 80, shell);
    expect_request(*state, "?rows=3&cols=4096&user=me&cwd=%2Ftmp&term=dumb&arg=a%20b&arg=", 3, 4096,
                   all);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *query;
        int status;
        const char *code;
        const char *words;
    } cases[] = {
        {"?rows=0", 400, "invalid_field", "rows"},
        {"?cols=4097", 400, "invalid_field", "cols"},
        {"?rows=-1", 400, "invalid_field", "rows"},
        {"?rows=", 400, "invalid_field", "rows"},
        {"?rows=99999999999999999999", 400, "invalid_field", "rows"},
        {"?rows=1&rows=1", 400, "invalid_field", "rows"},
        {"?pid=0", 400, "invalid_field", "pid"},
        {"?pid=1&arg=x", 400, "invalid_field", "pid"},
        {"?pid=1&term=x", 400, "invalid_field", "pid"},
        {"?pid=1", 404, "process_not_found", "1"},
        {"?cwd=here", 400, "invalid_field", "cwd"},
        {"?arg=", 400, "invalid_field", "argv"},
        {"?env=x", 400, "unknown_field", "env"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ask(f, cases[i].query);
        expect_error(f, cases[i].status, cases[i].code, cases[i].words);
    }
    request(f, "GET", PTY, NULL, "", 0);
    expect_error(f, 426, "upgrade_required", "WebSocket");
    assert_true(has_come(f, "\r\nUpgrade: websocket\r\n"));
    request(f, "GET", "/v1/sandboxes/sb_2/pty", NULL, "", 0);
    expect_error(f, 426, "upgrade_required", "WebSocket");
    assert_false(fake_recv(&f->agent, &f->frame)); /* nothing was started */
}

static void test_failures_before_the_start(void **state)
{
    struct fixture *f = *state;

    ask(f, "?arg=x");
    fake_failed(&f->agent, take_open(f), ENOENT, "exec x: not found in PATH");
    turn(f);
    expect_error(f, 422, "command_not_started", "\"x\"");

    /* A client that goes meanwhile takes it along: nobody has learnt of it. */
    ask(f, "?arg=x");
    uint32_t s = take_open(f);
    leave(f);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    assert_int_equal(f->frame.h.stream, s);
    fake_failed(&f->agent, s, ECANCELED, "the host gave up");

    ask(f, "?arg=x");
    (void)take_open(f);
    end_sandbox(&f->sandbox);
    turn(f);
    expect_error(f, 410, "sandbox_gone", "before the command");
}

static void test_bytes_both_ways_and_the_end(void **state)
{
    struct fixture *f = *state;
    uint32_t s = start(f, 7);

    fake_send(&f->agent, CHANNEL_EOF, s, CHANNEL_LANE_ERR, NULL, 0);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "\x1b[1m\xff$ ", 7);
    expect_shown(f, "\x82\x07\x1b[1m\xff$ ");
    send_frame(f, BINARY, "\x03\x7f", 2);
    assert_true(fake_expect(&f->agent, CHANNEL_DATA, &f->frame));
    assert_int_equal(f->frame.h.length, 2);
    assert_memory_equal(f->frame.payload, "\x03\x7f", 2);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 3);
    expect_shown(f, "{\"type\":\"end\",\"end\":\"exited\",\"exit_code\":3,\"signal\":null,");
    expect_shown(f, "\x03\xe8the command has ended");
    leave(f);
    /* And so for those who come later. */
    ask(f, "?pid=7");
    expect_shown(f, "\x1b[1m\xff$ ");
    expect_shown(f, "\"exit_code\":3");
    send_frame(f, BINARY, "x", 1);
    assert_false(fake_recv(&f->agent, &f->frame));
}

static void test_messages(void **state)
{
    static const uint8_t size[4] = {9, 0, 0x2c, 1};
    struct fixture *f = *state;
    struct {
        const char *text, *answer;
    } wrong[] = {
        {"{\"type\":\"resize\",\"rows\":1}", "without rows or cols"},
        {"{\"type\":\"resize\",\"rows\":0,\"cols\":1}", "rows"},
        {"{\"type\":\"dance\"}", "dance"},
        {"{\"type\":1}", "type"},
        {"{}", "type"},
        {"{\"type\":\"resize\",\"rows\":1,\"cols\":1,\"x\":1}", "unknown_field"},
        {"{", "invalid_json"},
        {"", "type"},
    };

    (void)start(f, 7);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        buffer_consume(&f->reply, f->reply.size);
        send_text(f, wrong[i].text);
        expect_shown(f, "{\"type\":\"error\",\"error\":{\"code\":");
        expect_shown(f, wrong[i].answer);
    }
    assert_false(fake_recv(&f->agent, &f->frame));
    send_text(f, "{\"type\":\"resize\",\"rows\":9,\"cols\":300}");
    assert_true(fake_recv(&f->agent, &f->frame));
    assert_int_equal(f->frame.h.type, CHANNEL_RESIZE);
    assert_memory_equal(f->frame.payload, size, sizeof(size));
}

static void test_it_outlives_its_clients(void **state)
{
    struct fixture *f = *state;
    uint32_t s = start(f, 7);

    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "before", 6);
    leave(f);
    assert_false(fake_recv(&f->agent, &f->frame)); /* no RESET */
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "meanwhile", 9);
    ask(f, "?pid=7&rows=2&cols=3");
    expect_shown(f, "\"pid\":7");
    expect_shown(f, "beforemeanwhile");
    assert_true(fake_recv(&f->agent, &f->frame));
    assert_int_equal(f->frame.h.type, CHANNEL_RESIZE);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "after", 5);
    expect_shown(f, "after");
    end_sandbox(&f->sandbox);
    expect_shown(f, "\"end\":\"sandbox_gone\"");
}

static void test_several_clients(void **state)
{
    struct fixture *f = *state;
    uint32_t s = start(f, 7);
    int first = f->client_fd;
    char seen[256] = "";

    f->client_fd = -1;
    ask(f, "?pid=7");
    expect_shown(f, "\"pid\":7");
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "to both", 7);
    expect_shown(f, "to both");
    ssize_t n = recv(first, seen, sizeof(seen) - 1, MSG_DONTWAIT);
    assert_true(n > 0 && memmem(seen, (size_t)n, "to both", 7) != NULL);
    send_frame(f, BINARY, "second", 6);
    assert_true(fake_expect(&f->agent, CHANNEL_DATA, &f->frame));
    assert_memory_equal(f->frame.payload, "second", 6);
    assert_int_equal(send(first, "\x82\x85\0\0\0\0first", 11, MSG_NOSIGNAL), 11);
    turn(f);
    assert_true(fake_expect(&f->agent, CHANNEL_DATA, &f->frame));
    assert_memory_equal(f->frame.payload, "first", 5);
    (void)close(first);
    turn(f);
    send_frame(f, BINARY, "still", 5);
    assert_true(fake_expect(&f->agent, CHANNEL_DATA, &f->frame));
    assert_memory_equal(f->frame.payload, "still", 5);
}

/* What closes stdin closes it for everybody: what is typed afterwards goes nowhere. */
static void test_stdin_is_closed_by_another(void **state)
{
    struct fixture *f = *state;
    uint32_t s = start(f, 7);
    int first = f->client_fd;

    f->client_fd = -1;
    request(f, "POST", "/v1/sandboxes/sb_1/processes/7/stdin?close=true", NULL, "bye", 3);
    cJSON_Delete(reply_json(f, 200));
    assert_true(fake_expect(&f->agent, CHANNEL_DATA, &f->frame));
    assert_memory_equal(f->frame.payload, "bye", 3);
    assert_true(fake_expect(&f->agent, CHANNEL_EOF, &f->frame));
    fd_close(&f->client_fd);
    f->client_fd = first;
    buffer_consume(&f->reply, f->reply.size);
    send_frame(f, BINARY, "too late", 8);
    assert_false(fake_recv(&f->agent, &f->frame));
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "logout", 6);
    expect_shown(f, "logout");
}

/* A guest that reads nothing holds its client back, and gets every byte when it reads on. */
static void test_a_guest_that_reads_nothing(void **state)
{
    static uint8_t piece[4000];
    struct fixture *f = *state;
    uint32_t s = start(f, 7);
    size_t pushed = 0, got = 0, waiting = CHANNEL_WINDOW_BYTES;
    uint8_t header[8] = {BINARY, 0x80 | 126, sizeof(piece) >> 8, sizeof(piece) & 0xff};

    for (unsigned stuck = 0; stuck < 100;) {
        struct iovec parts[] = {{header, sizeof(header)}, {piece, sizeof(piece)}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        for (size_t i = 0; i < sizeof(piece); i++)
            piece[i] = (uint8_t)((pushed + i) * 7);
        ssize_t n = sendmsg(f->client_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        assert_true(n < 0 || n == (ssize_t)(sizeof(header) + sizeof(piece)));
        stuck = n < 0 ? stuck + 1 : 0;
        pushed += n < 0 ? 0 : sizeof(piece);
        (void)uv_run(&f->loop, UV_RUN_NOWAIT);
        assert_true(pushed < 8 * MIB);
    }
    while (got < pushed) {
        if (!fake_recv(&f->agent, &f->frame)) {
            assert_int_equal(waiting, 0);
            fake_send_u32(&f->agent, CHANNEL_CREDIT, s, CHANNEL_LANE_IN, CHANNEL_WINDOW_BYTES);
            waiting = CHANNEL_WINDOW_BYTES;
            continue;
        }
        assert_int_equal(f->frame.h.type, CHANNEL_DATA);
        for (size_t i = 0; i < f->frame.h.length; i++)
            assert_int_equal(f->frame.payload[i], (uint8_t)((got + i) * 7));
        got += f->frame.h.length;
        waiting -= f->frame.h.length;
    }
    assert_int_equal(got, pushed);
    assert_true(got > CHANNEL_WINDOW_BYTES);
}

/* The command writes until it gets no more credit; returns how much that was. */
static size_t write_all(struct fixture *f, uint32_t s)
{
    static const uint8_t output[32 * KIB];
    size_t credit = CHANNEL_WINDOW_BYTES, sent = 0;

    for (unsigned dry = 0; dry < 50;) {
        if (credit >= sizeof(output)) {
            fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, output, sizeof(output));
            credit -= sizeof(output);
            sent += sizeof(output);
        }
        if (fake_recv(&f->agent, &f->frame)) {
            credit += credit_of(&f->frame);
            dry = 0;
        } else if (credit < sizeof(output)) {
            dry++;
        }
        assert_true(sent < 16 * MIB);
    }
    return sent;
}

/* A client that reads nothing holds the guest back: it gets no more credit than the ring has room
 * for. */
static void test_a_client_that_reads_nothing(void **state)
{
    struct fixture *f = *state;
    uint32_t s = start(f, 7);
    int client = f->client_fd;

    f->client_fd = -1;
    (void)write_all(f, s);
    /* When it goes the guest goes on. */
    (void)close(client);
    turn(f);
    assert_true(fake_expect(&f->agent, CHANNEL_CREDIT, &f->frame));
}

/* And when it reads again it misses nothing. */
static void test_a_client_that_reads_on(void **state)
{
    struct fixture *f = *state;
    uint32_t s = start(f, 7);
    int client = f->client_fd;

    f->client_fd = -1;
    size_t sent = write_all(f, s);
    f->client_fd = client;
    while (f->reply.size < sent)
        turn(f);
    assert_true(fake_expect(&f->agent, CHANNEL_CREDIT, &f->frame));
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 3);
    expect_shown(f, "\"exit_code\":3");
    assert_false(has_come(f, "\"missed\""));
}

/* Who comes late is told how much is not kept any more, before what is. */
static void test_a_client_that_comes_late(void **state)
{
    static const uint8_t output[32 * KIB];
    struct fixture *f = *state;
    uint32_t s = start(f, 7);
    size_t credit = CHANNEL_WINDOW_BYTES, sent = 0;
    char wanted[64];

    leave(f);
    while (sent < 2 * PROCESS_RING_BYTES_MIN) {
        while (credit < sizeof(output)) {
            assert_true(fake_recv(&f->agent, &f->frame));
            credit += credit_of(&f->frame);
        }
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, output, sizeof(output));
        credit -= sizeof(output);
        sent += sizeof(output);
    }
    ask(f, "?pid=7");
    (void)snprintf(wanted, sizeof(wanted), "{\"type\":\"missed\",\"bytes\":%llu}\x82",
                   (unsigned long long)(sent - PROCESS_RING_BYTES_MIN));
    expect_shown(f, wanted);
}

static void test_not_a_terminal(void **state)
{
    struct fixture *f = *state;

    request_json(f, "/v1/sandboxes/sb_1/exec", NULL, "{\"shell\":\"x\",\"background\":true}");
    fake_exec_info(&f->agent, take_open(f), 8);
    turn(f);
    assert_int_equal(reply_status(f), 201);
    ask(f, "?pid=8");
    expect_error(f, 409, "conflict", "8 has no terminal");
}

#define PTY_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PTY_TEST(test_requests),
        PTY_TEST(test_refusals),
        PTY_TEST(test_failures_before_the_start),
        PTY_TEST(test_bytes_both_ways_and_the_end),
        PTY_TEST(test_messages),
        PTY_TEST(test_it_outlives_its_clients),
        PTY_TEST(test_several_clients),
        PTY_TEST(test_stdin_is_closed_by_another),
        PTY_TEST(test_a_guest_that_reads_nothing),
        PTY_TEST(test_a_client_that_reads_nothing),
        PTY_TEST(test_a_client_that_reads_on),
        PTY_TEST(test_a_client_that_comes_late),
        PTY_TEST(test_not_a_terminal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
