/* POST .../exec: requests judged, replies buffered and streamed, slow and vanishing clients. */
#include "api_fixture.h"
#include "tests/fake_clock.h"

#define EXEC   "/v1/sandboxes/sb_1/exec"
#define NDJSON "application/x-ndjson"

static void test_buffered(void **state)
{
    struct fixture *f = *state;

    request_json(f, EXEC, NULL, "{\"argv\":[\"echo\",\"hi\"],\"timeout_ms\":5000}");
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 12);
    fake_clock_move_ms(20);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "hi\n", 3);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_ERR, "\xff\x00", 2);
    assert_int_equal(reply_status(f), 0);
    fake_clock_move_ms(3);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 3);
    cJSON *tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "end"), "exited");
    assert_int_equal(json_number(tree, "exit_code"), 3);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(tree, "signal")));
    assert_string_equal(json_text(tree, "stdout"), "hi\n");
    assert_string_equal(json_text(tree, "stderr_base64"), "/wA=");
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(tree, "truncated")));
    const cJSON *usage = cJSON_GetObjectItem(tree, "usage");
    assert_true(json_number(usage, "wall_ms") == 23);
    assert_int_equal(json_number(usage, "user_ms"), 3);
    assert_int_equal(json_number(usage, "max_rss_bytes"), 4096);
    assert_true(json_number(cJSON_GetObjectItem(tree, "times"), "first_output_ms") == 20);
    cJSON_Delete(tree);
}

static void test_request_reaches_the_agent(void **state)
{
    struct fixture *f = *state;
    struct wire_reader r;

    request_json(f, EXEC, NULL,
                 "{\"shell\":\"ls | wc\",\"env\":{\"LAYER\":\"exec\",\"X\":\"1\"},\"cwd\":\"/tmp\","
                 "\"user\":\"nobody\",\"stdin_base64\":\"aGk=\",\"umask\":\"027\","
                 "\"limits\":{\"open_files\":9,\"memory_mib\":64}}");
    (void)take_open(f);
    wire_reader_init(&r, f->frame.payload, f->frame.h.length);
    assert_int_equal(wire_get_u16(&r), CHANNEL_OP_EXEC);
    assert_int_equal(wire_get_u32(&r), CHANNEL_EXEC_STDIN);
    assert_int_equal(wire_get_u32(&r), 0); /* no terminal's size */
    assert_int_equal(wire_get_u32(&r), 027);
    assert_string_equal(next_string(&r), "nobody");
    assert_string_equal(next_string(&r), "/tmp");
    assert_int_equal(wire_get_u32(&r), 2);
    assert_int_equal(wire_get_u32(&r), CHANNEL_LIMIT_MEMORY);
    assert_int_equal(wire_get_u64(&r), 64 * MIB);
    assert_int_equal(wire_get_u32(&r), CHANNEL_LIMIT_OPEN);
    assert_int_equal(wire_get_u64(&r), 9);
    assert_int_equal(wire_get_u32(&r), 3);
    assert_string_equal(next_string(&r), "/bin/sh");
    assert_string_equal(next_string(&r), "-c");
    assert_string_equal(next_string(&r), "ls | wc");
    assert_int_equal(wire_get_u32(&r), 3);
    assert_string_equal(next_string(&r), "PATH=/bin");
    assert_string_equal(next_string(&r), "LAYER=exec");
    assert_string_equal(next_string(&r), "X=1");
    assert_true(!r.bad && r.left == 0);
    assert_true(fake_recv(&f->agent, &f->frame));
    assert_int_equal(f->frame.h.type, CHANNEL_DATA);
    assert_memory_equal(f->frame.payload, "hi", 2);
    assert_true(fake_recv(&f->agent, &f->frame));
    assert_int_equal(f->frame.h.type, CHANNEL_EOF);
}

static void test_defaults(void **state)
{
    struct fixture *f = *state;
    struct wire_reader r;

    request_json(f, EXEC, NULL, "{\"argv\":[\"true\"]}");
    (void)take_open(f);
    wire_reader_init(&r, f->frame.payload, f->frame.h.length);
    assert_int_equal(wire_get_u16(&r), CHANNEL_OP_EXEC);
    assert_int_equal(wire_get_u32(&r), 0);
    assert_int_equal(wire_get_u32(&r), 0);
    assert_int_equal(wire_get_u32(&r), CHANNEL_UMASK_DEFAULT);
    assert_string_equal(next_string(&r), "");
    assert_string_equal(next_string(&r), "/workspace");
    assert_int_equal(wire_get_u32(&r), 0);
    assert_int_equal(wire_get_u32(&r), 1);
    assert_string_equal(next_string(&r), "true");
    assert_int_equal(wire_get_u32(&r), 2);
    assert_string_equal(next_string(&r), "PATH=/bin");
    assert_string_equal(next_string(&r), "LAYER=sandbox");
    assert_false(fake_recv(&f->agent, &f->frame));
}

static void test_bad_requests(void **state)
{
    static const struct {
        const char *body;
        const char *code;
        const char *words;
    } cases[] = {
        {"{}", "invalid_field", "argv"},
        {"{\"argv\":[\"a\"],\"shell\":\"b\"}", "invalid_field", "argv"},
        {"{\"argv\":[]}", "invalid_field", "argv"},
        {"{\"argv\":[\"\"]}", "invalid_field", "argv[0]"},
        {"{\"argv\":[1]}", "invalid_field", "argv"},
        {"{\"argv\":\"ls\"}", "invalid_field", "argv"},
        {"{\"shell\":\"\"}", "invalid_field", "shell"},
        {"{\"shell\":\"x\",\"cwd\":\"tmp\"}", "invalid_field", "cwd"},
        {"{\"shell\":\"x\",\"timeout_ms\":0}", "invalid_field", "timeout_ms"},
        {"{\"shell\":\"x\",\"timeout_ms\":1.5}", "invalid_field", "timeout_ms"},
        {"{\"shell\":\"x\",\"max_output_bytes\":99999999999}", "invalid_field", "max_output_bytes"},
        {"{\"shell\":\"x\",\"stdin\":\"a\",\"stdin_base64\":\"YQ==\"}", "invalid_field", "stdin"},
        {"{\"shell\":\"x\",\"stdin_base64\":\"YQ\"}", "invalid_field", "stdin_base64"},
        {"{\"shell\":\"x\",\"env\":{\"A=B\":\"c\"}}", "invalid_field", "A=B"},
        {"{\"shell\":\"x\",\"env\":{\"A\":1}}", "invalid_field", "env"},
        {"{\"shell\":\"x\",\"umask\":\"8\"}", "invalid_field", "umask"},
        {"{\"shell\":\"x\",\"umask\":\"7777\"}", "invalid_field", "umask"},
        {"{\"shell\":\"x\",\"limits\":{\"cpu_s\":0}}", "invalid_field", "limits.cpu_s"},
        {"{\"shell\":\"x\",\"limits\":{\"cpus\":1}}", "unknown_field", "limits.cpus"},
        {"{\"shell\":\"x\",\"background\":1}", "invalid_field", "background"},
        {"{\"shell\":\"x\",\"keep_output_bytes\":99999999999}", "invalid_field", "keep_output"},
        {"{\"shell\":\"x\",\"comand\":\"y\"}", "unknown_field", "comand"},
        {"{\"shell\":\"a\\u0000b\"}", "invalid_json", ""},
        {"[1]", "invalid_json", ""},
        {"{", "invalid_json", ""},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        request_json(f, EXEC, NULL, cases[i].body);
        expect_error(f, 400, cases[i].code, cases[i].words);
        assert_false(fake_recv(&f->agent, &f->frame));
    }
    request_json(f, "/v1/sandboxes/sb_2/exec", NULL, "{\"shell\":\"x\"}");
    expect_error(f, 404, "sandbox_not_found", "sb_2");
    request_json(f, EXEC "?x=1", NULL, "{\"shell\":\"x\"}");
    expect_error(f, 400, "unknown_field", "x");
}

static void test_command_not_started(void **state)
{
    struct fixture *f = *state;

    for (unsigned streamed = 0; streamed < 2; streamed++) {
        request_json(f, EXEC, streamed ? NDJSON : NULL, "{\"argv\":[\"nope\"]}");
        fake_failed(&f->agent, take_open(f), ENOENT, "nope: not found");
        cJSON *tree = reply_json(f, 422);
        const cJSON *error = cJSON_GetObjectItem(tree, "error");
        assert_string_equal(json_text(error, "code"), "command_not_started");
        assert_string_equal(json_text(error, "cause"), "nope: not found");
        assert_string_not_equal(json_text(error, "remedy"), "(none)");
        cJSON_Delete(tree);
    }
}

static void test_limits_and_losses(void **state)
{
    struct fixture *f = *state;

    request_json(f, EXEC, NULL, "{\"shell\":\"yes\",\"max_output_bytes\":4}");
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 1);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "123456", 6);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_SIGNALED, 9);
    cJSON *tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "end"), "output_limit");
    assert_string_equal(json_text(tree, "stdout"), "1234");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(tree, "truncated")));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(tree, "exit_code")));
    cJSON_Delete(tree);

    request_json(f, EXEC, NULL, "{\"shell\":\"sleep 9\",\"timeout_ms\":5000}");
    s = take_open(f);
    fake_exec_info(&f->agent, s, 1);
    fake_clock_move_ms(4999);
    assert_false(fake_recv(&f->agent, &f->frame));
    fake_clock_move_ms(2);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_SIGNALED, 9);
    tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "end"), "timeout");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(tree, "truncated")));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(tree, "exit_code")));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(tree, "signal")));
    cJSON_Delete(tree);

    request_json(f, EXEC, NULL, "{\"shell\":\"poweroff\"}");
    s = take_open(f);
    fake_exec_info(&f->agent, s, 1);
    fake_agent_fini(&f->agent);
    tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "end"), "sandbox_gone");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(tree, "exit_code")));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(cJSON_GetObjectItem(tree, "usage"), "user_ms")));
    cJSON_Delete(tree);
}

/* What all replies together may hold is nearly used up by others. */
static void test_gathered_in_sum(void **state)
{
    static const struct {
        const char *accept;
        uint64_t left;
        int status;
    } cases[] = {
        {NULL, 5, 503},     /* fewer than the output */
        {NULL, 20, 503},    /* room for that, and not for the reply made of it */
        {NDJSON, 0, 200},   /* nothing is gathered */
        {NULL, 10000, 200}, /* all of an earlier reply's share was given back */
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const uint64_t others = HTTP_REPLIES_BYTES_MAX - cases[i].left;

        f->budget.replies.bytes = others;
        request_json(f, EXEC, cases[i].accept, "{\"shell\":\"x\"}");
        uint32_t s = take_open(f);
        fake_exec_info(&f->agent, s, 1);
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "123456", 6);
        if (cases[i].left == 5)
            assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
        fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
        turn(f);
        if (cases[i].status == 503)
            expect_error(f, 503, "no_capacity", "the replies under way");
        assert_int_equal(reply_status(f), cases[i].status);
        assert_int_equal(f->budget.replies.bytes, others);
    }
}

static void test_hostile_guest_ends_the_exec(void **state)
{
    struct fixture *f = *state;

    request_json(f, EXEC, NULL, "{\"shell\":\"x\"}");
    fake_exec_end(&f->agent, take_open(f), CHANNEL_EXEC_EXITED, 0); /* of what never started */
    cJSON *tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "end"), "sandbox_gone");
    cJSON_Delete(tree);
    assert_false(f->sandbox.alive);
}

static void test_streamed(void **state)
{
    struct fixture *f = *state;
    size_t size;
    bool whole;

    request_json(f, EXEC, NDJSON, "{\"shell\":\"x\"}");
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 5);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "caf\xc3", 4);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "\xa9\n", 2);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_ERR, "\xfe", 1);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "\xe2\x82", 2);
    char *text = reply_chunks(f, &size, &whole);
    assert_string_equal(text, "{\"type\":\"start\",\"pid\":5}\n"
                              "{\"type\":\"stdout\",\"offset\":0,\"data\":\"caf\"}\n"
                              "{\"type\":\"stdout\",\"offset\":3,\"data\":\"\xc3\xa9\\n\"}\n"
                              "{\"type\":\"stderr\",\"offset\":6,\"data_base64\":\"/g==\"}\n");
    assert_false(whole);
    size_t before = size;
    free(text);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_SIGNALED, 15);
    text = reply_chunks(f, &size, &whole);
    assert_true(whole);
    const char *half = "{\"type\":\"stdout\",\"offset\":7,\"data_base64\":\"4oI=\"}\n";
    assert_memory_equal(text + before, half, strlen(half));
    cJSON *end = cJSON_Parse(text + before + strlen(half));
    assert_string_equal(json_text(end, "type"), "end");
    assert_string_equal(json_text(end, "end"), "signaled");
    assert_int_equal(json_number(end, "signal"), 15);
    assert_null(cJSON_GetObjectItem(end, "stdout"));
    cJSON_Delete(end);
    free(text);
}

static void test_streamed_loss_and_failure(void **state)
{
    struct fixture *f = *state;
    size_t size;
    bool whole;

    request_json(f, EXEC, NDJSON, "{\"shell\":\"x\"}");
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 5);
    fake_failed(&f->agent, s, EIO, "lost");
    char *text = reply_chunks(f, &size, &whole);
    assert_true(whole);
    assert_non_null(strstr(text, "\n{\"type\":\"error\",\"error\":{\"code\":\"internal\""));
    free(text);
    request_json(f, EXEC, NDJSON, "{\"shell\":\"x\"}");
    (void)take_open(f);
    fake_agent_fini(&f->agent);
    text = reply_chunks(f, &size, &whole);
    assert_true(whole);
    assert_non_null(strstr(text, "\"end\":\"sandbox_gone\""));
    free(text);
}

/* The guest's process is stopped by a client that does not read, and goes on when it does. */
static void test_slow_reader_stops_the_guest(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[32 * KIB];
    uint64_t credit = CHANNEL_WINDOW_BYTES, sent = 0;
    size_t size;
    bool whole;

    memset(block, 1, sizeof(block)); /* six bytes of JSON each */
    request_json(f, EXEC, NDJSON, "{\"shell\":\"yes\"}");
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 5);
    int client_fd = f->client_fd;
    f->client_fd = -1; /* nobody reads */
    for (unsigned i = 0; i < 1000; i++) {
        while (fake_recv(&f->agent, &f->frame)) {
            assert_int_equal(f->frame.h.type, CHANNEL_CREDIT);
            credit += credit_of(&f->frame);
        }
        if (credit < sizeof(block))
            break;
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, block, sizeof(block));
        credit -= sizeof(block);
        sent += sizeof(block);
    }
    assert_true(credit < sizeof(block));
    assert_true(sent < MIB);
    f->client_fd = client_fd;
    for (unsigned i = 0; i < 200; i++)
        turn(f);
    assert_true(fake_expect(&f->agent, CHANNEL_CREDIT, &f->frame));
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
    for (unsigned i = 0; i < 200; i++)
        turn(f);
    char *text = reply_chunks(f, &size, &whole);
    assert_true(whole);
    uint64_t received = 0;
    for (size_t i = 0; i + 1 < size; i++)
        received += text[i] == '\\' && text[i + 1] == 'u';
    assert_int_equal(received, sent);
    free(text);
}

/* The end waits for output that the client has not taken yet. */
static void test_end_comes_behind_held_output(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[CHANNEL_PAYLOAD_MAX];
    size_t size;
    bool whole;

    memset(block, 'x', sizeof(block));
    request_json(f, EXEC, NDJSON, "{\"shell\":\"x\"}");
    uint32_t s = take_open(f);
    int client_fd = f->client_fd;
    f->client_fd = -1;
    fake_exec_info(&f->agent, s, 5);
    for (unsigned lane = CHANNEL_LANE_OUT; lane <= CHANNEL_LANE_ERR; lane++) {
        for (size_t sent = 0; sent < CHANNEL_WINDOW_BYTES; sent += sizeof(block))
            fake_send(&f->agent, CHANNEL_DATA, s, lane, block, sizeof(block));
    }
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
    fake_agent_fini(&f->agent); /* even the sandbox may go meanwhile */
    f->client_fd = client_fd;
    for (unsigned i = 0; i < 100; i++)
        turn(f);
    char *text = reply_chunks(f, &size, &whole);
    assert_true(whole);
    size_t count = 0;
    for (size_t i = 0; i < size; i++)
        count += text[i] == 'x';
    assert_in_range(count, 2 * CHANNEL_WINDOW_BYTES, 2 * CHANNEL_WINDOW_BYTES + 10);
    assert_non_null(strstr(text, "\"end\":\"exited\""));
    free(text);
}

static void test_vanished_client_kills_the_command(void **state)
{
    struct fixture *f = *state;

    for (unsigned streamed = 0; streamed < 2; streamed++) {
        request_json(f, EXEC, streamed ? NDJSON : NULL, "{\"shell\":\"x\"}");
        uint32_t s = take_open(f);
        fake_exec_info(&f->agent, s, 5);
        fd_close(&f->client_fd);
        assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
        assert_int_equal(f->frame.h.stream, s);
        fake_exec_end(&f->agent, s, CHANNEL_EXEC_SIGNALED, 9);
        assert_true(TAILQ_EMPTY(&f->sandbox.processes.list));
    }
    assert_true(f->sandbox.alive);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        API_TEST(test_buffered),
        API_TEST(test_request_reaches_the_agent),
        API_TEST(test_defaults),
        API_TEST(test_bad_requests),
        API_TEST(test_command_not_started),
        API_TEST(test_limits_and_losses),
        API_TEST(test_gathered_in_sum),
        API_TEST(test_hostile_guest_ends_the_exec),
        API_TEST(test_streamed),
        API_TEST(test_streamed_loss_and_failure),
        API_TEST(test_slow_reader_stops_the_guest),
        API_TEST(test_end_comes_behind_held_output),
        API_TEST(test_vanished_client_kills_the_command),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
