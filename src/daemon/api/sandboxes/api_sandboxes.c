/* /v1/sandboxes: create, list, get, change, delete. */
#include <string.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api/common/api.h"
#include "daemon/api/common/sandbox_fields.h"
#include "daemon/api/sandboxes/handlers.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/sandbox/sandbox_describe.h"
#include "daemon/sandbox/sandbox_table.h"
#include "daemon/server/exchange.h"
#include "json/json_write.h"

#define BODY_MAX       (256 * KIB)
#define LIST_LIMIT     100
#define LIST_LIMIT_MAX 1000

static void reply_sandbox(struct exchange *x, int status, const struct sandbox *s)
{
    struct buffer body = BUFFER_INIT(HTTP_JSON_BODY_MAX);
    struct json_writer w;

    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    sandbox_describe(s, &w);
    json_end_object(&w);
    exchange_reply_written(x, status, &w);
}

/* --- POST /v1/sandboxes: the exchange's user pointer is the sandbox while it starts -------------
 */

static void on_created(struct sandbox *s, const struct error *e, void *context)
{
    struct exchange *x = context;

    exchange_set_user(x, NULL);
    if (s != NULL)
        reply_sandbox(x, 201, s);
    else
        exchange_reply_error(x, e);
}

/* Nobody would ever learn the id of what is being made. */
static void on_create_gone(struct exchange *x)
{
    struct sandbox *s = exchange_user(x);

    if (s != NULL)
        sandbox_destroy(s, SANDBOX_END_DELETED, NULL, NULL);
    exchange_abort(x);
}

static void on_create_body(struct exchange *x, const void *data, size_t size)
{
    static const struct json_field fields[] = {SANDBOX_FIELD_ROWS(0)};
    const struct api *api = exchange_context(x);
    struct sandbox_fields f = {0};
    struct error e = ERROR_INIT;
    JSON_AUTO cJSON *tree = NULL;

    if (json_parse_object(data, size, &tree, &e) != 0 ||
        json_read(tree, "", fields, sizeof(fields) / sizeof(fields[0]), &f, &e) != 0) {
        exchange_reply_error(x, &e);
        return;
    }
    const struct sandbox_params params = sandbox_fields_params(&f);
    struct sandbox *s =
        sandbox_create(api->sandboxes, &params, exchange_arrival_ns(x), on_created, x, &e);
    if (s == NULL) {
        exchange_reply_error(x, &e);
        return;
    }
    exchange_set_user(x, s);
    exchange_on_gone(x, on_create_gone);
}

void api_sandbox_create(struct exchange *x)
{
    exchange_read_whole(x, BODY_MAX, on_create_body);
}

/* --- GET ---------------------------------------------------------------------------------------
 */

struct list_query {
    const char *after;
    char label_name[256];
    const char *label_value; /* NULL: any sandbox */
    uint32_t limit;
};

static int parse_list_query(const struct exchange *x, struct list_query *q, struct error *e)
{
    static const char *const names[] = {"limit", "after", "label", NULL};
    const char *label = exchange_query(x, "label");

    *q = (struct list_query){.after = exchange_query(x, "after"), .limit = LIST_LIMIT};
    if (exchange_check_query(x, names, e) != 0 ||
        exchange_query_number(x, "limit", 1, LIST_LIMIT_MAX, &q->limit, e) != 0)
        return -1;
    if (label != NULL) {
        const char *equals = strchr(label, '=');

        if (equals == NULL || equals == label ||
            (size_t)(equals - label) >= sizeof(q->label_name)) {
            (void)error_set(e, ERR_INVALID_FIELD, "label is not NAME=VALUE");
            return error_remedy(e,
                                "write ?label=team%%3Dblue for the label \"team\" with \"blue\"");
        }
        memcpy(q->label_name, label, (size_t)(equals - label));
        q->label_value = equals + 1;
    }
    return 0;
}

/* Pages go by id: `after` is the last one of the page before. A sandbox that ended meanwhile starts
 * the list anew, which repeats entries and loses none. */
static unsigned list_start(const struct sandbox_table *table, const char *after)
{
    const struct sandbox *s;

    for (unsigned i = 0; after != NULL && (s = sandbox_at(table, i)) != NULL; i++) {
        if (strcmp(sandbox_id(s), after) == 0)
            return i + 1;
    }
    return 0;
}

void api_sandbox_list(struct exchange *x)
{
    const struct api *api = exchange_context(x);
    const struct sandbox *s;
    struct buffer body = BUFFER_INIT(HTTP_JSON_BODY_MAX);
    struct error e = ERROR_INIT;
    const char *last = NULL;
    struct list_query q;
    struct json_writer w;

    if (parse_list_query(x, &q, &e) != 0) {
        exchange_reply_error(x, &e);
        return;
    }
    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_begin_array(&w, "sandboxes");
    unsigned index = list_start(api->sandboxes, q.after);
    for (uint32_t count = 0; (s = sandbox_at(api->sandboxes, index)) != NULL && count < q.limit;
         index++) {
        if (q.label_value != NULL && !sandbox_has_label(s, q.label_name, q.label_value))
            continue;
        json_begin_object(&w, NULL);
        sandbox_describe(s, &w);
        json_end_object(&w);
        last = sandbox_id(s);
        count++;
    }
    json_end_array(&w);
    json_put_text(&w, "next", s != NULL ? last : NULL);
    json_end_object(&w);
    exchange_reply_written(x, 200, &w);
}

void api_sandbox_get(struct exchange *x)
{
    struct error e = ERROR_INIT;
    const struct sandbox *s = api_sandbox(x, &e);

    if (s != NULL)
        reply_sandbox(x, 200, s);
    else
        exchange_reply_error(x, &e);
}

/* --- PATCH -------------------------------------------------------------------------------------
 */

struct patch_fields {
    int64_t timeout_s;
    const cJSON *labels;
};

static void on_patch_body(struct exchange *x, const void *data, size_t size)
{
    static const struct json_field fields[] = {
        {.name = "timeout_s",
         .type = JSON_INTEGER,
         .min = 1,
         .max = SANDBOX_TIMEOUT_S_MAX,
         .offset = offsetof(struct patch_fields, timeout_s)},
        {.name = "labels",
         .type = JSON_MAP,
         .max = SANDBOX_LABELS_MAX,
         .item_max = 256,
         .offset = offsetof(struct patch_fields, labels)},
    };
    struct patch_fields f = {0};
    struct error e = ERROR_INIT;
    JSON_AUTO cJSON *tree = NULL;
    struct sandbox *s = api_sandbox(x, &e);

    if (s == NULL || json_parse_object(data, size, &tree, &e) != 0 ||
        json_read(tree, "", fields, sizeof(fields) / sizeof(fields[0]), &f, &e) != 0 ||
        (f.labels != NULL && sandbox_set_labels(s, f.labels, &e) != 0)) {
        exchange_reply_error(x, &e);
        return;
    }
    if (f.timeout_s != 0)
        sandbox_set_timeout(s, (uint32_t)f.timeout_s);
    reply_sandbox(x, 200, s);
}

void api_sandbox_patch(struct exchange *x)
{
    exchange_read_whole(x, BODY_MAX, on_patch_body);
}

/* --- DELETE: answered when nothing of the sandbox is left ---------------------------------------
 */

static void on_deleted(void *context)
{
    exchange_reply_empty(context);
}

void api_sandbox_delete(struct exchange *x)
{
    struct error e = ERROR_INIT;
    struct sandbox *s = api_sandbox(x, &e);

    if (s != NULL)
        sandbox_destroy(s, SANDBOX_END_DELETED, on_deleted, x);
    else
        exchange_reply_error(x, &e);
}
