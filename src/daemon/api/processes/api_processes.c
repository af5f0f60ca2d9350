/* /v1/sandboxes/{id}/processes: the commands of a sandbox; list, inspect, wait, signal, remove. */
#include <stdlib.h>

#include "base/buffer.h"
#include "daemon/api/common/api.h"
#include "daemon/api/processes/handlers.h"
#include "daemon/api/processes/process_find.h"
#include "daemon/process/process.h"
#include "daemon/process/process_table.h"
#include "daemon/process/signal_name.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/server/exchange.h"
#include "json/json.h"

#define LIST_BYTES_MAX ((CHANNEL_STREAMS_MAX + PROCESS_ENDED_MAX) * PROCESS_DESCRIPTION_MAX)

void api_process_list(struct exchange *x)
{
    static const char *const no_query[] = {NULL};
    struct buffer body = BUFFER_INIT(LIST_BYTES_MAX);
    struct error e = ERROR_INIT;
    struct json_writer w;
    const struct process *p;
    struct sandbox *s = NULL;

    if (exchange_check_query(x, no_query, &e) == 0)
        s = api_sandbox(x, &e);
    if (s == NULL) {
        exchange_reply_error(x, &e);
        return;
    }
    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_begin_array(&w, "processes");
    TAILQ_FOREACH (p, &sandbox_processes(s)->list, entry) {
        if (p->state == PROCESS_STARTING)
            continue; /* nothing can be done to it by its number yet */
        json_begin_object(&w, NULL);
        process_describe(p, &w);
        json_end_object(&w);
    }
    json_end_array(&w);
    json_end_object(&w);
    exchange_reply_written(x, 200, &w);
}

/* --- waiting for an end -------------------------------------------------------------------------
 */

/* A request that waits: for its time, or for the end. */
struct wait {
    struct exchange *exchange;
    struct process_follower follower;
    uv_timer_t timer;
    bool removes; /* DELETE */
};

static void on_timer_closed(uv_handle_t *timer)
{
    free(timer->data);
}

static void on_close(struct exchange *x)
{
    struct wait *wait = exchange_user(x);

    process_unfollow(&wait->follower);
    uv_close((uv_handle_t *)&wait->timer, on_timer_closed);
}

static void on_gone(struct exchange *x)
{
    struct wait *wait = exchange_user(x);

    process_unfollow(&wait->follower);
    exchange_abort(x);
}

static void reply_process(struct exchange *x, const struct process *p)
{
    struct buffer body = BUFFER_INIT(PROCESS_DESCRIPTION_MAX);
    struct json_writer w;

    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    process_describe(p, &w);
    json_end_object(&w);
    exchange_reply_written(x, 200, &w);
}

static void finish(struct wait *wait)
{
    struct process *p = wait->follower.process;

    (void)uv_timer_stop(&wait->timer);
    reply_process(wait->exchange, p);
    if (wait->removes)
        process_table_remove(p);
    process_unfollow(&wait->follower);
}

static void on_news(struct process_follower *follower)
{
    struct wait *wait = follower->owner;

    /* It waits for the end, not for output: the guest need not wait for it. */
    process_take(follower, (size_t)(follower->process->ring.end - follower->offset));
    if (follower->process->state == PROCESS_ENDED)
        finish(wait);
}

static void on_timer(uv_timer_t *timer)
{
    struct wait *wait = timer->data;

    if (wait->follower.process != NULL)
        finish(wait);
}

static int begin_wait(struct exchange *x, struct process *p, struct wait **ret_wait,
                      struct error *e)
{
    struct wait *wait = calloc(1, sizeof(*wait));

    if (wait == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    wait->exchange = x;
    wait->follower.on_news = on_news;
    wait->follower.owner = wait;
    (void)uv_timer_init(exchange_loop(x), &wait->timer);
    wait->timer.data = wait;
    process_follow(p, &wait->follower, p->ring.end);
    exchange_set_user(x, wait);
    exchange_on_close(x, on_close);
    exchange_on_gone(x, on_gone);
    *ret_wait = wait;
    return 0;
}

void api_process_get(struct exchange *x)
{
    static const char *const query[] = {"wait_ms", NULL};
    struct wait *wait = NULL;
    struct error e = ERROR_INIT;
    uint32_t wait_ms = 0;
    struct process *p = process_find(x, query, &e);

    if (p == NULL || exchange_query_number(x, "wait_ms", 0, PROCESS_WAIT_MS_MAX, &wait_ms, &e) != 0)
        exchange_reply_error(x, &e);
    else if (wait_ms == 0 || p->state == PROCESS_ENDED)
        reply_process(x, p);
    else if (begin_wait(x, p, &wait, &e) != 0)
        exchange_reply_error(x, &e);
    else
        (void)uv_timer_start(&wait->timer, on_timer, wait_ms, 0);
}

void api_process_delete(struct exchange *x)
{
    static const char *const no_query[] = {NULL};
    struct wait *wait = NULL;
    struct error e = ERROR_INIT;
    struct process *p = process_find(x, no_query, &e);

    if (p == NULL || begin_wait(x, p, &wait, &e) != 0) {
        exchange_reply_error(x, &e);
        return;
    }
    wait->removes = true;
    if (p->state == PROCESS_ENDED)
        finish(wait);
    else
        process_kill_tree(p);
}

/* --- signals ------------------------------------------------------------------------------------
 */

struct signal_fields {
    const char *name;
};

static const struct json_field signal_fields[] = {{.name = "signal",
                                                   .type = JSON_STRING,
                                                   .required = true,
                                                   .min = 1,
                                                   .max = 16,
                                                   .offset = offsetof(struct signal_fields, name)}};

static void on_signal_body(struct exchange *x, const void *data, size_t size)
{
    static const char *const no_query[] = {NULL};
    JSON_AUTO cJSON *tree = NULL;
    struct signal_fields fields = {0};
    struct error e = ERROR_INIT;
    uint32_t number = 0;
    struct process *p = NULL;

    if (json_parse_object(data, size, &tree, &e) == 0 &&
        json_read(tree, "", signal_fields, 1, &fields, &e) == 0 &&
        signal_name_parse(fields.name, &number, &e) == 0)
        p = process_find(x, no_query, &e);
    if (p != NULL && p->state == PROCESS_ENDED) {
        (void)error_set(&e, ERR_CONFLICT, "process %u has ended", p->pid);
        p = NULL;
    }
    if (p == NULL) {
        exchange_reply_error(x, &e);
        return;
    }
    process_signal(p, CHANNEL_SIGNAL_GROUP, number);
    exchange_reply_empty(x);
}

void api_process_signal(struct exchange *x)
{
    exchange_read_whole(x, 4 * KIB, on_signal_body);
}
