/* Background processes: started, listed, followed, replayed, fed, signaled, waited for, removed. */
#include "api_fixture.h"
#include "tests/fake_clock.h"

#define EXEC      "/v1/sandboxes/sb_1/exec"
#define PROCESSES "/v1/sandboxes/sb_1/processes"
#define NDJSON    "application/x-ndjson"

/* Starts a command in the background; it runs as `pid`. Returns its stream. */
static uint32_t start(struct fixture *f, uint32_t pid, const char *fields)
{
    char body[256];

    (void)snprintf(body, sizeof(body), "{\"shell\":\"x\",\"background\":true%s}", fields);
    request_json(f, EXEC, NULL, body);
    uint32_t s = take_open(f);
    assert_int_equal(reply_status(f), 0);
    fake_exec_info(&f->agent, s, pid);
    cJSON *tree = reply_json(f, 201);
    assert_int_equal(json_number(tree, "pid"), pid);
    assert_string_equal(json_text(tree, "state"), "running");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(tree, "background")));
    assert_string_equal(json_text(tree, "command"), "x");
    cJSON_Delete(tree);
    return s;
}

static cJSON *get(struct fixture *f, const char *target, int status)
{
    request(f, "GET", target, NULL, "", 0);
    return reply_json(f, status);
}

static char *get_output(struct fixture *f, const char *query)
{
    char target[128];
    size_t size;
    bool whole;

    (void)snprintf(target, sizeof(target), PROCESSES "/7/output%s", query);
    request(f, "GET", target, NDJSON, "", 0);
    char *text = reply_chunks(f, &size, &whole);
    return text;
}

static void test_background_outlives_its_client(void **state)
{
    struct fixture *f = *state;
    uint32_t s = start(f, 7, "");

    fd_close(&f->client_fd);
    fake_spin(&f->agent);
    assert_false(fake_recv(&f->agent, &f->frame)); /* no RESET */
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "out", 3);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_ERR, "err", 3);

    cJSON *tree = get(f, PROCESSES, 200);
    const cJSON *list = cJSON_GetObjectItem(tree, "processes");
    assert_int_equal(cJSON_GetArraySize(list), 1);
    assert_int_equal(json_number(cJSON_GetArrayItem(list, 0), "pid"), 7);
    cJSON_Delete(tree);

    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 3);
    tree = get(f, PROCESSES "/7", 200);
    assert_string_equal(json_text(tree, "state"), "ended");
    assert_string_equal(json_text(tree, "end"), "exited");
    assert_int_equal(json_number(tree, "exit_code"), 3);
    const cJSON *usage = cJSON_GetObjectItem(tree, "usage");
    assert_int_equal(json_number(usage, "stdout_bytes"), 3);
    assert_int_equal(json_number(usage, "stderr_bytes"), 3);
    cJSON_Delete(tree);

    char *text = get_output(f, "");
    const char *wanted = "{\"type\":\"start\",\"pid\":7}\n"
                         "{\"type\":\"stdout\",\"offset\":0,\"data\":\"out\"}\n"
                         "{\"type\":\"stderr\",\"offset\":3,\"data\":\"err\"}\n"
                         "{\"type\":\"end\",\"end\":\"exited\",\"exit_code\":3,";
    assert_memory_equal(text, wanted, strlen(wanted));
    free(text);

    request(f, "DELETE", PROCESSES "/7", NULL, "", 0);
    cJSON_Delete(reply_json(f, 200));
    request(f, "GET", PROCESSES "/7", NULL, "", 0);
    expect_error(f, 404, "process_not_found", "7");
}

static void test_replay_from_an_offset(void **state)
{
    struct fixture *f = *state;
    uint32_t s = start(f, 7, "");

    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "0123456789", 10);
    char *text = get_output(f, "?from=4");
    assert_string_equal(text, "{\"type\":\"start\",\"pid\":7}\n"
                              "{\"type\":\"stdout\",\"offset\":4,\"data\":\"456789\"}\n"
                              "{\"type\":\"running\",\"offset\":10}\n");
    free(text);
    request(f, "GET", PROCESSES "/7/output?from=11", NULL, "", 0);
    expect_error(f, 400, "invalid_field", "from");
    request(f, "GET", PROCESSES "/7/output?from=-1", NULL, "", 0);
    expect_error(f, 400, "invalid_field", "from");
    request(f, "GET", PROCESSES "/7/output?follow=1", NULL, "", 0);
    expect_error(f, 400, "invalid_field", "follow");
    request(f, "GET", PROCESSES "/07/output", NULL, "", 0);
    expect_error(f, 404, "process_not_found", "07");
}

static void test_what_is_gone_is_told(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[CHANNEL_PAYLOAD_MAX];
    uint32_t s = start(f, 7, ",\"keep_output_bytes\":1");
    uint64_t sent = 0, credit = CHANNEL_WINDOW_BYTES;

    /* Nobody follows: the guest is never stopped. */
    memset(block, 'x', sizeof(block));
    while (sent < 3 * PROCESS_RING_BYTES_MIN) {
        if (credit < sizeof(block)) {
            assert_true(fake_expect(&f->agent, CHANNEL_CREDIT, &f->frame));
            credit += credit_of(&f->frame);
            continue;
        }
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, block, sizeof(block));
        sent += sizeof(block);
        credit -= sizeof(block);
    }
    char *text = get_output(f, "?from=5");
    char wanted[128];
    (void)snprintf(wanted, sizeof(wanted), "\n{\"type\":\"missed\",\"offset\":5,\"bytes\":%llu}\n",
                   (unsigned long long)(sent - PROCESS_RING_BYTES_MIN - 5));
    assert_non_null(strstr(text, wanted));
    free(text);
}

/* Who follows does not miss anything: the guest waits. When he goes, it goes on. */
static void test_the_guest_waits_for_a_follower(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[32 * KIB];
    uint32_t s = start(f, 7, "");
    uint64_t credit = CHANNEL_WINDOW_BYTES, sent = 0;

    memset(block, 1, sizeof(block));
    request(f, "GET", PROCESSES "/7/output?follow=true", NDJSON, "", 0);
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
    assert_in_range(sent, PROCESS_RING_BYTES_MIN / 2, 2 * PROCESS_RING_BYTES_MIN);
    cJSON *tree = NULL;
    fd_close(&client_fd);
    for (unsigned i = 0; i < 20; i++)
        fake_spin(&f->agent);
    assert_true(fake_expect(&f->agent, CHANNEL_CREDIT, &f->frame));
    tree = get(f, PROCESSES "/7", 200);
    assert_string_equal(json_text(tree, "state"), "running");
    cJSON_Delete(tree);
}

static void test_stdin(void **state)
{
    struct fixture *f = *state;
    uint32_t s = start(f, 7, ",\"stdin_open\":true,\"stdin\":\"first \"");

    assert_true(fake_expect(&f->agent, CHANNEL_DATA, &f->frame));
    assert_memory_equal(f->frame.payload, "first ", 6);
    request(f, "POST", PROCESSES "/7/stdin", NULL, "more", 4);
    cJSON *tree = reply_json(f, 200);
    assert_int_equal(json_number(tree, "bytes"), 4);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(tree, "stdin_open")));
    cJSON_Delete(tree);
    assert_true(fake_expect(&f->agent, CHANNEL_DATA, &f->frame));
    assert_memory_equal(f->frame.payload, "more", 4);
    request(f, "POST", PROCESSES "/7/stdin?close=true", NULL, "", 0);
    cJSON_Delete(reply_json(f, 200));
    assert_true(fake_expect(&f->agent, CHANNEL_EOF, &f->frame));
    request(f, "POST", PROCESSES "/7/stdin", NULL, "x", 1);
    expect_error(f, 409, "conflict", "stdin");
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
    tree = get(f, PROCESSES "/7", 200);
    assert_int_equal(json_number(cJSON_GetObjectItem(tree, "usage"), "stdin_bytes"), 10);
    cJSON_Delete(tree);
    request(f, "POST", PROCESSES "/7/stdin", NULL, "x", 1);
    expect_error(f, 409, "conflict", "stdin");
}

/* A large input stops at what the guest takes; the end of the process ends the request. */
static void test_stdin_has_back_pressure(void **state)
{
    struct fixture *f = *state;
    static char input[2 * CHANNEL_WINDOW_BYTES];
    uint32_t s = start(f, 7, ",\"stdin_open\":true");
    size_t sent = 0;

    memset(input, 'i', sizeof(input));
    connect_client(f);
    char head[128];
    int length = snprintf(head, sizeof(head),
                          "POST " PROCESSES "/7/stdin HTTP/1.1\r\nHost: x\r\n"
                          "Content-Length: %u\r\n\r\n",
                          64u << 20);
    client_send(f, head, (size_t)length);
    for (unsigned i = 0; i < 2000; i++) {
        ssize_t n = send(f->client_fd, input, sizeof(input), MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        fake_spin(&f->agent);
    }
    assert_true(sent < 4 * MIB);
    assert_int_equal(reply_status(f), 0);

    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
    expect_error(f, 409, "conflict", "ended");
}

/* All of it gets there, in its order, through a guest that takes a window of it at a time. */
static void test_stdin_larger_than_a_window(void **state)
{
    struct fixture *f = *state;
    static char input[4 * CHANNEL_WINDOW_BYTES + 3];
    uint32_t s = start(f, 7, ",\"stdin_open\":true");
    size_t sent = 0, got = 0, granted = CHANNEL_WINDOW_BYTES;
    char head[128];

    for (size_t i = 0; i < sizeof(input); i++)
        input[i] = (char)(i * 7);
    connect_client(f);
    int length = snprintf(head, sizeof(head),
                          "POST " PROCESSES "/7/stdin?close=true HTTP/1.1\r\nHost: x\r\n"
                          "Content-Length: %zu\r\n\r\n",
                          sizeof(input));
    client_send(f, head, (size_t)length);
    for (unsigned quiet = 0; got < sizeof(input);) {
        ssize_t n = send(f->client_fd, input + sent, sizeof(input) - sent, MSG_DONTWAIT);
        sent += n > 0 ? (size_t)n : 0;
        if (fake_recv(&f->agent, &f->frame)) {
            assert_int_equal(f->frame.h.type, CHANNEL_DATA);
            assert_memory_equal(f->frame.payload, input + got, f->frame.h.length);
            got += f->frame.h.length;
            quiet = 0;
        } else if (n <= 0 && ++quiet > 20) { /* all between is full */
            assert_int_equal(got, granted);
            fake_send_u32(&f->agent, CHANNEL_CREDIT, s, CHANNEL_LANE_IN, CHANNEL_WINDOW_BYTES);
            granted += CHANNEL_WINDOW_BYTES;
        }
    }
    assert_true(fake_expect(&f->agent, CHANNEL_EOF, &f->frame));
    cJSON *tree = reply_json(f, 200);
    assert_int_equal(json_number(tree, "bytes"), sizeof(input));
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(tree, "stdin_open")));
    cJSON_Delete(tree);
}

/* What closes behind the input that came with the request is closed to others from the start. */
static void test_stdin_that_closes_takes_no_more(void **state)
{
    struct fixture *f = *state;
    size_t size = 2 * CHANNEL_WINDOW_BYTES;
    struct buffer body = BUFFER_INIT(MIB);

    assert_int_equal(
        buffer_append_text(&body, "{\"argv\":[\"x\"],\"background\":true,\"stdin\":\""), 0);
    uint8_t *to = buffer_reserve(&body, size);
    assert_non_null(to);
    memset(to, 'a', size);
    buffer_commit(&body, size);
    assert_int_equal(buffer_append(&body, "\"}", 2), 0);
    request(f, "POST", EXEC, NULL, buffer_bytes(&body), body.size);
    buffer_fini(&body);
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 7);
    cJSON *tree = reply_json(f, 201);
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(tree, "stdin_open")));
    cJSON_Delete(tree);
    request(f, "POST", PROCESSES "/7/stdin", NULL, "more", 4);
    for (size_t got = 0; got < size; got += f->frame.h.length) {
        if (got >= CHANNEL_WINDOW_BYTES && got - f->frame.h.length < CHANNEL_WINDOW_BYTES)
            fake_send_u32(&f->agent, CHANNEL_CREDIT, s, CHANNEL_LANE_IN, CHANNEL_WINDOW_BYTES);
        assert_true(fake_expect(&f->agent, CHANNEL_DATA, &f->frame));
    }
    assert_true(fake_expect(&f->agent, CHANNEL_EOF, &f->frame));
    expect_error(f, 409, "conflict", "stdin");
}

static void test_signal(void **state)
{
    static const struct {
        const char *body;
        uint32_t number;
    } cases[] = {{"{\"signal\":\"TERM\"}", 15},
                 {"{\"signal\":\"SIGUSR1\"}", 10},
                 {"{\"signal\":\"64\"}", 64},
                 {"{\"signal\":\"RTMIN+2\"}", 36}};
    static const char *const bad[] = {"{\"signal\":\"0\"}",          "{\"signal\":\"65\"}",
                                      "{\"signal\":\"term\"}",       "{\"signal\":\"RTMIN+31\"}",
                                      "{\"signal\":\"15x\"}",        "{\"signal\":\"RTMIN+0\"}",
                                      "{\"signal\":\"SIGSIGTERM\"}", "{}"};
    struct fixture *f = *state;
    uint32_t s = start(f, 7, "");

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        request_json(f, PROCESSES "/7/signal", NULL, cases[i].body);
        assert_int_equal(reply_status(f), 204);
        assert_true(fake_expect(&f->agent, CHANNEL_SIGNAL, &f->frame));
        assert_int_equal(f->frame.h.stream, s);
        assert_int_equal(f->frame.payload[0], cases[i].number);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        request_json(f, PROCESSES "/7/signal", NULL, bad[i]);
        expect_error(f, 400, "invalid_field", "signal");
    }
    request_json(f, PROCESSES "/8/signal", NULL, "{\"signal\":\"TERM\"}");
    expect_error(f, 404, "process_not_found", "8");
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_SIGNALED, 15);
    request_json(f, PROCESSES "/7/signal", NULL, "{\"signal\":\"TERM\"}");
    expect_error(f, 409, "conflict", "ended");
}

static void test_wait(void **state)
{
    struct fixture *f = *state;
    uint32_t s = start(f, 7, "");

    cJSON *tree = get(f, PROCESSES "/7?wait_ms=0", 200);
    assert_string_equal(json_text(tree, "state"), "running");
    cJSON_Delete(tree);
    request(f, "GET", PROCESSES "/7?wait_ms=1000", NULL, "", 0);
    fake_clock_move_ms(999);
    assert_int_equal(reply_status(f), 0);
    fake_clock_move_ms(2);
    tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "state"), "running");
    cJSON_Delete(tree);
    request(f, "GET", PROCESSES "/7?wait_ms=60000", NULL, "", 0);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "x", 1);
    assert_int_equal(reply_status(f), 0);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
    tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "state"), "ended");
    cJSON_Delete(tree);
    request(f, "GET", PROCESSES "/7?wait_ms=600001", NULL, "", 0);
    expect_error(f, 400, "invalid_field", "wait_ms");
    request(f, "GET", PROCESSES "/7?wait_ms=soon", NULL, "", 0);
    expect_error(f, 400, "invalid_field", "wait_ms");
}

static void test_delete_kills(void **state)
{
    struct fixture *f = *state;
    uint32_t s = start(f, 7, "");

    request(f, "DELETE", PROCESSES "/7", NULL, "", 0);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    assert_int_equal(reply_status(f), 0);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_SIGNALED, 9);
    cJSON *tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "end"), "signaled");
    assert_int_equal(json_number(tree, "signal"), 9);
    cJSON_Delete(tree);
    tree = get(f, PROCESSES, 200);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(tree, "processes")), 0);
    cJSON_Delete(tree);
}

/* One in the foreground is there while it runs, for others to see and signal. */
static void test_foreground_is_listed(void **state)
{
    struct fixture *f = *state;

    request_json(f, EXEC, NULL, "{\"argv\":[\"sleep\",\"9\"]}");
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 9);
    int first_fd = f->client_fd;
    f->client_fd = -1;
    cJSON *tree = get(f, PROCESSES "/9", 200);
    assert_string_equal(json_text(tree, "command"), "sleep 9");
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(tree, "background")));
    cJSON_Delete(tree);
    request_json(f, PROCESSES "/9/signal", NULL, "{\"signal\":\"INT\"}");
    assert_true(fake_expect(&f->agent, CHANNEL_SIGNAL, &f->frame));
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_SIGNALED, 2);
    request(f, "GET", PROCESSES "/9", NULL, "", 0);
    expect_error(f, 404, "process_not_found", "9");
    fd_close(&first_fd);
}

/* Who looks on takes nothing from who started it. */
static void test_foreground_has_onlookers(void **state)
{
    struct fixture *f = *state;

    request_json(f, EXEC, NULL, "{\"argv\":[\"x\"]}");
    uint32_t s = take_open(f);
    fake_exec_info(&f->agent, s, 9);
    int owner_fd = f->client_fd;
    f->client_fd = -1;
    request(f, "GET", PROCESSES "/9?wait_ms=600000", NULL, "", 0);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "all ", 4);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "of ", 3);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "it", 2);
    fake_exec_end(&f->agent, s, CHANNEL_EXEC_EXITED, 0);
    cJSON_Delete(reply_json(f, 200));
    fd_close(&f->client_fd);
    buffer_consume(&f->reply, f->reply.size);
    f->client_fd = owner_fd;
    cJSON *tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "stdout"), "all of it");
    cJSON_Delete(tree);
}

static void test_the_oldest_ended_are_forgotten(void **state)
{
    struct fixture *f = *state;

    for (uint32_t pid = 1; pid <= PROCESS_ENDED_MAX + 2; pid++)
        fake_exec_end(&f->agent, start(f, pid, ""), CHANNEL_EXEC_EXITED, 0);
    cJSON *tree = get(f, PROCESSES, 200);
    const cJSON *list = cJSON_GetObjectItem(tree, "processes");
    assert_int_equal(cJSON_GetArraySize(list), PROCESS_ENDED_MAX);
    assert_int_equal(json_number(cJSON_GetArrayItem(list, 0), "pid"), 3);
    cJSON_Delete(tree);
}

static void test_losses(void **state)
{
    struct fixture *f = *state;

    /* One that cannot be started is not kept. */
    request_json(f, EXEC, NULL, "{\"argv\":[\"nope\"],\"background\":true}");
    fake_failed(&f->agent, take_open(f), ENOENT, "nope: not found");
    expect_error(f, 422, "command_not_started", "nope");
    cJSON *tree = get(f, PROCESSES, 200);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(tree, "processes")), 0);
    cJSON_Delete(tree);

    /* One whose agent gives it no number has not started. */
    request_json(f, EXEC, NULL, "{\"argv\":[\"x\"],\"background\":true}");
    fake_exec_info(&f->agent, take_open(f), 0);
    expect_error(f, 410, "sandbox_gone", "before the command had started");
    give_agent(f);

    /* The sandbox goes: who follows reads all there was, and then that. */
    uint32_t s = start(f, 7, "");
    request(f, "GET", PROCESSES "/7/output?follow=true", NDJSON, "", 0);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_OUT, "last words", 10);
    fake_agent_fini(&f->agent);
    size_t size;
    bool whole;
    char *text = reply_chunks(f, &size, &whole);
    assert_true(whole);
    assert_non_null(strstr(text, "last words"));
    assert_non_null(strstr(text, "\"end\":\"sandbox_gone\",\"exit_code\":null"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        API_TEST(test_background_outlives_its_client),
        API_TEST(test_replay_from_an_offset),
        API_TEST(test_what_is_gone_is_told),
        API_TEST(test_the_guest_waits_for_a_follower),
        API_TEST(test_stdin),
        API_TEST(test_stdin_has_back_pressure),
        API_TEST(test_stdin_larger_than_a_window),
        API_TEST(test_stdin_that_closes_takes_no_more),
        API_TEST(test_signal),
        API_TEST(test_wait),
        API_TEST(test_delete_kills),
        API_TEST(test_foreground_is_listed),
        API_TEST(test_foreground_has_onlookers),
        API_TEST(test_the_oldest_ended_are_forgotten),
        API_TEST(test_losses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
