/* Commands in a session: what its shell is given, and what becomes of what it says. */
#include "api_fixture.h"
#include "tests/fake_clock.h"

#define EXEC   "/v1/sandboxes/sb_1/exec"
#define NDJSON "application/x-ndjson"

/* The text that the shell was given last, and the marker in it. */
struct shell {
    uint32_t stream;
    char text[8192];
    char marker[40];
};

static void take_input(struct fixture *f, struct shell *s)
{
    assert_true(fake_expect(&f->agent, CHANNEL_DATA, &f->frame));
    assert_true(f->frame.h.length < sizeof(s->text));
    memcpy(s->text, f->frame.payload, f->frame.h.length);
    s->text[f->frame.h.length] = '\0';
    const char *at = strstr(s->text, "printf '\\036");
    assert_non_null(at);
    (void)snprintf(s->marker, sizeof(s->marker), "\036%.33s", at + 12);
}

static void send_request(struct fixture *f, const char *accept, const char *text,
                         const char *fields)
{
    char body[4096];

    (void)snprintf(body, sizeof(body), "{\"shell\":\"%s\",\"session\":\"main\"%s}", text, fields);
    request_json(f, EXEC, accept, body);
}

static void begin(struct fixture *f, struct shell *s, const char *text)
{
    send_request(f, NULL, text, "");
    s->stream = take_open(f);
    fake_exec_info(&f->agent, s->stream, 5);
    take_input(f, s);
}

/* The shell prints the end of its command. */
static void report(struct fixture *f, const struct shell *s, const char *text)
{
    char out[8192];

    (void)snprintf(out, sizeof(out), "%s%s%s", s->marker, text, s->marker);
    fake_send(&f->agent, CHANNEL_DATA, s->stream, CHANNEL_LANE_OUT, out, strlen(out));
    fake_send(&f->agent, CHANNEL_DATA, s->stream, CHANNEL_LANE_ERR, s->marker, strlen(s->marker));
}

static void expect_result(struct fixture *f, const char *end, int code, const char *out,
                          const char *err, const char *cwd)
{
    cJSON *tree = reply_json(f, 200);

    assert_string_equal(json_text(tree, "end"), end);
    assert_int_equal(json_number(tree, "exit_code"), code);
    assert_string_equal(json_text(tree, "stdout"), out);
    assert_string_equal(json_text(tree, "stderr"), err);
    assert_string_equal(json_text(tree, "cwd"), cwd);
    cJSON_Delete(tree);
}

static void test_commands_share_a_shell(void **state)
{
    struct fixture *f = *state;
    struct shell s;

    begin(f, &s, "it's");
    assert_non_null(strstr(s.text, "exec 8>&1 9>&2\ncommand eval 'it'\\''s' </dev/null"));
    fake_send(&f->agent, CHANNEL_DATA, s.stream, CHANNEL_LANE_OUT, "one", 3);
    fake_send(&f->agent, CHANNEL_DATA, s.stream, CHANNEL_LANE_ERR, "two", 3);
    report(f, &s, "3 /some where");
    expect_result(f, "exited", 3, "one", "two", "/some where");

    char first[40];
    memcpy(first, s.marker, sizeof(first));
    /* What jobs say in between is the next command's. */
    fake_send(&f->agent, CHANNEL_DATA, s.stream, CHANNEL_LANE_OUT, "job ", 4);
    send_request(f, NULL, "next", "");
    take_input(f, &s);
    assert_string_not_equal(first, s.marker);
    fake_send(&f->agent, CHANNEL_DATA, s.stream, CHANNEL_LANE_OUT, first, strlen(first));
    report(f, &s, "0 /");
    char wanted[64];
    (void)snprintf(wanted, sizeof(wanted), "job %s", first);
    expect_result(f, "exited", 0, wanted, "", "/");
}

static void test_streamed(void **state)
{
    struct fixture *f = *state;
    struct shell s;
    size_t size;
    bool whole;

    send_request(f, NDJSON, "x", "");
    s.stream = take_open(f);
    fake_exec_info(&f->agent, s.stream, 5);
    take_input(f, &s);
    fake_send(&f->agent, CHANNEL_DATA, s.stream, CHANNEL_LANE_OUT, "live", 4);
    char *text = reply_chunks(f, &size, &whole);
    assert_string_equal(text, "{\"type\":\"start\",\"pid\":5}\n"
                              "{\"type\":\"stdout\",\"offset\":0,\"data\":\"live\"}\n");
    free(text);
    report(f, &s, "0 /");
    text = reply_chunks(f, &size, &whole);
    assert_true(whole);
    assert_non_null(strstr(text, "\"end\":\"exited\",\"exit_code\":0"));
    free(text);
}

static void test_busy(void **state)
{
    struct fixture *f = *state;
    struct shell s;

    begin(f, &s, "sleep 9");
    int first_fd = f->client_fd;
    f->client_fd = -1;
    send_request(f, NULL, "x", "");
    expect_error(f, 409, "conflict", "busy");
    /* The client of the first leaves: what it started is killed, and the shell is not. */
    fd_close(&first_fd);
    assert_true(fake_expect(&f->agent, CHANNEL_SIGNAL, &f->frame));
    assert_int_equal(f->frame.h.lane, CHANNEL_SIGNAL_OTHERS);
    assert_int_equal(f->frame.payload[0], 9);
    report(f, &s, "137 /");
    fake_spin(&f->agent);
    send_request(f, NULL, "x", "");
    take_input(f, &s);
    report(f, &s, "0 /");
    expect_result(f, "exited", 0, "", "", "/");
}

static void test_cuts(void **state)
{
    struct fixture *f = *state;
    struct shell s;

    begin(f, &s, "true");
    report(f, &s, "0 /");
    expect_result(f, "exited", 0, "", "", "/");

    send_request(f, NULL, "sleep 9", ",\"timeout_ms\":5000");
    take_input(f, &s);
    fake_clock_move_ms(4999);
    assert_false(fake_recv(&f->agent, &f->frame));
    fake_clock_move_ms(2);
    assert_true(fake_expect(&f->agent, CHANNEL_SIGNAL, &f->frame));
    report(f, &s, "137 /x");
    expect_result(f, "timeout", -1, "", "", "/x");

    send_request(f, NULL, "yes", ",\"max_output_bytes\":4");
    take_input(f, &s);
    fake_send(&f->agent, CHANNEL_DATA, s.stream, CHANNEL_LANE_OUT, "123456", 6);
    assert_true(fake_expect(&f->agent, CHANNEL_SIGNAL, &f->frame));
    report(f, &s, "137 /");
    expect_result(f, "output_limit", -1, "1234", "", "/");
}

static void test_the_shell_ends(void **state)
{
    struct fixture *f = *state;
    struct shell s;

    begin(f, &s, "exit 7");
    fake_send(&f->agent, CHANNEL_DATA, s.stream, CHANNEL_LANE_OUT, "bye", 3);
    fake_exec_end(&f->agent, s.stream, CHANNEL_EXEC_EXITED, 7);
    cJSON *tree = reply_json(f, 200);
    assert_int_equal(json_number(tree, "exit_code"), 7);
    assert_string_equal(json_text(tree, "stdout"), "bye");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(tree, "session_ended")));
    /* What the shell used since its start is not the command's. */
    const cJSON *usage = cJSON_GetObjectItem(tree, "usage");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(usage, "user_ms")));
    assert_int_equal(json_number(usage, "stdin_bytes"), 0);
    assert_int_equal(json_number(usage, "stdout_bytes"), 3);
    cJSON_Delete(tree);

    begin(f, &s, "a new one");
    fake_agent_fini(&f->agent);
    tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "end"), "sandbox_gone");
    cJSON_Delete(tree);
}

static void test_a_shell_that_cannot_start(void **state)
{
    struct fixture *f = *state;

    send_request(f, NULL, "x", ",\"user\":\"nemo\"");
    fake_failed(&f->agent, take_open(f), EINVAL, "user nemo: none");
    expect_error(f, 422, "command_not_started", "/bin/sh");
}

/* A guest that has changed the shell gets nothing past us that is not an exit code. */
static void test_false_reports(void **state)
{
    static const char *const reports[] = {"256 /", "-1 /", "x", ""};
    struct fixture *f = *state;
    struct shell s;

    begin(f, &s, "x");
    for (size_t i = 0; i < sizeof(reports) / sizeof(reports[0]); i++) {
        if (i > 0) {
            send_request(f, NULL, "x", "");
            take_input(f, &s);
        }
        report(f, &s, reports[i]);
        expect_error(f, 500, "internal", "exit code");
    }
}

static void test_bad_requests(void **state)
{
    static const struct {
        const char *fields;
        const char *words;
    } cases[] = {{"\"shell\":\"x\",\"session\":\"\"", "session"},
                 {"\"shell\":\"x\",\"session\":\"a b\"", "session"},
                 {"\"argv\":[\"x\"],\"session\":\"a\"", "argv"},
                 {"\"shell\":\"x\",\"session\":\"a\",\"stdin\":\"\"", "stdin"},
                 {"\"shell\":\"x\",\"session\":\"a\",\"background\":true", "background"},
                 {"\"shell\":\"x\",\"session\":\"main\",\"cwd\":\"/\"", "cwd"}};
    struct fixture *f = *state;
    struct shell s;
    char body[256];

    begin(f, &s, "x");
    report(f, &s, "0 /");
    expect_result(f, "exited", 0, "", "", "/");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        (void)snprintf(body, sizeof(body), "{%s}", cases[i].fields);
        request_json(f, EXEC, NULL, body);
        expect_error(f, 400, "invalid_field", cases[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        API_TEST(test_commands_share_a_shell),
        API_TEST(test_streamed),
        API_TEST(test_busy),
        API_TEST(test_cuts),
        API_TEST(test_the_shell_ends),
        API_TEST(test_a_shell_that_cannot_start),
        API_TEST(test_false_reports),
        API_TEST(test_bad_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
