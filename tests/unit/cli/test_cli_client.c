/* The client's half of a conversation, against a daemon that says what the test tells it to. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "cli/client/client.h"
#include "cli/client/playback.h"
#include "cli/client/records.h"
#include "cli/common/interrupt.h"

#define HEAD     "HTTP/1.1 200 OK\r\n"
#define STREAMED HEAD "Transfer-Encoding: chunked\r\n\r\n"

/* A peer for one connection: takes a request's head, then sends `reply` in pieces of `piece`. */
struct peer {
    char dir[32];
    char path[64];
    int listener;
    const char *reply;
    size_t piece;
    pthread_t thread;
    char request[4096];
};

static void *serve_one(void *arg)
{
    struct peer *p = arg;
    int fd = accept(p->listener, NULL, NULL);
    size_t used = 0;

    while (used < sizeof(p->request) - 1 && strstr(p->request, "\r\n\r\n") == NULL) {
        ssize_t n = recv(fd, p->request + used, sizeof(p->request) - 1 - used, 0);
        if (n <= 0)
            break;
        used += (size_t)n;
    }
    for (size_t at = 0, left = strlen(p->reply); left > 0;) {
        size_t size = left < p->piece ? left : p->piece;
        if (send(fd, p->reply + at, size, MSG_NOSIGNAL) < 0)
            break;
        at += size;
        left -= size;
    }
    close(fd);
    return NULL;
}

static void peer_start(struct peer *p, const char *reply, size_t piece)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    *p = (struct peer){.dir = "/tmp/cloche-test-XXXXXX", .reply = reply, .piece = piece};
    assert_non_null(mkdtemp(p->dir));
    (void)snprintf(p->path, sizeof(p->path), "%s/s", p->dir);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", p->path);
    p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(p->listener, 1), 0);
    assert_int_equal(pthread_create(&p->thread, NULL, serve_one, p), 0);
}

static void peer_end(struct peer *p)
{
    assert_int_equal(pthread_join(p->thread, NULL), 0);
    close(p->listener);
    (void)unlink(p->path);
    (void)rmdir(p->dir);
}

static const struct client_request get = {.method = "GET", .target = "/v1/info"};

/* What client_call makes of a reply, sent whole and byte by byte. */
static int call(const char *reply, size_t piece, cJSON **ret_tree, struct error *e)
{
    struct peer p;

    peer_start(&p, reply, piece);
    int result = client_call(p.path, "GET", "/v1/info", ret_tree, e);
    peer_end(&p);
    assert_non_null(strstr(p.request, "GET /v1/info HTTP/1.1\r\n"));
    assert_non_null(strstr(p.request, "Connection: close\r\n"));
    return result;
}

static void reads_every_framing(void **state)
{
    static const char *const replies[] = {
        HEAD "Content-Length: 7\r\n\r\n{\"a\":1}",
        HEAD "Connection: close\r\n\r\n{\"a\":1}",
        STREAMED "3\r\n{\"a\r\n4;ext=1\r\n\":1}\r\n0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n" HEAD "Content-Length: 7\r\n\r\n{\"a\":1}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        for (size_t piece = 1; piece <= 1000; piece += 999) {
            struct error e = ERROR_INIT;
            JSON_AUTO cJSON *tree = NULL;
            assert_int_equal(call(replies[i], piece, &tree, &e), 0);
            assert_int_equal(cJSON_GetObjectItemCaseSensitive(tree, "a")->valueint, 1);
        }
    }
}

static void tells_replies_that_are_cut(void **state)
{
    static const char *const replies[] = {
        "",
        "HTTP/1.1 200",
        HEAD "Content-Length: 8\r\n\r\n{\"a\":1}",
        STREAMED "7\r\n{\"a\":1}\r\n",
        STREAMED "7\r\n{\"a\"",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        struct error e = ERROR_INIT;
        cJSON *tree = NULL;
        assert_int_equal(call(replies[i], 1000, &tree, &e), -1);
        assert_int_equal(e.code, ERR_UNREACHABLE);
    }
}

static void passes_the_daemons_error_on(void **state)
{
    struct error e = ERROR_INIT;
    cJSON *tree = NULL;

    (void)state;
    assert_int_equal(call("HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n"
                          "{\"error\":{\"code\":\"sandbox_not_found\",\"message\":\"m\",\"cause\":"
                          "\"c\",\"remedy\":\"r\",\"request_id\":\"1\"}}",
                          1000, &tree, &e),
                     -1);
    assert_int_equal(e.code, ERR_SANDBOX_NOT_FOUND);
    assert_string_equal(e.message, "m");
    assert_string_equal(e.cause, "c");
    assert_string_equal(e.remedy, "r");
}

static void refuses_what_is_not_http(void **state)
{
    static const char *const replies[] = {
        "hello\r\n\r\n",
        HEAD "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD "Content-Length: 5\r\n\r\nnope!",
        STREAMED "zz\r\n",
        "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        struct error e = ERROR_INIT;
        cJSON *tree = NULL;
        assert_int_equal(call(replies[i], 1000, &tree, &e), -1);
        assert_int_not_equal(e.code, ERR_NONE);
    }
}

static void says_when_nobody_listens(void **state)
{
    struct error e = ERROR_INIT;

    (void)state;
    assert_int_equal(client_call("/nonexistent/socket", "GET", "/", NULL, &e), -1);
    assert_int_equal(e.code, ERR_UNREACHABLE);
    assert_non_null(strstr(e.remedy, "cloche serve"));
}

/* Plays a reply and returns the exit code; what went to stdout is in `output`. */
static int play(const char *reply, char *ret_output, size_t size, struct error *e)
{
    struct client c;
    struct peer p;
    int pipe_fds[2];

    peer_start(&p, reply, 5);
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    (void)fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    assert_int_equal(client_open(&c, p.path, e), 0);
    int result = client_send(&c, &get, e);
    if (result == 0) {
        assert_true(dup2(pipe_fds[1], STDOUT_FILENO) >= 0);
        result = playback_run(&c, &(struct playback_options){0}, e);
        assert_true(dup2(saved, STDOUT_FILENO) >= 0);
    }
    client_close(&c);
    close(saved);
    close(pipe_fds[1]);
    ssize_t n = fd_read_full(pipe_fds[0], ret_output, size - 1);
    assert_true(n >= 0);
    ret_output[n] = '\0';
    close(pipe_fds[0]);
    peer_end(&p);
    return result;
}

#define START HEAD "Connection: close\r\n\r\n{\"type\":\"start\",\"pid\":7}\n"
#define OUT   "{\"type\":\"stdout\",\"data\":\"hi\\n\"}\n"

static void plays_output_and_ends(void **state)
{
    static const struct {
        const char *reply;
        int code;
    } cases[] = {
        {START OUT "{\"type\":\"end\",\"end\":\"exited\",\"exit_code\":3}\n", 3},
        {START OUT "{\"type\":\"end\",\"end\":\"signaled\",\"signal\":9}\n", 137},
        {START OUT "{\"type\":\"end\",\"end\":\"timeout\"}\n", 124},
        {START "{\"type\":\"news\"}\n{\"type\":\"stdout\",\"data_base64\":\"aGkK\"}\n"
               "{\"type\":\"end\",\"end\":\"exited\",\"exit_code\":0}\n",
         0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error e = ERROR_INIT;
        char output[64];
        assert_int_equal(play(cases[i].reply, output, sizeof(output), &e), cases[i].code);
        assert_string_equal(output, "hi\n");
    }
}

/* Whatever goes wrong, it is never an exit code of the command. */
static void never_takes_a_loss_for_an_exit(void **state)
{
    static const struct {
        const char *reply;
        enum error_code code;
    } cases[] = {
        {START, ERR_UNREACHABLE},
        {START OUT, ERR_UNREACHABLE},
        {START "{\"type\":\"end\",\"end\":\"exited\",\"exit_code\":0}", ERR_UNREACHABLE},
        {START "{\"type\":\"end\",\"end\":\"sandbox_gone\"}\n", ERR_SANDBOX_GONE},
        {START "{\"type\":\"end\",\"end\":\"output_limit\"}\n", ERR_TOO_LARGE},
        {START "{\"type\":\"end\",\"end\":\"exited\"}\n", ERR_INTERNAL},
        {START "{\"type\":\"end\",\"end\":\"vanished\"}\n", ERR_INTERNAL},
        {START "{\"type\":\"end\"}\n", ERR_INTERNAL},
        {START "{\"type\":\"stdout\"}\n", ERR_INTERNAL},
        {START "{\"type\":\"stdout\",\"data_base64\":\"?\"}\n", ERR_INTERNAL},
        {START "{\"type\":\"file\",\"path\":\"/etc/passwd\",\"content_base64\":\"\"}\n",
         ERR_INTERNAL},
        {START "[1]\n", ERR_INVALID_JSON},
        {START "{\"type\":\"error\",\"error\":{\"code\":\"conflict\",\"message\":\"m\"}}\n",
         ERR_CONFLICT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error e = ERROR_INIT;
        char output[64];
        assert_int_equal(play(cases[i].reply, output, sizeof(output), &e), -1);
        assert_int_equal(e.code, cases[i].code);
    }
}

static int setup(void **state)
{
    (void)state;
    interrupt_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_framing),
        cmocka_unit_test(tells_replies_that_are_cut),
        cmocka_unit_test(passes_the_daemons_error_on),
        cmocka_unit_test(refuses_what_is_not_http),
        cmocka_unit_test(says_when_nobody_listens),
        cmocka_unit_test(plays_output_and_ends),
        cmocka_unit_test(never_takes_a_loss_for_an_exit),
    };
    return cmocka_run_group_tests_name("cli client", tests, setup, NULL);
}
