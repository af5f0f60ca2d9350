/* The API's handlers, the agent link and the real agent in a process of its own: both ends of the
 * channel as they are, without a guest between them. */
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "api_fixture.h"
#include "guest/channel/service.h"
#include "guest/operations.h"

#define EXEC   "/v1/sandboxes/sb_1/exec"
#define FILES  "/v1/sandboxes/sb_1/files"
#define NDJSON "application/x-ndjson"

static pid_t agent_pid;

static void run_agent(int fd)
{
    static const struct layers layers = LAYERS_NONE;
    static struct operations operations;
    static struct service service;
    struct error e = ERROR_INIT;

    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    if (operations_init(&operations, NULL, &layers, &e) < 0 ||
        service_init(&service, fd, operations.rows, OPERATION_COUNT, &e) < 0)
        _exit(3);
    service_when_idle(&service, operations_tidy, &operations);
    int result = service_run(&service, &e);
    if (result < 0)
        fprintf(stderr, "agent: %s\n", e.message);
    service_fini(&service);
    operations_fini(&operations);
    _exit(result < 0 ? 2 : 0);
}

/* The fixture's fake agent makes room for the real one. */
static int set_up_agent(void **state)
{
    struct error e = ERROR_INIT;
    int fds[2];

    if (set_up(state) != 0)
        return -1;
    struct fixture *f = *state;
    end_sandbox(&f->sandbox);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    agent_pid = fork();
    assert_true(agent_pid >= 0);
    if (agent_pid == 0) {
        (void)close(fds[0]);
        run_agent(fds[1]);
    }
    (void)close(fds[1]);
    assert_int_equal(agent_link_new(&f->loop, fds[0], on_broken, &f->sandbox, &f->sandbox.link, &e),
                     0);
    f->sandbox.alive = true;
    return 0;
}

static int tear_down_agent(void **state)
{
    int status = 0;

    assert_int_equal(tear_down(state), 0);
    assert_int_equal(waitpid(agent_pid, &status, 0), agent_pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    return 0;
}

/* Turns the loop until a reply has a head and, where that says so, all of its body. */
static void wait_reply(struct fixture *f)
{
    while (!f->client_eof) {
        char *body = reply_body(f);
        const char *length =
            body != NULL ? strstr((char *)buffer_bytes(&f->reply), "\r\nContent-Length: ") : NULL;
        size_t size;
        bool whole = false;

        if (length != NULL && length < body) {
            size_t have = f->reply.size - (size_t)(body - (char *)buffer_bytes(&f->reply));
            whole = have >= strtoul(length + 18, NULL, 10);
        } else if (body != NULL) {
            free(reply_chunks(f, &size, &whole));
        }
        if (whole)
            return;
        (void)usleep(1000);
    }
    fail_msg("no whole reply; got: %.300s", f->reply.size > 0 ? (char *)f->reply.data : "nothing");
}

static cJSON *exec_json(struct fixture *f, const char *body)
{
    request_json(f, EXEC, NULL, body);
    wait_reply(f);
    return reply_json(f, 200);
}

static void test_commands(void **state)
{
    struct fixture *f = *state;
    cJSON *tree = exec_json(f, "{\"shell\":\"echo out; echo err >&2; cat; exit 3\","
                               "\"stdin\":\"in\\n\",\"cwd\":\"/\"}");
    assert_string_equal(json_text(tree, "end"), "exited");
    assert_int_equal(json_number(tree, "exit_code"), 3);
    assert_string_equal(json_text(tree, "stdout"), "out\nin\n");
    assert_string_equal(json_text(tree, "stderr"), "err\n");
    cJSON_Delete(tree);
    tree = exec_json(f, "{\"shell\":\"echo $LAYER $X; pwd\",\"env\":{\"X\":\"y z\"},"
                        "\"cwd\":\"/tmp\"}");
    assert_string_equal(json_text(tree, "stdout"), "sandbox y z\n/tmp\n");
    cJSON_Delete(tree);
    tree = exec_json(f, "{\"shell\":\"kill -11 $$\",\"cwd\":\"/\"}");
    assert_string_equal(json_text(tree, "end"), "signaled");
    assert_int_equal(json_number(tree, "signal"), 11);
    cJSON_Delete(tree);
    assert_true(f->sandbox.alive);
}

static void test_commands_that_do_not_start(void **state)
{
    static const char *const bodies[] = {
        "{\"argv\":[\"no-such-program\"],\"cwd\":\"/\"}",
        "{\"argv\":[\"/etc/passwd\"],\"cwd\":\"/\"}",
        "{\"argv\":[\"true\"],\"cwd\":\"/no/such/place\"}",
        "{\"argv\":[\"true\"],\"user\":\"nosuchuser\",\"cwd\":\"/\"}",
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        request_json(f, EXEC, NULL, bodies[i]);
        wait_reply(f);
        expect_error(f, 422, "command_not_started", "cannot start");
    }
    assert_true(f->sandbox.alive);
}

static void test_limits(void **state)
{
    struct fixture *f = *state;
    cJSON *tree = exec_json(f, "{\"shell\":\"sleep 60\",\"timeout_ms\":100,\"cwd\":\"/\"}");
    assert_string_equal(json_text(tree, "end"), "timeout");
    /* By the agent's word: nobody had to give it up. */
    assert_true(json_number(cJSON_GetObjectItem(tree, "usage"), "user_ms") >= 0);
    cJSON_Delete(tree);
    tree = exec_json(f, "{\"shell\":\"yes\",\"max_output_bytes\":100000,\"cwd\":\"/\"}");
    assert_string_equal(json_text(tree, "end"), "output_limit");
    assert_int_equal(strlen(json_text(tree, "stdout")), 100000);
    cJSON_Delete(tree);
    assert_true(f->sandbox.alive);
    assert_true(TAILQ_EMPTY(&f->sandbox.processes.list));
}

static void test_much_output_and_input(void **state)
{
    struct fixture *f = *state;
    size_t size;
    bool whole;
    cJSON *tree = exec_json(f, "{\"shell\":\"head -c 5000000 /dev/zero | tr '\\\\0' x\","
                               "\"cwd\":\"/\"}");
    assert_int_equal(strlen(json_text(tree, "stdout")), 5000000);
    cJSON_Delete(tree);

    enum { INPUT = 3000000 };
    char *body = malloc(INPUT + 100);
    int used = snprintf(body, 100, "{\"shell\":\"sha256sum\",\"cwd\":\"/\",\"stdin\":\"");
    memset(body + used, 'a', INPUT);
    memcpy(body + used + INPUT, "\"}", 3);
    tree = exec_json(f, body);
    free(body);
    assert_string_equal(json_text(tree, "stdout"),
                        "2a152c894398719c0570f83fac34ac03a0f6e8e474b995c2403aa5434f7b9dd4  -\n");
    cJSON_Delete(tree);

    request_json(f, EXEC, NDJSON,
                 "{\"shell\":\"head -c 2000000 /dev/zero | tr '\\\\0' z; exit 4\",\"cwd\":\"/\"}");
    wait_reply(f);
    char *text = reply_chunks(f, &size, &whole);
    size_t count = 0;
    for (size_t i = 0; i < size; i++)
        count += text[i] == 'z';
    assert_in_range(count, 2000000, 2000010);
    assert_non_null(strstr(text + size - 400, "\"exit_code\":4"));
    free(text);
}

/* A client that goes takes the command with it. */
static void test_vanished_client(void **state)
{
    struct fixture *f = *state;

    request_json(f, EXEC, NDJSON, "{\"shell\":\"sleep 60\",\"cwd\":\"/\"}");
    while (reply_body(f) == NULL) /* until it runs */
        (void)usleep(1000);
    fd_close(&f->client_fd);
    while (!TAILQ_EMPTY(&f->sandbox.processes.list)) {
        turn(f);
        (void)usleep(1000);
    }
    assert_true(f->sandbox.alive);
}

static void test_files(void **state)
{
    enum { SIZE = 3000001 };
    struct fixture *f = *state;
    uint8_t *content = malloc(SIZE);
    char target[128];

    assert_non_null(content);
    for (size_t i = 0; i < SIZE; i++)
        content[i] = (uint8_t)(i * 31 + (i >> 9));
    (void)snprintf(target, sizeof(target), FILES "?path=%s/new/file&mode=0640", f->directory);
    request(f, "PUT", target, NULL, content, SIZE);
    wait_reply(f);
    cJSON *tree = reply_json(f, 201);
    assert_int_equal(json_number(tree, "size"), SIZE);
    cJSON_Delete(tree);

    (void)snprintf(target, sizeof(target), FILES "?path=%s/new/file", f->directory);
    request(f, "GET", target, NULL, "", 0);
    wait_reply(f);
    char *body = reply_body(f);
    assert_int_equal(reply_status(f), 200);
    assert_memory_equal(body, content, SIZE);
    assert_non_null(memmem(buffer_bytes(&f->reply), 1000, "X-Cloche-Mode: 0640", 19));
    free(content);

    (void)snprintf(target, sizeof(target), FILES "?path=%s/none", f->directory);
    request(f, "GET", target, NULL, "", 0);
    wait_reply(f);
    expect_error(f, 404, "file_not_found", "none");
    (void)snprintf(target, sizeof(target), FILES "?path=%s/new", f->directory);
    for (unsigned i = 0; i < 2; i++) {
        request(f, i == 0 ? "GET" : "PUT", target, NULL, "x", i);
        wait_reply(f);
        expect_error(f, 422, "file_refused", "new");
    }
    request(f, "GET", FILES "?path=/proc/self/status", NULL, "", 0);
    wait_reply(f);
    assert_int_equal(reply_status(f), 200);
    (void)snprintf(target, sizeof(target), "%s/new/file", f->directory);
    (void)unlink(target);
    (void)snprintf(target, sizeof(target), "%s/new", f->directory);
    (void)rmdir(target);
    assert_true(f->sandbox.alive);
}

#define AGENT_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_agent, tear_down_agent)

int main(void)
{
    const struct CMUnitTest tests[] = {
        AGENT_TEST(test_commands),        AGENT_TEST(test_commands_that_do_not_start),
        AGENT_TEST(test_limits),          AGENT_TEST(test_much_output_and_input),
        AGENT_TEST(test_vanished_client), AGENT_TEST(test_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
