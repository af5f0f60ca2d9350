/* GET .../files with a Range header: what the guest is asked for, and what the client gets. */
#include "api_fixture.h"

#define FILES "/v1/sandboxes/sb_1/files"

static uint32_t take_range(struct fixture *f, uint64_t offset, uint64_t length, const char *path)
{
    uint32_t s = take_open(f);
    struct wire_reader r;

    wire_reader_init(&r, f->frame.payload, f->frame.h.length);
    assert_int_equal(wire_get_u16(&r), CHANNEL_OP_READ);
    assert_true(wire_get_u64(&r) == offset);
    assert_true(wire_get_u64(&r) == length);
    assert_string_equal(next_string(&r), path);
    assert_true(!r.bad && r.left == 0);
    return s;
}

static void get_range(struct fixture *f, const char *headers)
{
    char text[512];

    connect_client(f);
    int length = snprintf(text, sizeof(text), "GET " FILES "?path=/a HTTP/1.1\r\nHost: x\r\n%s\r\n",
                          headers);
    client_send(f, text, (size_t)length);
}

static bool head_has(struct fixture *f, const char *line)
{
    assert_non_null(reply_body(f));
    return strstr((const char *)buffer_bytes(&f->reply), line) != NULL;
}

/* "0123456789" from `offset` on. */
static void serve_digits(struct fixture *f, uint32_t s, uint64_t offset, size_t size)
{
    fake_range_info(&f->agent, s, 10, 0644, offset);
    if (size > 0)
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, &"0123456789"[offset], size);
    fake_send(&f->agent, CHANNEL_EOF, s, CHANNEL_LANE_IN, NULL, 0);
    fake_file_end(&f->agent, s, size);
}

static void test_get_ranges(void **state)
{
    static const struct {
        const char *header;
        uint64_t offset, length; /* as the guest is asked */
        uint64_t at;
        const char *content_range, *body;
    } cases[] = {
        {"Range: bytes=2-4\r\n", 2, 3, 2, "Content-Range: bytes 2-4/10\r\n", "234"},
        {"range: Bytes=7-\r\n", 7, UINT64_MAX, 7, "Content-Range: bytes 7-9/10\r\n", "789"},
        {"Range: bytes=8-99\r\n", 8, 92, 8, "Content-Range: bytes 8-9/10\r\n", "89"},
        {"Range: bytes=-3\r\n", UINT64_MAX, 3, 7, "Content-Range: bytes 7-9/10\r\n", "789"},
        {"Range: bytes=-30\r\n", UINT64_MAX, 30, 0, "Content-Range: bytes 0-9/10\r\n",
         "0123456789"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        get_range(f, cases[i].header);
        uint32_t s = take_range(f, cases[i].offset, cases[i].length, "/a");
        serve_digits(f, s, cases[i].at, strlen(cases[i].body));
        assert_string_equal(reply_body(f), cases[i].body);
        assert_int_equal(reply_status(f), 206);
        assert_true(head_has(f, cases[i].content_range));
        assert_true(head_has(f, "Accept-Ranges: bytes\r\n"));
        assert_false(f->client_eof);
    }
}

static void test_get_ranges_that_are_none(void **state)
{
    static const char *const ignored[] = {
        "Range: bytes=0-1,4-5\r\n",
        "Range: bytes=4-2\r\n",
        "Range: lines=1-2\r\n",
        "Range: bytes=a-b\r\n",
        "Range: bytes=0-1\r\nIf-Range: \"x\"\r\n",
    };
    static const struct {
        const char *header;
        uint64_t offset, length;
        uint64_t at;
    } beyond[] = {{"Range: bytes=10-\r\n", 10, UINT64_MAX, 10},
                  {"Range: bytes=99-100\r\n", 99, 2, 10},
                  {"Range: bytes=-0\r\n", UINT64_MAX, 0, 10}};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++) {
        get_range(f, ignored[i]);
        serve_digits(f, take_range(f, 0, UINT64_MAX, "/a"), 0, 10);
        assert_string_equal(reply_body(f), "0123456789");
        assert_int_equal(reply_status(f), 200);
        assert_false(head_has(f, "Content-Range"));
    }
    for (size_t i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
        get_range(f, beyond[i].header);
        serve_digits(f, take_range(f, beyond[i].offset, beyond[i].length, "/a"), beyond[i].at, 0);
        assert_true(head_has(f, "Content-Range: bytes */10\r\n"));
        expect_error(f, 416, "range_not_satisfiable", "10 bytes");
    }
    assert_true(f->sandbox.alive);
}

/* The guest may have known no size, and a hostile one may say anything. */
static void test_get_range_of_what_has_no_size(void **state)
{
    struct fixture *f = *state;

    get_range(f, "Range: bytes=2-4\r\n");
    serve_digits(f, take_range(f, 2, 3, "/a"), 0, 10);
    assert_string_equal(reply_body(f), "0123456789");
    assert_int_equal(reply_status(f), 200);

    get_range(f, "Range: bytes=0-4\r\n");
    uint32_t s = take_range(f, 0, 5, "/a");
    fake_range_info(&f->agent, s, 10, 0644, 0);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, "0123456789", 10);
    assert_string_equal(reply_body(f), "01234");
    assert_int_equal(reply_status(f), 206);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));

    get_range(f, "Range: bytes=2-4\r\n");
    s = take_range(f, 2, 3, "/a");
    fake_range_info(&f->agent, s, 10, 0644, 2);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, "2", 1);
    fake_send(&f->agent, CHANNEL_EOF, s, CHANNEL_LANE_IN, NULL, 0);
    fake_file_end(&f->agent, s, 1);
    (void)reply_body(f);
    assert_true(f->client_eof);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        API_TEST(test_get_ranges),
        API_TEST(test_get_ranges_that_are_none),
        API_TEST(test_get_range_of_what_has_no_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
