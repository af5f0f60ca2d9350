/* Requests that come again, and requests whose time is over: what the guest gets to see of them. */
#include "api_fixture.h"
#include "tests/fake_clock.h"

#define EXEC     "/v1/sandboxes/sb_1/exec"
#define NDJSON   "application/x-ndjson"
#define KEY      "Idempotency-Key: k-1\r\n"
#define SHORT    "Request-Timeout: 20\r\n"
#define SHORT_MS 20000u

static void turn_some(struct fixture *f)
{
    for (unsigned i = 0; i < 8; i++)
        turn(f);
}

/* The guest was asked for nothing more. */
static void expect_silence(struct fixture *f)
{
    turn_some(f);
    assert_int_equal(recv(f->agent.fd, f->frame.payload, 1, MSG_DONTWAIT | MSG_PEEK), -1);
}

/* The frame that stops a stream. */
static void expect_reset(struct fixture *f, uint32_t stream)
{
    turn_some(f);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    assert_int_equal(f->frame.h.stream, stream);
}

/* The request's time is over after this, and no sooner. */
static void pass_deadline(struct fixture *f)
{
    fake_clock_move_ms(SHORT_MS - 1);
    expect_silence(f);
    assert_true(f->sandbox.alive);
    fake_clock_move_ms(2);
    turn_some(f);
}

static void run_once(struct fixture *f, const char *out)
{
    uint32_t s = take_open(f);

    fake_exec_info(&f->agent, s, 12);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, out, strlen(out));
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
}

static void expect_stdout(struct fixture *f, const char *out, bool is_replayed)
{
    cJSON *tree = reply_json(f, 200);

    assert_string_equal(json_text(tree, "stdout"), out);
    cJSON_Delete(tree);
    assert_int_equal(strstr((char *)buffer_bytes(&f->reply), "Idempotency-Replayed: true\r\n") !=
                         NULL,
                     is_replayed);
}

static void test_exec_runs_once(void **state)
{
    struct fixture *f = *state;

    f->headers = KEY;
    request_json(f, EXEC, NULL, "{\"shell\":\"date\"}");
    run_once(f, "first");
    expect_stdout(f, "first", false);
    request_json(f, EXEC, NULL, "{\"shell\":\"date\"}");
    expect_stdout(f, "first", true);
    expect_silence(f);
    request_json(f, EXEC, NULL, "{\"shell\":\"id\"}");
    expect_error(f, 422, "idempotency_mismatch", "another body");
    expect_silence(f);
    /* The result outlives the sandbox. */
    end_sandbox(&f->sandbox);
    request_json(f, EXEC, NULL, "{\"shell\":\"date\"}");
    expect_stdout(f, "first", true);
}

static void test_exec_that_was_not_started(void **state)
{
    struct fixture *f = *state;

    f->headers = KEY;
    request_json(f, EXEC, NULL, "{\"argv\":[\"nope\"]}");
    fake_failed(&f->agent, take_open(f), ENOENT, "nope: not found");
    expect_error(f, 422, "command_not_started", "nope");
    request_json(f, EXEC, NULL, "{\"argv\":[\"nope\"]}");
    run_once(f, "now");
    expect_stdout(f, "now", false);
}

/* A command that was killed with its client has run in part: not again by itself. */
static void test_exec_whose_client_vanished(void **state)
{
    struct fixture *f = *state;

    f->headers = KEY;
    request_json(f, EXEC, NULL, "{\"shell\":\"work\"}");
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 12);
    fd_close(&f->client_fd);
    expect_reset(f, s);
    request_json(f, EXEC, NULL, "{\"shell\":\"work\"}");
    expect_error(f, 409, "conflict", "not done again");
    expect_silence(f);
}

/* One in the background goes on without its client, and only once. */
static void test_background_whose_client_vanished(void **state)
{
    static const char body[] = "{\"shell\":\"work\",\"background\":true}";
    struct fixture *f = *state;

    f->headers = KEY;
    request_json(f, EXEC, NULL, body);
    uint32_t s = take_open(f);
    fd_close(&f->client_fd);
    turn_some(f);
    request_json(f, EXEC, NULL, body);
    expect_error(f, 409, "conflict", "not done again");
    fake_exec_info(&f->agent, s, 12);
    expect_silence(f);
    f->headers = NULL;
    request(f, "GET", "/v1/sandboxes/sb_1/processes", NULL, "", 0);
    cJSON *tree = reply_json(f, 200);
    const cJSON *processes = cJSON_GetObjectItem(tree, "processes");
    assert_int_equal(cJSON_GetArraySize(processes), 1);
    assert_string_equal(json_text(cJSON_GetArrayItem(processes, 0), "state"), "running");
    cJSON_Delete(tree);
}

/* A refusal that may pass by itself does not use its key up. */
static void test_exec_without_room_is_done_later(void **state)
{
    static const char body[] = "{\"shell\":\"work\",\"background\":true}";
    struct fixture *f = *state;

    f->headers = KEY;
    f->process_memory.bytes = PROCESSES_BYTES_MAX;
    for (unsigned i = 0; i < 2; i++) {
        request_json(f, EXEC, NULL, body);
        expect_error(f, 503, "no_capacity", "background");
    }
    f->process_memory.bytes = 0;
    request_json(f, EXEC, NULL, body);
    fake_exec_info(&f->agent, take_open(f), 12);
    cJSON_Delete(reply_json(f, 201));
}

static void test_run_is_undone_and_done_anew(void **state)
{
    static const char body[] = "{\"shell\":\"work\"}";
    struct fixture *f = *state;

    f->headers = KEY;
    request_json(f, "/v1/run", NULL, body);
    (void)take_open(f);
    fd_close(&f->client_fd);
    turn_some(f);
    assert_int_equal(f->sandbox.destroyed_count, 1);
    request_json(f, "/v1/run", NULL, body);
    run_once(f, "second");
    expect_stdout(f, "second", false);
    assert_int_equal(f->sandbox.created_count, 2);
    assert_int_equal(f->sandbox.destroyed_count, 2);
    request_json(f, "/v1/run", NULL, body);
    expect_stdout(f, "second", true);
    assert_int_equal(f->sandbox.created_count, 2);
}

static void test_run_that_is_refused_keeps_nothing(void **state)
{
    struct fixture *f = *state;

    f->headers = KEY;
    (void)error_set(&f->create_error, ERR_NO_CAPACITY, "the host is full");
    request_json(f, "/v1/run", NULL, "{\"shell\":\"x\"}");
    expect_error(f, 503, "no_capacity", "full");
    f->create_error.code = ERR_NONE;
    request_json(f, "/v1/run", NULL, "{\"shell\":\"x\"}");
    run_once(f, "now");
    expect_stdout(f, "now", false);
}

static void test_deadline_kills_the_command(void **state)
{
    struct fixture *f = *state;

    f->headers = SHORT;
    request_json(f, EXEC, NULL, "{\"shell\":\"sleep 99\"}");
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 12);
    pass_deadline(f);
    expect_reset(f, s);
    expect_error(f, 504, "deadline_exceeded", "Request-Timeout");
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_SIGNALED, 9);
    expect_silence(f);
    f->headers = NULL;
    request_json(f, EXEC, NULL, "{\"shell\":\"true\"}");
    run_once(f, "ok");
    expect_stdout(f, "ok", false);
}

static void test_deadline_of_a_stream(void **state)
{
    struct fixture *f = *state;
    size_t size;
    bool whole;

    f->headers = SHORT;
    request_json(f, EXEC, NDJSON, "{\"shell\":\"sleep 99\"}");
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 12);
    pass_deadline(f);
    expect_reset(f, s);
    char *text = reply_chunks(f, &size, &whole);
    assert_true(whole);
    static const char expected[] = "{\"type\":\"start\",\"pid\":12}\n{\"type\":\"error\",\"error\":"
                                   "{\"code\":\"deadline_exceeded\",";
    assert_memory_equal(text, expected, strlen(expected));
    free(text);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_SIGNALED, 9);
}

static void test_deadline_destroys_the_sandbox_of_a_run(void **state)
{
    struct fixture *f = *state;

    f->headers = SHORT;
    request_json(f, "/v1/run", NULL, "{\"shell\":\"sleep 99\"}");
    (void)take_open(f);
    pass_deadline(f);
    expect_error(f, 504, "deadline_exceeded", "Request-Timeout");
    assert_int_equal(f->sandbox.destroyed_count, 1);
    assert_false(f->sandbox.alive);
}

static void test_deadline_drops_half_a_file(void **state)
{
    static const char head[] =
        "PUT /v1/sandboxes/sb_1/files?path=/w/a HTTP/1.1\r\nHost: x\r\n" SHORT
        "Content-Length: 10\r\n\r\nhalf";
    struct fixture *f = *state;

    connect_client(f);
    client_send(f, head, strlen(head));
    uint32_t s = take_open(f);
    assert_true(fake_expect(&f->agent, CHANNEL_DATA, &f->frame));
    pass_deadline(f);
    expect_reset(f, s);
    expect_error(f, 504, "deadline_exceeded", "Request-Timeout");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        API_TEST(test_exec_runs_once),
        API_TEST(test_exec_that_was_not_started),
        API_TEST(test_exec_whose_client_vanished),
        API_TEST(test_background_whose_client_vanished),
        API_TEST(test_exec_without_room_is_done_later),
        API_TEST(test_run_is_undone_and_done_anew),
        API_TEST(test_run_that_is_refused_keeps_nothing),
        API_TEST(test_deadline_kills_the_command),
        API_TEST(test_deadline_of_a_stream),
        API_TEST(test_deadline_destroys_the_sandbox_of_a_run),
        API_TEST(test_deadline_drops_half_a_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
