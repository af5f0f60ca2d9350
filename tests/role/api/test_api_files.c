/* PUT and GET .../files: content whole or not at all, both ways, whatever guest and client do. */
#include "api_fixture.h"

#define FILES "/v1/sandboxes/sb_1/files"

/* The WRITE that a PUT opens: judges mode and path, returns the stream. */
static uint32_t take_write(struct fixture *f, uint32_t mode, const char *path)
{
    uint32_t s = take_open(f);
    struct wire_reader r;

    wire_reader_init(&r, f->frame.payload, f->frame.h.length);
    assert_int_equal(wire_get_u16(&r), CHANNEL_OP_WRITE);
    assert_int_equal(wire_get_u32(&r), mode);
    assert_string_equal(next_string(&r), path);
    assert_true(!r.bad && r.left == 0);
    return s;
}

static uint32_t take_read(struct fixture *f, const char *path)
{
    uint32_t s = take_open(f);
    struct wire_reader r;

    wire_reader_init(&r, f->frame.payload, f->frame.h.length);
    assert_int_equal(wire_get_u16(&r), CHANNEL_OP_READ);
    assert_int_equal(wire_get_u64(&r), 0);
    assert_true(wire_get_u64(&r) == UINT64_MAX);
    assert_string_equal(next_string(&r), path);
    assert_true(!r.bad && r.left == 0);
    return s;
}

static void test_put(void **state)
{
    struct fixture *f = *state;

    request(f, "PUT", FILES "?path=/w/a%20b&mode=0755", NULL, "abc", 3);
    uint32_t s = take_write(f, 0755, "/w/a b");
    assert_true(fake_recv(&f->agent, &f->frame));
    assert_int_equal(f->frame.h.type, CHANNEL_DATA);
    assert_memory_equal(f->frame.payload, "abc", 3);
    assert_true(fake_expect(&f->agent, CHANNEL_EOF, &f->frame));
    assert_int_equal(reply_status(f), 0);
    fake_file_end(&f->agent, s, 3);
    cJSON *tree = reply_json(f, 201);
    assert_string_equal(json_text(tree, "path"), "/w/a b");
    assert_int_equal(json_number(tree, "size"), 3);
    assert_string_equal(json_text(tree, "sha256"),
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    cJSON_Delete(tree);
}

static void test_put_empty(void **state)
{
    struct fixture *f = *state;

    request(f, "PUT", FILES "?path=/w/empty", NULL, "", 0);
    uint32_t s = take_write(f, 0644, "/w/empty");
    assert_true(fake_recv(&f->agent, &f->frame));
    assert_int_equal(f->frame.h.type, CHANNEL_EOF);
    fake_file_end(&f->agent, s, 0);
    cJSON *tree = reply_json(f, 201);
    assert_int_equal(json_number(tree, "size"), 0);
    cJSON_Delete(tree);
}

/* A large chunked body, with an agent that grants credit in small steps: every byte arrives once.
 */
static void test_put_large_chunked(void **state)
{
    static const char head[] = "PUT " FILES "?path=/big HTTP/1.1\r\nHost: x\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    enum { CHUNKS = 40, CHUNK = 50000 };
    static uint8_t chunk[16 + CHUNK];
    struct fixture *f = *state;
    uint64_t received = 0;
    uint32_t due = 0;
    int fed = 0;

    connect_client(f);
    client_send(f, head, sizeof(head) - 1);
    uint32_t s = take_write(f, 0644, "/big");
    bool is_eof = false;
    int offset = 0, length = 0;
    for (unsigned i = 0; i < 100000 && !is_eof; i++) {
        if (offset == length && fed <= CHUNKS) {
            length = fed < CHUNKS ? snprintf((char *)chunk, sizeof(chunk), "%x\r\n", CHUNK)
                                  : snprintf((char *)chunk, sizeof(chunk), "0\r\n\r\n");
            if (fed < CHUNKS) {
                memset(chunk + length, 'a' + fed % 26, CHUNK);
                memcpy(chunk + length + CHUNK, "\r\n", 2);
                length += CHUNK + 2;
            }
            offset = 0;
            fed++;
        }
        ssize_t n = send(f->client_fd, chunk + offset, (size_t)(length - offset),
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        offset += n > 0 ? (int)n : 0;
        while (fake_recv(&f->agent, &f->frame) && f->frame.h.type == CHANNEL_DATA) {
            for (uint32_t at = 0; at < f->frame.h.length; at++)
                assert_int_equal(f->frame.payload[at], 'a' + (received + at) / CHUNK % 26);
            received += f->frame.h.length;
            due += f->frame.h.length;
            is_eof = false;
            f->frame.h.type = 0;
        }
        is_eof = f->frame.h.type == CHANNEL_EOF;
        if (due > 0 && i % 3 == 0 && !is_eof) {
            fake_send_u32(&f->agent, CHANNEL_CREDIT, s, CHANNEL_LANE_IN, due);
            due = 0;
        }
    }
    assert_true(is_eof);
    assert_int_equal(received, (uint64_t)CHUNKS * CHUNK);
    fake_file_end(&f->agent, s, received);
    cJSON *tree = reply_json(f, 201);
    assert_int_equal(json_number(tree, "size"), CHUNKS * CHUNK);
    cJSON_Delete(tree);
}

/* A guest that takes nothing stops the client instead of filling the daemon. */
static void test_put_back_pressure(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[64 * KIB];
    char head[256];
    size_t sent = 0;

    connect_client(f);
    int length = snprintf(head, sizeof(head),
                          "PUT " FILES "?path=/big HTTP/1.1\r\nHost: x\r\n"
                          "Content-Length: 100000000\r\n\r\n");
    client_send(f, head, (size_t)length);
    (void)take_write(f, 0644, "/big");
    for (unsigned i = 0; i < 500; i++) {
        ssize_t n = send(f->client_fd, block, sizeof(block), MSG_DONTWAIT | MSG_NOSIGNAL);

        sent += n > 0 ? (size_t)n : 0;
        fake_spin(&f->agent);
    }
    assert_true(sent < 2 * MIB);
    fd_close(&f->client_fd);
    for (unsigned i = 0; i < 20; i++)
        turn(f);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
}

static void test_put_failures(void **state)
{
    static const struct {
        uint32_t status;
        int http_status;
        const char *code;
    } cases[] = {{ENOSPC, 507, "disk_full"},    {EDQUOT, 507, "disk_full"},
                 {EISDIR, 422, "file_refused"}, {EROFS, 422, "file_refused"},
                 {EIO, 422, "file_refused"},    {12345, 422, "file_refused"}};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        request(f, "PUT", FILES "?path=/a", NULL, "abc", 3);
        fake_failed(&f->agent, take_open(f), cases[i].status, "");
        expect_error(f, cases[i].http_status, cases[i].code, "/a");
    }
    /* In the middle of a body. */
    request(f, "PUT", FILES "?path=/a", NULL, "", 0);
    fake_agent_fini(&f->agent);
    expect_error(f, 410, "sandbox_gone", "/a");
}

static void test_put_broken_body(void **state)
{
    static const char text[] = "PUT " FILES "?path=/a HTTP/1.1\r\nHost: x\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    struct fixture *f = *state;

    connect_client(f);
    client_send(f, text, sizeof(text) - 1);
    (void)take_write(f, 0644, "/a");
    client_send(f, "zzz\r\n", 5);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    assert_int_equal(reply_status(f), 400);
}

static void test_bad_paths(void **state)
{
    static const struct {
        const char *query;
        const char *code;
    } cases[] = {
        {"", "invalid_path"},
        {"?path=", "invalid_path"},
        {"?path=a", "invalid_path"},
        {"?path=/a/../b", "invalid_path"},
        {"?path=/a/%2e%2e/b", "invalid_path"},
        {"?path=/a/", "invalid_path"},
        {"?path=/a%00b", "bad_request"},
        {"?path=/a&mode=rw", "invalid_field"},
        {"?path=/a&mod=0644", "unknown_field"},
        {"?path=/a&path=/b", "invalid_field"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char target[128];

        (void)snprintf(target, sizeof(target), FILES "%s", cases[i].query);
        request(f, "PUT", target, NULL, "abc", 3);
        expect_error(f, 400, cases[i].code, "");
        assert_false(fake_recv(&f->agent, &f->frame));
    }
    request(f, "GET", FILES "?path=/a&mode=0644", NULL, "", 0);
    expect_error(f, 400, "unknown_field", "mode");
    request(f, "GET", "/v1/sandboxes/sb_9/files?path=/a", NULL, "", 0);
    expect_error(f, 404, "sandbox_not_found", "sb_9");
}

static void test_get(void **state)
{
    struct fixture *f = *state;

    request(f, "GET", FILES "?path=/a", NULL, "", 0);
    uint32_t s = take_read(f, "/a");
    fake_read_info(&f->agent, s, 6, 0100640);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, "abc\0\xff\n", 6);
    fake_send(&f->agent, CHANNEL_EOF, s, CHANNEL_LANE_IN, NULL, 0);
    fake_file_end(&f->agent, s, 6);
    char *body = reply_body(f);
    assert_int_equal(reply_status(f), 200);
    assert_memory_equal(body, "abc\0\xff\n", 6);
    const char *head = (const char *)buffer_bytes(&f->reply);
    assert_non_null(strstr(head, "\r\nContent-Length: 6\r\n"));
    assert_non_null(strstr(head, "\r\nContent-Type: application/octet-stream\r\n"));
    assert_non_null(strstr(head, "\r\nX-Cloche-Mode: 0640\r\n"));
    assert_non_null(strstr(head, "\r\nLast-Modified: Tue, 14 Nov 2023 22:13:20 GMT\r\n"));
    assert_false(f->client_eof);
}

static void test_get_empty_and_unsized(void **state)
{
    struct fixture *f = *state;
    size_t size;
    bool whole;

    request(f, "GET", FILES "?path=/empty", NULL, "", 0);
    uint32_t s = take_read(f, "/empty");
    fake_read_info(&f->agent, s, 0, 0644);
    fake_send(&f->agent, CHANNEL_EOF, s, CHANNEL_LANE_IN, NULL, 0);
    fake_file_end(&f->agent, s, 0);
    assert_int_equal(reply_status(f), 200);
    assert_non_null(strstr((const char *)buffer_bytes(&f->reply), "\r\nContent-Length: 0\r\n"));

    request(f, "GET", FILES "?path=/proc/version", NULL, "", 0);
    s = take_read(f, "/proc/version");
    fake_read_info(&f->agent, s, 0, 0444);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, "Linux", 5);
    fake_send(&f->agent, CHANNEL_EOF, s, CHANNEL_LANE_IN, NULL, 0);
    fake_file_end(&f->agent, s, 5);
    char *text = reply_chunks(f, &size, &whole);
    assert_true(whole);
    assert_string_equal(text, "Linux");
    free(text);
}

/* A file that shrinks must not look whole; one that grows ends where it did. */
static void test_get_changing_files(void **state)
{
    struct fixture *f = *state;

    request(f, "GET", FILES "?path=/a", NULL, "", 0);
    uint32_t s = take_read(f, "/a");
    fake_read_info(&f->agent, s, 100, 0644);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, "abc", 3);
    fake_send(&f->agent, CHANNEL_EOF, s, CHANNEL_LANE_IN, NULL, 0);
    fake_file_end(&f->agent, s, 3);
    (void)reply_body(f);
    assert_true(f->client_eof);

    request(f, "GET", FILES "?path=/a", NULL, "", 0);
    s = take_read(f, "/a");
    fake_read_info(&f->agent, s, 100, 0644);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, "abc", 3);
    fake_failed(&f->agent, s, EIO, "");
    (void)reply_body(f);
    assert_true(f->client_eof);

    request(f, "GET", FILES "?path=/a", NULL, "", 0);
    s = take_read(f, "/a");
    fake_read_info(&f->agent, s, 4, 0644);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, "abcdef", 6);
    assert_string_equal(reply_body(f), "abcd");
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    assert_false(f->client_eof);
}

static void test_get_failures(void **state)
{
    struct fixture *f = *state;

    request(f, "GET", FILES "?path=/none", NULL, "", 0);
    fake_failed(&f->agent, take_read(f, "/none"), ENOENT, "no such file");
    expect_error(f, 404, "file_not_found", "/none");
    request(f, "GET", FILES "?path=/dir", NULL, "", 0);
    fake_failed(&f->agent, take_read(f, "/dir"), EISDIR, "a directory");
    expect_error(f, 422, "file_refused", "/dir");
    request(f, "GET", FILES "?path=/dir", NULL, "", 0);
    fd_close(&f->client_fd);
    turn(f);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
}

static void test_head(void **state)
{
    struct fixture *f = *state;

    request(f, "HEAD", FILES "?path=/a", NULL, "", 0);
    fake_read_info(&f->agent, take_read(f, "/a"), 1000, 0644);
    assert_int_equal(reply_status(f), 200);
    assert_non_null(strstr((const char *)buffer_bytes(&f->reply), "\r\nContent-Length: 1000\r\n"));
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    assert_false(f->client_eof);
}

static void test_get_back_pressure(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[32 * KIB];
    uint64_t credit = CHANNEL_WINDOW_BYTES, sent = 0;
    const uint64_t total = 4 * MIB;

    request(f, "GET", FILES "?path=/big", NULL, "", 0);
    uint32_t s = take_read(f, "/big");
    int client_fd = f->client_fd;
    f->client_fd = -1;
    fake_read_info(&f->agent, s, total, 0644);
    for (unsigned i = 0; i < 5000 && sent < total; i++) {
        while (fake_recv(&f->agent, &f->frame))
            credit += credit_of(&f->frame);
        if (credit < sizeof(block)) {
            assert_true(f->client_fd >= 0 || sent < 2 * MIB);
            f->client_fd = client_fd; /* from here on the client reads */
            turn(f);
            continue;
        }
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, block, sizeof(block));
        credit -= sizeof(block);
        sent += sizeof(block);
    }
    assert_int_equal(f->client_fd, client_fd);
    assert_int_equal(sent, total);
    fake_send(&f->agent, CHANNEL_EOF, s, CHANNEL_LANE_IN, NULL, 0);
    fake_file_end(&f->agent, s, total);
    for (unsigned i = 0; i < 200; i++)
        turn(f);
    const char *body = reply_body(f);
    assert_int_equal(f->reply.size - (size_t)(body - (const char *)buffer_bytes(&f->reply)), total);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        API_TEST(test_put),
        API_TEST(test_put_empty),
        API_TEST(test_put_large_chunked),
        API_TEST(test_put_back_pressure),
        API_TEST(test_put_failures),
        API_TEST(test_put_broken_body),
        API_TEST(test_bad_paths),
        API_TEST(test_get),
        API_TEST(test_get_empty_and_unsized),
        API_TEST(test_get_changing_files),
        API_TEST(test_get_failures),
        API_TEST(test_head),
        API_TEST(test_get_back_pressure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
