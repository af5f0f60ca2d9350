/* PUT and GET .../files/tar against an agent that may say anything; archives go through the real
 * thread, so what follows from it is waited for. */
#include "api_fixture.h"

#include <archive.h>
#include <archive_entry.h>

#include "base/tree.h"

#define TAR "/v1/sandboxes/sb_1/files/tar"

/* Turns of the loop until `condition` holds: the thread takes its time. */
#define UNTIL(f, condition)                                                                        \
    while (!(condition)) {                                                                         \
        turn(f);                                                                                   \
        (void)usleep(1000);                                                                        \
    }

/* "a" and, `count` - 1 times, "b": files of `size` zeros. */
static size_t make_archive(uint8_t *bytes, size_t bytes_max, unsigned count, size_t size)
{
    struct archive *a = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    static const char zeros[4096];
    size_t used = 0;

    assert_int_equal(archive_write_set_format_ustar(a), ARCHIVE_OK);
    assert_int_equal(archive_write_open_memory(a, bytes, bytes_max, &used), ARCHIVE_OK);
    for (unsigned i = 0; i < count; i++) {
        archive_entry_set_pathname(entry, i == 0 ? "a" : "b");
        archive_entry_set_filetype(entry, AE_IFREG);
        archive_entry_set_perm(entry, 0644);
        archive_entry_set_size(entry, (la_int64_t)size);
        assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
        for (size_t at = 0; at < size; at += sizeof(zeros))
            assert_true(archive_write_data(a, zeros, sizeof(zeros)) > 0);
    }
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    (void)archive_write_free(a);
    archive_entry_free(entry);
    return used;
}

static uint32_t take_tree(struct fixture *f, enum channel_op op, const char *path)
{
    uint32_t s = take_open(f);
    struct wire_reader r;

    wire_reader_init(&r, f->frame.payload, f->frame.h.length);
    assert_int_equal(wire_get_u16(&r), op);
    assert_string_equal(next_string(&r), path);
    assert_true(!r.bad && r.left == 0);
    return s;
}

/* --- PUT ----------------------------------------------------------------------------------------
 */

static void send_tree_end(struct fixture *f, uint32_t s, uint64_t taken, uint64_t files)
{
    uint8_t payload[64];
    struct wire_writer w;

    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u32(&w, 0);
    wire_put_string(&w, "", 0);
    wire_put_u64(&w, taken);
    wire_put_u64(&w, files);
    wire_put_u64(&w, 7);
    wire_put_u64(&w, 8);
    wire_put_u64(&w, 9);
    fake_send(&f->agent, CHANNEL_END, s, 0, payload, w.used);
}

/* All of lane 0 up to its EOF, credit granted for each piece; returns how many bytes. */
static uint64_t take_lane(struct fixture *f, uint32_t s)
{
    uint64_t bytes = 0;

    for (;;) {
        UNTIL(f, fake_recv(&f->agent, &f->frame));
        assert_int_equal(f->frame.h.stream, s);
        if (f->frame.h.type == CHANNEL_EOF)
            return bytes;
        if (f->frame.h.type != CHANNEL_DATA)
            continue;
        bytes += f->frame.h.length;
        fake_send_u32(&f->agent, CHANNEL_CREDIT, s, 0, f->frame.h.length);
        /* At work. */
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, "\0", 1);
    }
}

static uint8_t archive[1 << 20];

static uint32_t put_archive(struct fixture *f, size_t size)
{
    request(f, "PUT", TAR "?path=/workspace/x/", NULL, archive, size);
    uint32_t s = take_tree(f, CHANNEL_OP_TREE_IN, "/workspace/x");
    fake_send(&f->agent, CHANNEL_INFO, s, 0, NULL, 0);
    return s;
}

static void test_put(void **state)
{
    struct fixture *f = *state;
    size_t size = make_archive(archive, sizeof(archive), 2, 4096);
    uint32_t s = put_archive(f, size);
    uint64_t bytes = take_lane(f, s);

    assert_true(bytes > 2 * 4096 && bytes < size);
    send_tree_end(f, s, bytes, 2);
    UNTIL(f, reply_body(f) != NULL);
    cJSON *reply = reply_json(f, 200);
    assert_string_equal(json_text(reply, "path"), "/workspace/x");
    assert_true(json_number(reply, "files") == 2 && json_number(reply, "directories") == 7);
    assert_true(json_number(reply, "symlinks") == 8 && json_number(reply, "bytes") == 9);
    cJSON_Delete(reply);
    assert_true(f->sandbox.alive);
}

/* The archive is cut: the guest is told the end of what is whole, and asked what came of it. */
static void test_put_refused(void **state)
{
    struct fixture *f = *state;
    size_t size = make_archive(archive, sizeof(archive), 2, 4096);
    uint32_t s = put_archive(f, size > 10240 ? 7000 : size / 2);

    send_tree_end(f, s, take_lane(f, s), 1);
    UNTIL(f, reply_body(f) != NULL);
    assert_non_null(strstr(reply_body(f), "16 entries were unpacked"));
    expect_error(f, 422, "archive_refused", "");
}

static void test_put_guest_fails(void **state)
{
    static const struct {
        uint32_t status;
        const char *code;
        int http;
    } cases[] = {{ENOSPC, "disk_full", 507}, {ELOOP, "file_refused", 422}};
    struct fixture *f = *state;

    for (size_t i = 0; i < 2; i++) {
        uint32_t s = put_archive(f, make_archive(archive, sizeof(archive), 2, 32768));
        fake_failed(&f->agent, s, cases[i].status, "3 entries were unpacked, then x: no");
        UNTIL(f, reply_body(f) != NULL);
        if (strstr(reply_body(f), "3 entries were unpacked, then x: no") == NULL)
            fail_msg("%zu: %s", i, reply_body(f));
        expect_error(f, cases[i].http, cases[i].code, "cannot unpack to");
    }
}

/* Claims that do not fit what was sent end the sandbox. */
static void test_put_guest_lies(void **state)
{
    struct fixture *f = *state;
    size_t size = make_archive(archive, sizeof(archive), 2, 4096);

    uint32_t s = put_archive(f, size);
    send_tree_end(f, s, take_lane(f, s) - 1, 2);
    UNTIL(f, reply_body(f) != NULL);
    expect_error(f, 410, "sandbox_gone", "");
    assert_false(f->sandbox.alive);
    give_agent(f);
    s = put_archive(f, size);
    send_tree_end(f, s, 0, 2); /* before the end */
    UNTIL(f, reply_body(f) != NULL);
    expect_error(f, 410, "sandbox_gone", "");
    assert_false(f->sandbox.alive);
}

/* Both sides of the thread are filled to the brim, and all arrives. */
static void test_put_large(void **state)
{
    enum { FILE_BYTES = 2 << 20 };
    static uint8_t large[3 * FILE_BYTES];
    struct fixture *f = *state;
    size_t size = make_archive(large, sizeof(large), 2, FILE_BYTES), sent = 0;
    uint64_t bytes = 0, granted = 0; /* of what has come */
    char head[256];

    connect_client(f);
    int length =
        snprintf(head, sizeof(head),
                 "PUT %s?path=/x HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", TAR, size);
    client_send(f, head, (size_t)length);
    uint32_t s = take_tree(f, CHANNEL_OP_TREE_IN, "/x");
    fake_send(&f->agent, CHANNEL_INFO, s, 0, NULL, 0);
    f->frame.h.type = 0;
    for (unsigned quiet = 0; f->frame.h.type != CHANNEL_EOF;) {
        ssize_t n = send(f->client_fd, large + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        if (fake_recv(&f->agent, &f->frame)) {
            bytes += f->frame.h.type == CHANNEL_DATA ? f->frame.h.length : 0;
            quiet = 0;
        } else if (n <= 0 && ++quiet > 20) {
            if (bytes > granted)
                fake_send_u32(&f->agent, CHANNEL_CREDIT, s, 0, (uint32_t)(bytes - granted));
            granted = bytes;
            quiet = 0;
        } else {
            (void)usleep(100);
        }
    }
    assert_true(bytes > 2 * FILE_BYTES);
    send_tree_end(f, s, bytes, 2);
    UNTIL(f, reply_body(f) != NULL);
    cJSON_Delete(reply_json(f, 200));
}

/* An archive that is none from its start: the client may still say all of it, for nothing, while
 * the guest is asked what came of it. */
static void test_put_skips_the_rest(void **state)
{
    static const uint8_t junk[2 << 20] = {1};
    struct fixture *f = *state;

    request(f, "PUT", TAR "?path=/x", NULL, junk, sizeof(junk));
    uint32_t s = take_tree(f, CHANNEL_OP_TREE_IN, "/x");
    fake_send(&f->agent, CHANNEL_INFO, s, 0, NULL, 0);
    send_tree_end(f, s, take_lane(f, s), 0);
    UNTIL(f, reply_body(f) != NULL);
    expect_error(f, 422, "archive_refused", "");
}

static void test_put_client_goes(void **state)
{
    struct fixture *f = *state;
    char head[256];
    int length = snprintf(head, sizeof(head),
                          "PUT %s?path=/x HTTP/1.1\r\nHost: x\r\n"
                          "Content-Length: 1000000\r\n\r\n",
                          TAR);
    size_t size = make_archive(archive, sizeof(archive), 1, 1 << 19);

    connect_client(f);
    client_send(f, head, (size_t)length);
    client_send(f, archive, size / 2);
    uint32_t s = take_tree(f, CHANNEL_OP_TREE_IN, "/x");
    fake_send(&f->agent, CHANNEL_INFO, s, 0, NULL, 0);
    fd_close(&f->client_fd);
    UNTIL(f, fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    assert_int_equal(f->frame.h.stream, s);
}

/* --- GET ----------------------------------------------------------------------------------------
 */

static void send_entry(struct fixture *f, uint32_t s, enum tree_type type, const char *path,
                       uint64_t size)
{
    const struct tree_entry entry = {.type = type, .size = size, .path = path, .target = ""};
    uint8_t bytes[TREE_RECORD_BYTES_MAX];

    size_t used = tree_entry_put(&entry, bytes, sizeof(bytes));
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, bytes, used);
}

static void send_out_end(struct fixture *f, uint32_t s, uint64_t bytes)
{
    uint8_t payload[32];
    struct wire_writer w;

    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u32(&w, 0);
    wire_put_string(&w, "", 0);
    wire_put_u64(&w, bytes);
    wire_put_u32(&w, 0);
    fake_send(&f->agent, CHANNEL_EOF, s, CHANNEL_LANE_IN, NULL, 0);
    fake_send(&f->agent, CHANNEL_END, s, 0, payload, w.used);
}

#define ENTRY_BYTES(path) (TREE_HEAD_BYTES + TREE_FIELDS_BYTES + 8 + strlen(path))

static uint32_t begin_get(struct fixture *f)
{
    request(f, "GET", TAR "?path=/workspace", NULL, "", 0);
    uint32_t s = take_tree(f, CHANNEL_OP_TREE_OUT, "/workspace");
    fake_send(&f->agent, CHANNEL_INFO, s, 0, NULL, 0);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, "\0\0\0", 3);
    send_entry(f, s, TREE_SKIPPED, "", 5);
    return s;
}

static void test_get(void **state)
{
    struct fixture *f = *state;
    uint32_t s = begin_get(f);
    bool is_whole = false;
    char *body = NULL;
    size_t size = 0;

    send_entry(f, s, TREE_FILE, "dir/file", 4);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, "tree", 4);
    send_out_end(f, s, 3 + ENTRY_BYTES("") + ENTRY_BYTES("dir/file") + 4);
    UNTIL(f, (free(body), body = reply_chunks(f, &size, &is_whole), is_whole));
    assert_int_equal(reply_status(f), 200);
    assert_non_null(strstr((char *)buffer_bytes(&f->reply), "X-Cloche-Skipped: 5\r\n"));
    assert_non_null(strstr((char *)buffer_bytes(&f->reply), "application/x-tar\r\n"));
    assert_int_equal(size, 4 * 512);
    assert_string_equal(body, "dir/file");
    assert_memory_equal(body + 512, "tree", 4);
    free(body);
}

static void test_get_refused(void **state)
{
    struct fixture *f = *state;

    request(f, "GET", TAR "?path=/workspace", NULL, "", 0);
    fake_failed(&f->agent, take_tree(f, CHANNEL_OP_TREE_OUT, "/workspace"), ENOENT, "no");
    expect_error(f, 404, "file_not_found", "cannot pack");
    request(f, "GET", TAR, NULL, "", 0);
    expect_error(f, 400, "invalid_path", "path");
    request(f, "GET", TAR "?path=/a&x=1", NULL, "", 0);
    expect_error(f, 400, "unknown_field", "x");
    request(f, "PUT", TAR "?path=/a/../b", NULL, "", 0);
    expect_error(f, 400, "invalid_path", "..");
}

/* What is no tree: the sandbox ends, and the client gets an error, or nothing that looks whole. */
static void test_get_hostile(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 3; i++) {
        uint32_t s = begin_get(f);
        if (i == 0)
            send_entry(f, s, TREE_FILE, "../file", 0);
        else if (i == 1)
            fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, "junk", 4);
        else
            send_entry(f, s, TREE_FILE, "file", 1000);
        if (i == 2)
            send_out_end(f, s, 3 + ENTRY_BYTES("") + ENTRY_BYTES("file"));
        UNTIL(f, !f->sandbox.alive);
        UNTIL(f, reply_body(f) != NULL);
        expect_error(f, 410, "sandbox_gone", "protocol");
        give_agent(f);
    }
}

/* A client that reads nothing holds the guest back, and gets all when it reads on. */
static void test_get_large(void **state)
{
    enum { BLOCKS = 256 };
    static const uint8_t block[32 * KIB];
    const uint64_t total = BLOCKS * sizeof(block);
    struct fixture *f = *state;
    uint32_t s = begin_get(f);
    uint64_t left = CHANNEL_WINDOW_BYTES - 3 - ENTRY_BYTES("") - ENTRY_BYTES("big"), sent = 0;
    int client_fd = f->client_fd;
    bool is_whole = false;
    char *body = NULL;
    size_t size = 0;

    send_entry(f, s, TREE_FILE, "big", total);
    f->client_fd = -1;
    for (unsigned quiet = 0; sent < total;) {
        if (left >= sizeof(block)) {
            fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, block, sizeof(block));
            left -= sizeof(block);
            sent += sizeof(block);
        } else if (fake_recv(&f->agent, &f->frame)) {
            left += credit_of(&f->frame);
            quiet = 0;
        } else if (++quiet > 100) {
            assert_true(sent < total / 2 || f->client_fd >= 0);
            f->client_fd = client_fd;
            turn(f);
        } else {
            (void)usleep(100);
        }
    }
    assert_int_equal(f->client_fd, client_fd);
    send_out_end(f, s, 3 + ENTRY_BYTES("") + ENTRY_BYTES("big") + total);
    UNTIL(f, (free(body), body = reply_chunks(f, &size, &is_whole), is_whole));
    assert_int_equal(size, total + 3 * 512);
    free(body);
}

/* The guest fails when the reply has begun: the connection is cut before the body's end. */
static void test_get_fails_late(void **state)
{
    static uint8_t zeros[32768];
    struct fixture *f = *state;
    uint32_t s = begin_get(f);
    bool is_whole = true;
    size_t size = 0;

    send_entry(f, s, TREE_FILE, "file", 10 * sizeof(zeros));
    for (int i = 0; i < 5; i++)
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, zeros, sizeof(zeros));
    UNTIL(f, reply_body(f) != NULL);
    fake_failed(&f->agent, s, EIO, "file: became shorter while it was read");
    UNTIL(f, f->client_eof);
    free(reply_chunks(f, &size, &is_whole));
    assert_int_equal(reply_status(f), 200);
    assert_false(is_whole);
    assert_true(f->sandbox.alive);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        API_TEST(test_put),
        API_TEST(test_put_refused),
        API_TEST(test_put_guest_fails),
        API_TEST(test_put_guest_lies),
        API_TEST(test_put_large),
        API_TEST(test_put_skips_the_rest),
        API_TEST(test_put_client_goes),
        API_TEST(test_get),
        API_TEST(test_get_refused),
        API_TEST(test_get_hostile),
        API_TEST(test_get_large),
        API_TEST(test_get_fails_late),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
