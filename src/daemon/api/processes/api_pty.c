/*
 * GET /v1/sandboxes/{id}/pty: a WebSocket to a terminal; without `pid` to a new one, on which the
 * template's shell or a command is started, with it to one that is there. A terminal is a process
 * in the background (process.h), so it outlives its clients and ends with its sandbox.
 *
 * The handshake is answered when the command has started: until then a failure is an error reply
 * like any other.
 */
#include <stdlib.h>
#include <string.h>

#include "cloche/limits.h"
#include "daemon/api/common/api.h"
#include "daemon/api/common/exec_request.h"
#include "daemon/api/processes/handlers.h"
#include "daemon/api/processes/terminal.h"
#include "daemon/machine/template.h"
#include "daemon/process/process.h"
#include "daemon/process/process_table.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/server/exchange.h"
#include "daemon/server/websocket.h"
#include "json/json.h"

#define TERM_DEFAULT    "xterm-256color"
#define TERM_BYTES_MAX  64
#define ROWS_DEFAULT    24
#define COLUMNS_DEFAULT 80
#define NUMBER_DIGITS   10u

/* The query's parameters; strings and arrays are the tree's, NULL and 0 where absent. */
struct pty_query {
    int64_t rows, columns, pid;
    const char *term;
    const char *cwd;
    const char *user;
    const cJSON *argv;
};

#define QUERY_FIELD(key, member, kind, low, high, item)                                            \
    {                                                                                              \
        .name = (key), .type = (kind), .min = (low), .max = (high), .item_max = (item),            \
        .offset = offsetof(struct pty_query, member)                                               \
    }

static const struct json_field fields[] = {
    QUERY_FIELD("rows", rows, JSON_INTEGER, 1, TERMINAL_SIDE_MAX, 0),
    QUERY_FIELD("cols", columns, JSON_INTEGER, 1, TERMINAL_SIDE_MAX, 0),
    QUERY_FIELD("pid", pid, JSON_INTEGER, 1, UINT32_MAX, 0),
    QUERY_FIELD("term", term, JSON_STRING, 1, TERM_BYTES_MAX, 0),
    QUERY_FIELD("cwd", cwd, JSON_STRING, 1, CHANNEL_PATH_MAX - 1, 0),
    QUERY_FIELD("user", user, JSON_STRING, 1, EXEC_USER_BYTES_MAX, 0),
    QUERY_FIELD("arg", argv, JSON_STRINGS, 1, HTTP_QUERY_MAX, HTTP_TARGET_BYTES_MAX),
};

/* A waiting request: its command is being started. */
struct pty_start {
    struct exchange *exchange;
    struct process_follower follower;
};

/* As a number where it is one, else as text, which json_read then tells to be no number. */
static const cJSON *add_parameter(cJSON *tree, const char *name, const char *value)
{
    bool is_number =
        strcmp(name, "rows") == 0 || strcmp(name, "cols") == 0 || strcmp(name, "pid") == 0;
    size_t size = strlen(value);

    if (is_number && size > 0 && size <= NUMBER_DIGITS && strspn(value, "0123456789") == size)
        return cJSON_AddNumberToObject(tree, name, (double)strtoull(value, NULL, 10));
    if (strcmp(name, "arg") != 0)
        return cJSON_AddStringToObject(tree, name, value);
    cJSON *list = cJSON_GetObjectItemCaseSensitive(tree, name);
    cJSON *item = cJSON_CreateString(value);
    if (list == NULL)
        list = cJSON_AddArrayToObject(tree, name);
    if (item != NULL && list != NULL && cJSON_AddItemToArray(list, item))
        return item;
    cJSON_Delete(item);
    return NULL;
}

/* `tree` is an empty object, or NULL where memory was short, and keeps what the query points to. */
static int read_query(struct exchange *x, cJSON *tree, struct pty_query *ret_query, struct error *e)
{
    static const char *const names[] = {"rows", "cols", "pid", "term", "cwd", "user", "arg*", NULL};
    size_t count = 0;
    const struct http_query *query = exchange_queries(x, &count);

    if (exchange_check_query(x, names, e) != 0)
        return -1;
    bool is_whole = tree != NULL;
    for (size_t i = 0; i < count && is_whole; i++)
        is_whole = add_parameter(tree, query[i].name, query[i].value) != NULL;
    if (!is_whole)
        return error_set(e, ERR_INTERNAL, "out of memory");
    if (json_read(tree, "", fields, sizeof(fields) / sizeof(fields[0]), ret_query, e) != 0)
        return -1;
    const struct pty_query *q = ret_query;
    if (q->pid == 0 || (q->term == NULL && q->cwd == NULL && q->user == NULL && q->argv == NULL))
        return 0;
    (void)error_set(e, ERR_INVALID_FIELD, "pid stands beside what a new terminal is given");
    return error_remedy(e, "With pid give rows and cols only, or leave pid away.");
}

static int attach(struct exchange *x, struct sandbox *s, const struct pty_query *q, struct error *e)
{
    const char *pid = exchange_query(x, "pid");
    struct process *p = process_table_find(sandbox_processes(s), pid, e);

    if (p == NULL)
        return -1;
    if (!p->is_terminal) {
        (void)error_set(e, ERR_CONFLICT, "process %s has no terminal", pid);
        return error_remedy(e, "GET .../processes/%s/output gives what it writes.", pid);
    }
    if (terminal_attach(x, p, e) != 0)
        return -1;
    if (q->rows != 0 && q->columns != 0)
        process_resize(p, (uint16_t)q->rows, (uint16_t)q->columns);
    return 0;
}

/* The command and TERM into the tree, in the form that a request's body has. */
static int fill_request(cJSON *tree, const struct pty_query *q, const struct template *template,
                        struct exec_request *r, struct error *e)
{
    cJSON *env = cJSON_AddObjectToObject(tree, "env");

    r->fields.argv = q->argv;
    r->fields.cwd = q->cwd;
    r->fields.user = q->user;
    r->fields.env = env;
    if (env == NULL ||
        cJSON_AddStringToObject(env, "TERM", q->term != NULL ? q->term : TERM_DEFAULT) == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    if (q->argv != NULL)
        return 0;
    if (add_parameter(tree, "arg", template->shell) == NULL ||
        add_parameter(tree, "arg", "-l") == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    r->fields.argv = cJSON_GetObjectItemCaseSensitive(tree, "arg");
    return 0;
}

static int start_command(struct exchange *x, struct sandbox *s, cJSON *tree,
                         const struct pty_query *q, struct process **ret_process, struct error *e)
{
    const struct exec_request_life life = {.is_background = true,
                                           .keeps_stdin = true,
                                           .output_bytes_default = UINT64_MAX,
                                           .ring_bytes = PROCESS_RING_BYTES_MIN,
                                           .arrived_ns = exchange_arrival_ns(x)};
    struct exec_request r = {.has_pty = true,
                             .rows = (uint16_t)(q->rows != 0 ? q->rows : ROWS_DEFAULT),
                             .columns = (uint16_t)(q->columns != 0 ? q->columns : COLUMNS_DEFAULT)};
    int result = -1;

    if (fill_request(tree, q, sandbox_template(s), &r, e) == 0 && exec_request_check(&r, e) == 0 &&
        exec_request_complete(&r, sandbox_template(s), sandbox_env(s), e) == 0)
        result = exec_request_start(&r, &life, exchange_loop(x), s, ret_process, e);
    exec_request_fini(&r);
    return result;
}

static void on_close(struct exchange *x)
{
    struct pty_start *start = exchange_user(x);

    process_unfollow(&start->follower);
    free(start);
}

/* The client has vanished before it could learn of its terminal. */
static void on_gone(struct exchange *x)
{
    struct pty_start *start = exchange_user(x);

    if (start->follower.process != NULL)
        process_kill_tree(start->follower.process);
    process_unfollow(&start->follower);
    exchange_abort(x);
}

static void on_started(struct process_follower *follower)
{
    struct pty_start *start = follower->owner;
    struct exchange *x = start->exchange;
    struct process *p = follower->process;
    struct error e = ERROR_INIT;

    if (p->state == PROCESS_STARTING)
        return;
    if (p->pid == 0) {
        process_start_error(p, &e);
    } else if (terminal_attach(x, p, &e) == 0) {
        process_unfollow(follower);
        free(start);
        return;
    } else {
        process_kill_tree(p);
    }
    process_unfollow(follower);
    exchange_reply_error(x, &e);
}

static int begin(struct exchange *x, struct sandbox *s, cJSON *tree, const struct pty_query *q,
                 struct error *e)
{
    struct process *p = NULL;
    struct pty_start *start = calloc(1, sizeof(*start));

    if (start == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    if (start_command(x, s, tree, q, &p, e) != 0) {
        free(start);
        return -1;
    }
    start->exchange = x;
    start->follower.owner = start;
    start->follower.on_news = on_started;
    process_follow(p, &start->follower, 0);
    exchange_set_user(x, start);
    exchange_on_close(x, on_close);
    exchange_on_gone(x, on_gone);
    return 0;
}

void api_pty(struct exchange *x)
{
    JSON_AUTO cJSON *tree = cJSON_CreateObject();
    struct pty_query q = {0};
    struct error e = ERROR_INIT;
    struct sandbox *s = NULL;

    if (websocket_check(x, &e) == 0 && read_query(x, tree, &q, &e) == 0)
        s = api_sandbox(x, &e);
    if (s == NULL || (q.pid != 0 ? attach(x, s, &q, &e) : begin(x, s, tree, &q, &e)) != 0)
        exchange_reply_error(x, &e);
}
