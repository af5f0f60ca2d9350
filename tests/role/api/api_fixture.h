/*
 * The API's handlers behind the real HTTP server, with one sandbox whose agent is the test: a
 * client socket on one side, the agent channel on the other, both in one loop. The sandbox table is
 * played here; what the handlers do to it is counted.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <sys/un.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "daemon/api/api_routes.h"
#include "daemon/api/common/api.h"
#include "daemon/link/agent_link.h"
#include "daemon/machine/shape_set.h"
#include "daemon/machine/template.h"
#include "daemon/process/process.h"
#include "daemon/process/process_table.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/sandbox/sandbox_describe.h"
#include "daemon/sandbox/sandbox_table.h"
#include "daemon/server/server.h"
#include "not_played.h"
#include "tests/fake_agent.h"
#include "json/json.h"
#include "json/json_write.h"

#define REPLY_MAX (64 * MIB)

struct sandbox {
    bool alive;
    struct agent_link *link;
    struct process_table processes;
    struct template template;
    cJSON *env;
    sandbox_created_fn created; /* POST /v1/run: fires in the loop's next turn */
    void *context;
    unsigned created_count, destroyed_count;
    uv_timer_t timer;
};

struct sandbox_table {
    char nothing; /* only its address counts */
};

struct fixture {
    uv_loop_t loop;
    struct api api;
    struct sandbox_table table;
    struct exchange_budget budget;
    struct server *server;
    struct fake_agent agent;
    struct sandbox sandbox;
    struct process_memory process_memory;
    struct error create_error; /* not ERR_NONE: making a sandbox fails with it */
    int client_fd;
    const char *headers; /* more lines of each request's head, or NULL */
    struct buffer reply;
    bool client_eof;
    char directory[32];
    bool stopped;
    struct fake_frame frame;
};

static struct fixture *the_fixture;

/* --- the sandbox table ------------------------------------------------------------------------ */

static inline void end_sandbox(struct sandbox *s)
{
    s->alive = false;
    s->created = NULL;
    (void)uv_timer_stop(&s->timer);
    agent_link_free(s->link);
    s->link = NULL;
    process_table_fini(&s->processes);
}

static inline void on_broken(void *arg, const struct error *why)
{
    (void)why;
    end_sandbox(arg);
}

static inline void give_agent(struct fixture *f)
{
    struct error e = ERROR_INIT;

    fake_agent_fini(&f->agent);
    int fd = fake_agent_init(&f->agent, &f->loop);
    assert_int_equal(agent_link_new(&f->loop, fd, on_broken, &f->sandbox, &f->sandbox.link, &e), 0);
    process_table_init(&f->sandbox.processes, &f->process_memory);
    f->sandbox.alive = true;
}

struct sandbox *sandbox_find(struct sandbox_table *t, const char *id, struct error *e)
{
    assert_ptr_equal(t, &the_fixture->table);
    if (strcmp(id, "sb_1") == 0 && the_fixture->sandbox.alive)
        return &the_fixture->sandbox;
    (void)error_set(e, ERR_SANDBOX_NOT_FOUND, "there is no sandbox \"%.40s\"", id);
    return NULL;
}

static inline void on_create_timer(uv_timer_t *timer)
{
    struct sandbox *s = timer->data;
    sandbox_created_fn created = s->created;

    s->created = NULL;
    give_agent(the_fixture);
    created(s, NULL, s->context);
}

struct sandbox *sandbox_create(struct sandbox_table *t, const struct sandbox_params *params,
                               uint64_t arrived_ns, sandbox_created_fn created, void *context,
                               struct error *e)
{
    struct sandbox *s = &the_fixture->sandbox;

    assert_ptr_equal(t, &the_fixture->table);
    (void)arrived_ns;
    if (the_fixture->create_error.code != ERR_NONE) {
        *e = the_fixture->create_error;
        return NULL;
    }
    end_sandbox(s);
    s->created_count++;
    s->created = created;
    s->context = context;
    cJSON_Delete(s->env);
    s->env = params->env != NULL ? cJSON_Duplicate(params->env, 1) : NULL;
    (void)uv_timer_start(&s->timer, on_create_timer, 0, 0);
    return s;
}

void sandbox_destroy(struct sandbox *s, enum sandbox_end why, sandbox_gone_fn gone, void *context)
{
    (void)why;
    assert_null(gone);
    assert_null(context);
    s->destroyed_count++;
    end_sandbox(s);
}

struct agent_link *sandbox_agent(struct sandbox *s)
{
    assert_true(s->alive);
    return s->link;
}

struct process_table *sandbox_processes(struct sandbox *s)
{
    return &s->processes;
}

const struct template *sandbox_template(const struct sandbox *s)
{
    return &s->template;
}

const struct cJSON *sandbox_env(const struct sandbox *s)
{
    return s->env;
}

const char *sandbox_id(const struct sandbox *s)
{
    (void)s;
    return "sb_1";
}

const char *sandbox_pool_name(const struct sandbox *s)
{
    (void)s;
    return "hit";
}

void sandbox_describe_times(const struct sandbox *s, struct json_writer *w)
{
    (void)s;
    json_begin_object(w, "times");
    json_put_ms(w, "ready_ms", 1500000);
    json_end_object(w);
}

/* --- the client ------------------------------------------------------------------------------- */

/* Reads what has come for the client, unless it is asked to be slow. */
static inline void take_reply(struct fixture *f)
{
    for (;;) {
        uint8_t *to = buffer_reserve(&f->reply, 64 * KIB);
        assert_non_null(to);
        ssize_t n = recv(f->client_fd, to, 64 * KIB, MSG_DONTWAIT);
        if (n == 0)
            f->client_eof = true;
        if (n <= 0)
            return;
        buffer_commit(&f->reply, (size_t)n);
    }
}

static inline void turn(struct fixture *f)
{
    fake_spin(&f->agent);
    if (f->client_fd >= 0)
        take_reply(f);
}

static inline void connect_client(struct fixture *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    fd_close(&f->client_fd);
    buffer_fini(&f->reply);
    f->client_eof = false;
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", f->directory);
    f->client_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(f->client_fd >= 0);
    assert_int_equal(connect(f->client_fd, (struct sockaddr *)&address, sizeof(address)), 0);
}

static inline void client_send(struct fixture *f, const void *data, size_t size)
{
    const uint8_t *at = data;

    while (size > 0) {
        ssize_t n = send(f->client_fd, at, size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN)
            return;
        if (n > 0) {
            at += n;
            size -= (size_t)n;
        }
        fake_spin(&f->agent);
    }
}

/* A request on a new connection. `accept` may be NULL. */
static inline void request(struct fixture *f, const char *method, const char *target,
                           const char *accept, const void *body, size_t size)
{
    char head[512];

    connect_client(f);
    int length = snprintf(
        head, sizeof(head), "%s %s HTTP/1.1\r\nHost: x\r\n%s%s%s%sContent-Length: %zu\r\n\r\n",
        method, target, f->headers != NULL ? f->headers : "", accept != NULL ? "Accept: " : "",
        accept != NULL ? accept : "", accept != NULL ? "\r\n" : "", size);
    assert_true(length > 0 && (size_t)length < sizeof(head));
    client_send(f, head, (size_t)length);
    client_send(f, body, size);
    turn(f);
}

static inline void request_json(struct fixture *f, const char *target, const char *accept,
                                const char *body)
{
    request(f, "POST", target, accept, body, strlen(body));
}

/* Where the reply's body starts; NULL while its head is not whole. */
static inline char *reply_body(struct fixture *f)
{
    turn(f);
    assert_int_equal(buffer_append(&f->reply, "", 1), 0);
    f->reply.size--;
    char *end = f->reply.size > 0 ? strstr((char *)buffer_bytes(&f->reply), "\r\n\r\n") : NULL;
    return end != NULL ? end + 4 : NULL;
}

static inline int reply_status(struct fixture *f)
{
    int status = 0;

    if (reply_body(f) == NULL)
        return 0;
    assert_int_equal(sscanf((char *)buffer_bytes(&f->reply), "HTTP/1.1 %d", &status), 1);
    return status;
}

/* The reply's body as JSON; the caller deletes it. */
static inline cJSON *reply_json(struct fixture *f, int status)
{
    char *body = reply_body(f);

    assert_non_null(body);
    if (reply_status(f) != status)
        fail_msg("%s", (char *)buffer_bytes(&f->reply));
    cJSON *tree = cJSON_Parse(body);
    assert_non_null(tree);
    return tree;
}

/* A chunked body put together; NUL-terminated, the caller frees it. `*ret_whole`: its last chunk
 * came. */
static inline char *reply_chunks(struct fixture *f, size_t *ret_size, bool *ret_whole)
{
    char *at = reply_body(f);
    struct buffer joined = BUFFER_INIT(REPLY_MAX);
    const char *end = (const char *)buffer_bytes(&f->reply) + f->reply.size;

    *ret_whole = false;
    while (at != NULL && at < end) {
        char *rest;
        unsigned long size = strtoul(at, &rest, 16);

        if (rest + 2 > end || rest + 4 + size > end)
            break;
        if (size == 0) {
            *ret_whole = true;
            break;
        }
        assert_int_equal(buffer_append(&joined, rest + 2, size), 0);
        at = rest + 4 + size;
    }
    *ret_size = joined.size;
    assert_int_equal(buffer_append(&joined, "", 1), 0);
    return (char *)joined.data;
}

static inline const char *json_text(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

    return cJSON_IsString(item) ? item->valuestring : "(none)";
}

static inline double json_number(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

    return cJSON_IsNumber(item) ? item->valuedouble : -1;
}

/* Expects an error reply with that status and code, whose message has `words` in it. */
static inline void expect_error(struct fixture *f, int status, const char *code, const char *words)
{
    cJSON *tree = reply_json(f, status);
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(tree, "error");

    assert_string_equal(json_text(error, "code"), code);
    if (strstr(json_text(error, "message"), words) == NULL)
        fail_msg("message: %s", json_text(error, "message"));
    assert_string_not_equal(json_text(error, "request_id"), "(none)");
    cJSON_Delete(tree);
}

/* The OPEN of the handler's next stream; returns its number. The frame is in f->frame. */
static inline uint32_t take_open(struct fixture *f)
{
    turn(f);
    if (!fake_expect(&f->agent, CHANNEL_OPEN, &f->frame))
        fail_msg("no OPEN; reply: %.*s", (int)f->reply.size, (char *)f->reply.data);
    assert_int_equal(f->frame.h.lane, 0);
    return f->frame.h.stream;
}

/* What a CREDIT frame grants. */
static inline uint32_t credit_of(const struct fake_frame *frame)
{
    struct wire_reader r;

    assert_int_equal(frame->h.type, CHANNEL_CREDIT);
    wire_reader_init(&r, frame->payload, frame->h.length);
    return wire_get_u32(&r);
}

/* The next string of a request, good until eight more were read. */
static inline const char *next_string(struct wire_reader *r)
{
    static char text[8][CHANNEL_PATH_MAX];
    static unsigned slot;
    size_t size = 0;
    const char *at = wire_get_string(r, sizeof(text[0]) - 1, &size);

    assert_non_null(at);
    slot = (slot + 1) % 8;
    memcpy(text[slot], at, size);
    text[slot][size] = '\0';
    return text[slot];
}

/* --- set up and tear down --------------------------------------------------------------------- */

static inline int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct error e = ERROR_INIT;

    assert_non_null(f);
    the_fixture = f;
    f->client_fd = f->agent.fd = -1;
    f->reply = (struct buffer)BUFFER_INIT(REPLY_MAX);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    (void)snprintf(f->directory, sizeof(f->directory), "/tmp/cloche-role-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", f->directory);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 8), 0);
    f->api.sandboxes = &f->table;
    f->budget = (struct exchange_budget)EXCHANGE_BUDGET_INIT;
    struct server_options options = {.loop = &f->loop, .routes = api_routes, .context = &f->api};
    options.route_count = api_route_count;
    options.budget = &f->budget;
    assert_int_equal(server_new(&options, fd, &f->server, &e), 0);
    (void)uv_timer_init(&f->loop, &f->sandbox.timer);
    f->sandbox.timer.data = &f->sandbox;
    (void)snprintf(f->sandbox.template.shell, sizeof(f->sandbox.template.shell), "/bin/sh");
    (void)snprintf(f->sandbox.template.cwd, sizeof(f->sandbox.template.cwd), "/workspace");
    f->sandbox.template.env = cJSON_Parse("{\"PATH\":\"/bin\",\"LAYER\":\"template\"}");
    f->sandbox.env = cJSON_Parse("{\"LAYER\":\"sandbox\"}");
    give_agent(f);
    *state = f;
    return 0;
}

static inline void on_stopped(void *arg)
{
    ((struct fixture *)arg)->stopped = true;
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;

    fd_close(&f->client_fd);
    fake_spin(&f->agent);
    server_stop(f->server, 0, on_stopped, f);
    for (unsigned i = 0; i < 1000 && !f->stopped; i++)
        (void)uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_true(f->stopped);
    server_free(f->server);
    end_sandbox(&f->sandbox);
    uv_close((uv_handle_t *)&f->sandbox.timer, NULL);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    fake_agent_fini(&f->agent);
    buffer_fini(&f->reply);
    cJSON_Delete(f->sandbox.template.env);
    cJSON_Delete(f->sandbox.env);
    char path[64];
    (void)snprintf(path, sizeof(path), "%s/s", f->directory);
    (void)unlink(path);
    (void)rmdir(f->directory);
    free(f);
    return 0;
}

#define API_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
