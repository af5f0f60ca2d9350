/* GET .../files/watch against an agent that may say anything, and clients of any pace. */
#include "api_fixture.h"

#include "daemon/link/file_event.h"

#define WATCH "/v1/sandboxes/sb_1/files/watch"

static uint32_t take_watch(struct fixture *f, uint32_t flags, const char *path)
{
    uint32_t s = take_open(f);
    struct wire_reader r;

    wire_reader_init(&r, f->frame.payload, f->frame.h.length);
    assert_int_equal(wire_get_u16(&r), CHANNEL_OP_WATCH);
    assert_int_equal(wire_get_u32(&r), flags);
    assert_string_equal(next_string(&r), path);
    assert_true(!r.bad && r.left == 0);
    return s;
}

static void put_event(struct wire_writer *w, uint32_t kind, uint32_t is_directory, const char *path,
                      const char *from)
{
    wire_put_u32(w, kind);
    wire_put_u32(w, is_directory);
    wire_put_string(w, path, strlen(path));
    wire_put_string(w, from, strlen(from));
    assert_false(w->bad);
}

static void send_bytes(struct fixture *f, uint32_t s, const uint8_t *bytes, size_t size)
{
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, bytes, size);
}

static void send_end(struct fixture *f, uint32_t s, uint64_t size)
{
    uint8_t payload[32];
    struct wire_writer w;

    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u32(&w, 0);
    wire_put_string(&w, "", 0);
    wire_put_u64(&w, size);
    wire_put_u32(&w, 0);
    fake_send(&f->agent, CHANNEL_EOF, s, CHANNEL_LANE_IN, NULL, 0);
    fake_send(&f->agent, CHANNEL_END, s, 0, payload, w.used);
}

static uint32_t start(struct fixture *f)
{
    request(f, "GET", WATCH "?path=/w", NULL, "", 0);
    uint32_t s = take_watch(f, 0, "/w");
    assert_int_equal(reply_status(f), 0);
    fake_send(&f->agent, CHANNEL_INFO, s, 0, NULL, 0);
    return s;
}

static void expect_lines(struct fixture *f, const char *lines, bool is_whole)
{
    size_t size;
    bool whole = false;
    char *text = NULL;

    for (unsigned i = 0; i < 20; i++) {
        free(text);
        turn(f);
        text = reply_chunks(f, &size, &whole);
    }
    assert_string_equal(text, lines);
    assert_int_equal(whole, is_whole);
    free(text);
}

static void test_events(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[512];
    struct wire_writer w;

    request(f, "GET", WATCH "?path=/w/&recursive=true", NULL, "", 0);
    uint32_t s = take_watch(f, CHANNEL_WATCH_TREE, "/w");
    fake_send(&f->agent, CHANNEL_INFO, s, 0, NULL, 0);
    expect_lines(f, "{\"type\":\"watching\"}\n", false);
    assert_non_null(strstr((char *)buffer_bytes(&f->reply), "application/x-ndjson"));

    wire_writer_init(&w, bytes, sizeof(bytes));
    put_event(&w, CHANNEL_EVENT_CREATED, 1, "/w/a", "");
    wire_put_u32(&w, 0);
    put_event(&w, CHANNEL_EVENT_MOVED, 0, "/w/b\n", "/w/\xff");
    put_event(&w, CHANNEL_EVENT_OVERFLOW, 0, "", "");
    for (size_t i = 0; i < w.used; i++) /* cut anywhere */
        send_bytes(f, s, bytes + i, 1);
    send_end(f, s, w.used);
    expect_lines(f,
                 "{\"type\":\"watching\"}\n"
                 "{\"type\":\"created\",\"path\":\"/w/a\",\"directory\":true}\n"
                 "{\"type\":\"moved\",\"path\":\"/w/b\\n\",\"from_base64\":\"L3cv/w==\","
                 "\"directory\":false}\n"
                 "{\"type\":\"overflow\"}\n",
                 true);
}

static void test_refusals(void **state)
{
    struct fixture *f = *state;

    request(f, "GET", WATCH "?path=/w&recursive=1", NULL, "", 0);
    expect_error(f, 400, "invalid_field", "recursive");
    request(f, "GET", WATCH "?path=w", NULL, "", 0);
    expect_error(f, 400, "invalid_path", "w");
    request(f, "GET", WATCH "?path=/w", NULL, "", 0);
    fake_failed(&f->agent, take_watch(f, 0, "/w"), ENOTDIR, "");
    expect_error(f, 422, "file_refused", "watch \"/w\"");
    request(f, "GET", WATCH "?path=/w", NULL, "", 0);
    fake_failed(&f->agent, take_watch(f, 0, "/w"), EMFILE, "");
    expect_error(f, 429, "too_many", "watch \"/w\"");
}

static void test_hostile_events(void **state)
{
    static const struct {
        uint32_t kind, is_directory;
        const char *path, *from;
    } cases[] = {
        {6, 0, "/a", ""},
        {CHANNEL_EVENT_CREATED, 2, "/a", ""},
        {CHANNEL_EVENT_CREATED, 0, "", ""},
        {CHANNEL_EVENT_CREATED, 0, "a", ""},
        {CHANNEL_EVENT_CREATED, 0, "/a", "/b"},
        {CHANNEL_EVENT_MOVED, 0, "/a", ""},
        {CHANNEL_EVENT_MOVED, 0, "/a", "b"},
        {CHANNEL_EVENT_OVERFLOW, 0, "/a", ""},
    };
    static const uint8_t endless[FILE_EVENT_BYTES_MAX] = {1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 1};
    struct fixture *f = *state;
    uint8_t bytes[512];
    struct wire_writer w;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t s = start(f);

        wire_writer_init(&w, bytes, sizeof(bytes));
        put_event(&w, cases[i].kind, cases[i].is_directory, cases[i].path, cases[i].from);
        send_bytes(f, s, bytes, w.used);
        expect_lines(f, "{\"type\":\"watching\"}\n", false);
        assert_true(f->client_eof);
        assert_false(f->sandbox.alive);
        give_agent(f);
    }
    uint32_t s = start(f);
    send_bytes(f, s, bytes, w.used - 1);
    send_end(f, s, w.used - 1);
    expect_lines(f, "{\"type\":\"watching\"}\n", false);
    assert_true(f->client_eof);
    give_agent(f);
    s = start(f);
    send_bytes(f, s, endless, sizeof(endless));
    expect_lines(f, "{\"type\":\"watching\"}\n", false);
    assert_true(f->client_eof);
    assert_false(f->sandbox.alive);
}

static void test_client_leaves(void **state)
{
    struct fixture *f = *state;

    (void)start(f);
    fd_close(&f->client_fd);
    for (unsigned i = 0; i < 20; i++)
        turn(f);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    assert_true(f->sandbox.alive);
}

/* A client that does not read stops the guest, and gets everything when it does. */
static void test_back_pressure(void **state)
{
    static uint8_t bytes[30000];
    struct fixture *f = *state;
    uint64_t credit = CHANNEL_WINDOW_BYTES, sent = 0;
    struct wire_writer w;
    unsigned stuck = 0;
    size_t count = 0;

    uint32_t s = start(f);
    int client_fd = f->client_fd;
    f->client_fd = -1;
    wire_writer_init(&w, bytes, sizeof(bytes));
    for (; w.left >= 100; count++)
        put_event(&w, CHANNEL_EVENT_MODIFIED, 0, "/a/file/that/is/changed/all/the/time", "");
    while (stuck < 100) {
        while (fake_recv(&f->agent, &f->frame))
            credit += credit_of(&f->frame);
        stuck++;
        if (credit < w.used)
            continue;
        send_bytes(f, s, bytes, w.used);
        credit -= w.used;
        sent += w.used;
        stuck = 0;
        assert_true(sent < 4 * MIB);
    }
    send_end(f, s, sent);
    f->client_fd = client_fd;
    size_t size = 0;
    bool whole = false;
    char *text = NULL;
    for (unsigned i = 0; i < 1000 && !whole; i++) {
        free(text);
        text = reply_chunks(f, &size, &whole);
    }
    assert_true(whole);
    size_t lines = 0;
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    assert_int_equal(lines, 1 + sent / w.used * count);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        API_TEST(test_events),        API_TEST(test_refusals),      API_TEST(test_hostile_events),
        API_TEST(test_client_leaves), API_TEST(test_back_pressure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
