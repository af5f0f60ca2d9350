/* POST /v1/run: files in, a command, files out; and the sandbox is gone whatever happens. */
#include "api_fixture.h"

#define NDJSON "application/x-ndjson"

static const char whole_body[] =
    "{\"template\":\"python\",\"mem_mib\":128,\"env\":{\"K\":\"v\"},"
    "\"files\":[{\"path\":\"/w/a.py\",\"content\":\"print(1)\"},"
    "{\"path\":\"/w/b\",\"content_base64\":\"AP8=\",\"mode\":\"0755\"}],"
    "\"argv\":[\"python3\",\"a.py\"],\"collect\":[\"/w/out\",\"/w/none\"]}";

static void answer_write(struct fixture *f, const char *path, uint32_t mode, const char *content,
                         size_t size)
{
    uint32_t s = take_open(f);
    struct wire_reader r;

    wire_reader_init(&r, f->frame.payload, f->frame.h.length);
    assert_int_equal(wire_get_u16(&r), CHANNEL_OP_WRITE);
    assert_int_equal(wire_get_u32(&r), mode);
    assert_string_equal(next_string(&r), path);
    assert_true(fake_recv(&f->agent, &f->frame));
    assert_int_equal(f->frame.h.type, CHANNEL_DATA);
    assert_int_equal(f->frame.h.length, size);
    assert_memory_equal(f->frame.payload, content, size);
    assert_true(fake_expect(&f->agent, CHANNEL_EOF, &f->frame));
    fake_file_end(&f->agent, s, size);
}

static void answer_read(struct fixture *f, const char *content, size_t size)
{
    uint32_t s = take_open(f);

    fake_read_info(&f->agent, s, size, 0644);
    if (size > 0)
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, content, size);
    fake_send(&f->agent, CHANNEL_EOF, s, CHANNEL_LANE_IN, NULL, 0);
    fake_file_end(&f->agent, s, size);
}

/* Up to the command's end, for whole_body. */
static void play(struct fixture *f)
{
    answer_write(f, "/w/a.py", 0644, "print(1)", 8);
    answer_write(f, "/w/b", 0755, "\0\xff", 2);
    uint32_t s = take_open(f);
    struct wire_reader r;
    wire_reader_init(&r, f->frame.payload, f->frame.h.length);
    assert_int_equal(wire_get_u16(&r), CHANNEL_OP_EXEC);
    assert_non_null(memmem(f->frame.payload, f->frame.h.length, "K=v", 3));
    fake_exec_info(&f->agent, s, 9);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "1\n", 2);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
}

static void expect_destroyed(struct fixture *f)
{
    for (unsigned i = 0; i < 4; i++)
        turn(f);
    assert_int_equal(f->sandbox.created_count, 1);
    assert_int_equal(f->sandbox.destroyed_count, 1);
    assert_false(f->sandbox.alive);
}

static void test_whole_run(void **state)
{
    struct fixture *f = *state;

    request_json(f, "/v1/run", NULL, whole_body);
    play(f);
    answer_read(f, "result", 6);
    fake_failed(&f->agent, take_open(f), ENOENT, "");
    cJSON *tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "end"), "exited");
    assert_int_equal(json_number(tree, "exit_code"), 0);
    assert_string_equal(json_text(tree, "stdout"), "1\n");
    const cJSON *sandbox = cJSON_GetObjectItem(tree, "sandbox");
    assert_string_equal(json_text(sandbox, "id"), "sb_1");
    assert_string_equal(json_text(sandbox, "pool"), "hit");
    assert_true(json_number(cJSON_GetObjectItem(sandbox, "times"), "ready_ms") == 1.5);
    const cJSON *files = cJSON_GetObjectItem(tree, "files");
    assert_int_equal(cJSON_GetArraySize(files), 2);
    const cJSON *file = cJSON_GetArrayItem(files, 0);
    assert_string_equal(json_text(file, "path"), "/w/out");
    assert_int_equal(json_number(file, "size"), 6);
    assert_string_equal(json_text(file, "content_base64"), "cmVzdWx0");
    file = cJSON_GetArrayItem(files, 1);
    assert_string_equal(json_text(file, "path"), "/w/none");
    assert_string_equal(json_text(cJSON_GetObjectItem(file, "error"), "code"), "file_not_found");
    assert_null(cJSON_GetObjectItem(file, "content_base64"));
    cJSON_Delete(tree);
    expect_destroyed(f);
}

static void test_streamed_run(void **state)
{
    struct fixture *f = *state;
    size_t size;
    bool whole;

    request_json(f, "/v1/run", NDJSON, whole_body);
    play(f);
    answer_read(f, "result", 6);
    answer_read(f, "", 0);
    char *text = reply_chunks(f, &size, &whole);
    assert_true(whole);
    const char *start =
        "{\"type\":\"start\",\"pid\":9}\n"
        "{\"type\":\"stdout\",\"offset\":0,\"data\":\"1\\n\"}\n"
        "{\"type\":\"file\",\"path\":\"/w/out\",\"size\":6,\"content_base64\":\"cmVzdWx0\"}\n"
        "{\"type\":\"file\",\"path\":\"/w/none\",\"size\":0,\"content_base64\":\"\"}\n";
    assert_true(size > strlen(start));
    assert_memory_equal(text, start, strlen(start));
    cJSON *end = cJSON_Parse(text + strlen(start));
    assert_string_equal(json_text(end, "type"), "end");
    assert_string_equal(json_text(end, "end"), "exited");
    assert_string_equal(json_text(cJSON_GetObjectItem(end, "sandbox"), "id"), "sb_1");
    assert_null(cJSON_GetObjectItem(end, "files"));
    cJSON_Delete(end);
    free(text);
    expect_destroyed(f);
}

/* A file that is put in goes no faster than the guest takes it, and arrives whole. */
static void test_large_file_is_put(void **state)
{
    static const char head[] = "{\"shell\":\"x\",\"files\":[{\"path\":\"/big\",\"content\":\"";
    enum { SIZE = 5 * CHANNEL_WINDOW_BYTES + 9 };
    struct fixture *f = *state;
    struct buffer body = BUFFER_INIT(2 * MIB);
    size_t got = 0, granted = CHANNEL_WINDOW_BYTES;

    assert_int_equal(buffer_append_text(&body, head), 0);
    for (size_t i = 0; i < SIZE; i++)
        assert_int_equal(buffer_append(&body, &"0123456"[i % 7], 1), 0);
    assert_int_equal(buffer_append_text(&body, "\"}]}"), 0);
    request(f, "POST", "/v1/run", NULL, buffer_bytes(&body), body.size);
    buffer_fini(&body);
    uint32_t s = take_open(f);
    while (got < SIZE) {
        if (!fake_recv(&f->agent, &f->frame)) {
            assert_int_equal(got, granted);
            fake_send_u32(&f->agent, CHANNEL_CREDIT, s, CHANNEL_LANE_IN, CHANNEL_WINDOW_BYTES);
            granted += CHANNEL_WINDOW_BYTES;
            continue;
        }
        assert_int_equal(f->frame.h.type, CHANNEL_DATA);
        for (size_t i = 0; i < f->frame.h.length; i++)
            assert_int_equal(f->frame.payload[i], '0' + (got + i) % 7);
        got += f->frame.h.length;
    }
    assert_true(fake_expect(&f->agent, CHANNEL_EOF, &f->frame));
    fake_file_end(&f->agent, s, SIZE);
    s = take_open(f);
    fake_exec_info(&f->agent, s, 9);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
    cJSON_Delete(reply_json(f, 200));
    expect_destroyed(f);
}

/* A large collected file goes out through the exchange's bounded queue. */
static void test_streamed_large_file(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[CHANNEL_PAYLOAD_MAX];
    const uint64_t total = 3 * MIB;
    uint64_t credit = CHANNEL_WINDOW_BYTES;
    size_t size;
    bool whole;

    request_json(f, "/v1/run", NDJSON, "{\"shell\":\"x\",\"collect\":[\"/big\"]}");
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 9);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
    s = take_open(f);
    fake_read_info(&f->agent, s, total, 0644);
    for (uint64_t sent = 0; sent < total; sent += sizeof(block)) {
        while (credit < sizeof(block)) {
            assert_true(fake_expect(&f->agent, CHANNEL_CREDIT, &f->frame));
            credit += credit_of(&f->frame);
        }
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, block, sizeof(block));
        credit -= sizeof(block);
    }
    fake_send(&f->agent, CHANNEL_EOF, s, CHANNEL_LANE_IN, NULL, 0);
    fake_file_end(&f->agent, s, total);
    for (unsigned i = 0; i < 300; i++)
        turn(f);
    char *text = reply_chunks(f, &size, &whole);
    assert_true(whole);
    assert_true(size > total / 3 * 4);
    free(text);
    expect_destroyed(f);
}

/* Of all that is held for replies little is left: the file is refused, the rest told. */
static void test_file_that_cannot_be_held(void **state)
{
    struct fixture *f = *state;
    const uint64_t others = HTTP_REPLIES_BYTES_MAX - 1000;
    static char content[500];

    f->budget.replies.bytes = others;
    request_json(f, "/v1/run", NULL, "{\"shell\":\"x\",\"collect\":[\"/a\",\"/b\"]}");
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 9);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
    answer_read(f, content, sizeof(content));
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    answer_read(f, "b", 1);
    cJSON *tree = reply_json(f, 200);
    const cJSON *files = cJSON_GetObjectItem(tree, "files");
    const cJSON *error = cJSON_GetObjectItem(cJSON_GetArrayItem(files, 0), "error");
    assert_string_equal(json_text(error, "code"), "no_capacity");
    assert_string_equal(json_text(cJSON_GetArrayItem(files, 1), "content_base64"), "Yg==");
    cJSON_Delete(tree);
    expect_destroyed(f);
    assert_int_equal(f->budget.replies.bytes, others);

    /* Not even for the command's result. */
    f->budget.replies.bytes = HTTP_REPLIES_BYTES_MAX - 20;
    request_json(f, "/v1/run", NULL, "{\"shell\":\"x\"}");
    s = take_open(f);
    fake_exec_info(&f->agent, s, 9);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
    expect_error(f, 503, "no_capacity", "the replies under way");
    f->budget.replies.bytes = 0;
}

/* The first to hear of output ends the sandbox, while others are yet to be told of it. */
static void test_an_end_in_the_middle_of_news(void **state)
{
    struct fixture *f = *state;
    int fds[3];

    f->budget.replies.bytes = HTTP_REPLIES_BYTES_MAX;
    request_json(f, "/v1/run", NULL, "{\"shell\":\"x\"}");
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 9);
    for (unsigned i = 0; i < 3; i++) {
        fds[i] = f->client_fd;
        f->client_fd = -1;
        request(f, "GET", "/v1/sandboxes/sb_1/processes/9?wait_ms=600000", NULL, "", 0);
    }
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "more than there is room for", 27);
    for (unsigned i = 0; i <= 3; i++) {
        if (i == 3)
            expect_error(f, 503, "no_capacity", "the replies under way");
        else
            cJSON_Delete(reply_json(f, 200));
        fd_close(&f->client_fd);
        buffer_consume(&f->reply, f->reply.size);
        f->client_fd = i < 3 ? fds[2 - i] : -1;
    }
    expect_destroyed(f);
    f->budget.replies.bytes = 0;
}

static void test_failures_destroy_the_sandbox(void **state)
{
    struct fixture *f = *state;

    request_json(f, "/v1/run", NULL, "{\"argv\":[\"nope\"]}");
    fake_failed(&f->agent, take_open(f), ENOENT, "nope: not found");
    expect_error(f, 422, "command_not_started", "nope");
    expect_destroyed(f);
}

static void test_file_that_does_not_fit(void **state)
{
    struct fixture *f = *state;

    request_json(f, "/v1/run", NULL, whole_body);
    fake_failed(&f->agent, take_open(f), ENOSPC, "");
    expect_error(f, 507, "disk_full", "files[0]");
    expect_destroyed(f);
}

static void test_lost_sandbox(void **state)
{
    struct fixture *f = *state;

    request_json(f, "/v1/run", NULL, whole_body);
    answer_write(f, "/w/a.py", 0644, "print(1)", 8);
    answer_write(f, "/w/b", 0755, "\0\xff", 2);
    fake_exec_info(&f->agent, take_open(f), 9);
    fake_agent_fini(&f->agent);
    cJSON *tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "end"), "sandbox_gone");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(tree, "exit_code")));
    const cJSON *file = cJSON_GetArrayItem(cJSON_GetObjectItem(tree, "files"), 1);
    assert_string_equal(json_text(cJSON_GetObjectItem(file, "error"), "code"), "sandbox_not_found");
    cJSON_Delete(tree);
    assert_int_equal(f->sandbox.destroyed_count, 0); /* it ended by itself */
}

/* The client goes in each state. */
static void test_vanished_client(void **state)
{
    (void)state;
    for (unsigned step = 1; step < 5; step++) {
        void *own = NULL;

        assert_int_equal(set_up(&own), 0);
        struct fixture *f = own;
        request_json(f, "/v1/run", NDJSON, whole_body);
        if (step >= 2)
            answer_write(f, "/w/a.py", 0644, "print(1)", 8);
        if (step >= 3)
            answer_write(f, "/w/b", 0755, "\0\xff", 2);
        if (step >= 4) {
            fake_exec_info(&f->agent, take_open(f), 9);
            turn(f);
        }
        fd_close(&f->client_fd);
        expect_destroyed(f);
        assert_int_equal(tear_down(&own), 0);
    }
}

static void test_vanished_while_creating(void **state)
{
    struct fixture *f = *state;

    char text[1024];
    int length = snprintf(text, sizeof(text),
                          "POST /v1/run HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s",
                          sizeof(whole_body) - 1, whole_body);

    assert_true(length > 0 && (size_t)length < sizeof(text));
    connect_client(f);
    assert_int_equal(send(f->client_fd, text, (size_t)length, 0), length);
    for (unsigned i = 0; i < 50 && f->sandbox.created_count == 0; i++)
        (void)uv_run(&f->loop, UV_RUN_NOWAIT);
    fd_close(&f->client_fd);
    expect_destroyed(f);
}

static void test_creation_refused(void **state)
{
    struct fixture *f = *state;

    (void)error_set(&f->create_error, ERR_NO_CAPACITY, "the host is full");
    request_json(f, "/v1/run", NULL, whole_body);
    expect_error(f, 503, "no_capacity", "full");
    assert_int_equal(f->sandbox.destroyed_count, 0);
}

static void test_bad_requests(void **state)
{
    static const struct {
        const char *body;
        const char *code;
        const char *words;
    } cases[] = {
        {"{}", "invalid_field", "argv"},
        {"{\"shell\":\"x\",\"files\":{}}", "invalid_field", "files"},
        {"{\"shell\":\"x\",\"files\":[1]}", "invalid_field", "files[0]"},
        {"{\"shell\":\"x\",\"files\":[{\"path\":\"/a\"}]}", "invalid_field", "files[0]"},
        {"{\"shell\":\"x\",\"files\":[{\"content\":\"\"}]}", "invalid_field", "files[0].path"},
        {"{\"shell\":\"x\",\"files\":[{\"path\":\"a\",\"content\":\"\"}]}", "invalid_path",
         "files[0]"},
        {"{\"shell\":\"x\",\"files\":[{\"path\":\"/a\",\"content\":\"\"},{\"path\":\"/a\","
         "\"content_base64\":\"!\"}]}",
         "invalid_field", "files[1]"},
        {"{\"shell\":\"x\",\"files\":[{\"path\":\"/a\",\"content\":\"\",\"mode\":\"9\"}]}",
         "invalid_field", "files[0]"},
        {"{\"shell\":\"x\",\"files\":[{\"path\":\"/a\",\"content\":\"\",\"owner\":\"x\"}]}",
         "unknown_field", "files[0].owner"},
        {"{\"shell\":\"x\",\"collect\":[\"/a\",\"/b/../c\"]}", "invalid_path", "collect[1]"},
        {"{\"shell\":\"x\",\"collect\":\"/a\"}", "invalid_field", "collect"},
        {"{\"shell\":\"x\",\"mem_mib\":0}", "invalid_field", "mem_mib"},
        {"{\"shell\":\"x\",\"wcpus\":1}", "unknown_field", "wcpus"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        request_json(f, "/v1/run", NULL, cases[i].body);
        expect_error(f, 400, cases[i].code, cases[i].words);
        assert_int_equal(f->sandbox.created_count, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        API_TEST(test_whole_run),
        API_TEST(test_streamed_run),
        API_TEST(test_large_file_is_put),
        API_TEST(test_streamed_large_file),
        API_TEST(test_file_that_cannot_be_held),
        API_TEST(test_an_end_in_the_middle_of_news),
        API_TEST(test_failures_destroy_the_sandbox),
        API_TEST(test_file_that_does_not_fit),
        API_TEST(test_lost_sandbox),
        cmocka_unit_test(test_vanished_client),
        API_TEST(test_vanished_while_creating),
        API_TEST(test_creation_refused),
        API_TEST(test_bad_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
