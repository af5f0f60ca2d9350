/* GET /v1/sandboxes/{id}/files/stat, /list and /search: what there is. */
#include <string.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api/files/file_call.h"
#include "daemon/api/files/file_path.h"
#include "daemon/api/files/handlers.h"
#include "daemon/link/agent_message.h"
#include "daemon/link/file_record.h"
#include "daemon/server/exchange.h"
#include "json/json_write.h"

/* A byte of a name may become six in JSON, and each record brings its members' names. */
#define REPLY_BYTES_MAX (6 * FILE_RECORDS_BYTES_MAX + FILE_SEARCH_LIMIT_MAX * 256u)

struct list_call {
    struct file_call base;
    uint32_t limit;
    char after[FILE_NAME_BYTES];
};

struct search_call {
    struct file_call base;
    uint32_t limit;
    char pattern[FILE_PATTERN_MAX];
};

/* A query parameter of less than `size_max` bytes; "" where it is absent. */
static int take_text(const struct exchange *x, const char *name, char *ret_text, size_t size_max,
                     struct error *e)
{
    const char *text = exchange_query(x, name);
    size_t size = text != NULL ? strlen(text) : 0;

    if (size >= size_max)
        return error_set(e, ERR_INVALID_FIELD, "%s is longer than %zu bytes", name, size_max - 1);
    if (size > 0)
        memcpy(ret_text, text, size + 1);
    return 0;
}

/* --- stat ---------------------------------------------------------------------------------------
 */

static void on_stat_done(struct file_call *call, uint32_t flags)
{
    struct buffer body = BUFFER_INIT(REPLY_BYTES_MAX);
    struct file_record record, other;
    struct file_records records;
    struct error e = ERROR_INIT;
    struct json_writer w;

    (void)flags;
    file_records_init(&records, buffer_bytes(&call->records), call->records.size, FILE_NAMES_NONE,
                      "");
    int count = file_records_next(&records, &record, &e);
    if (count == 0)
        (void)error_set(&e, ERR_BAD_REQUEST, "no record of a file");
    if (count == 1 && file_records_next(&records, &other, &e) == 1)
        (void)error_set(&e, ERR_BAD_REQUEST, "a second record of one file");
    if (e.code != ERR_NONE) {
        file_call_accuse(call, &e);
        return;
    }
    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    file_record_put(&record, "path", call->path, &w);
    json_end_object(&w);
    exchange_reply_written(call->exchange, 200, &w);
}

static int start_stat(struct exchange *x, struct agent_link *link, const char *path,
                      struct error *e)
{
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    bool is_followed = false;
    struct file_call *call = NULL;
    int rc = exchange_query_bool(x, "follow", &is_followed, e);

    if (rc != 0 || (call = file_call_new(x, sizeof(*call), path, e)) == NULL)
        return -1;
    rc = agent_request_stat(&request, is_followed ? CHANNEL_STAT_FOLLOW : 0, path, e);
    if (rc == 0)
        rc = file_call_start(call, link, CHANNEL_OP_STAT, "look at", &request, on_stat_done, e);
    buffer_fini(&request);
    return rc;
}

void api_file_stat(struct exchange *x)
{
    static const char *const query[] = {"path", "follow", NULL};
    static const struct file_path_call call = {.query = query, .start = start_stat};

    file_path_begin(x, &call);
}

/* --- list and search ----------------------------------------------------------------------------
 */

/* What of a reply with entries differs between the two. */
struct entries {
    enum file_names names;
    const char *key;   /* of an entry's name */
    const char *after; /* what the first entry's name stands behind */
    uint32_t limit;
};

/* Writes "entries"; -1 where the guest's records are none, or more than were asked for. */
static int put_entries(const struct file_call *call, const struct entries *of,
                       struct file_record *ret_last, struct json_writer *w, struct error *e)
{
    struct file_records records;
    uint32_t count = 0;
    int result;

    file_records_init(&records, buffer_bytes(&call->records), call->records.size, of->names,
                      of->after);
    json_begin_array(w, "entries");
    while ((result = file_records_next(&records, ret_last, e)) == 1) {
        if (++count > of->limit)
            return error_set(e, ERR_BAD_REQUEST, "more files than were asked for");
        json_begin_object(w, NULL);
        file_record_put(ret_last, of->key, NULL, w);
        json_end_object(w);
    }
    json_end_array(w);
    return result;
}

/* Ends the reply's object and sends it. */
static void reply_entries(struct file_call *call, struct json_writer *w)
{
    struct error e = ERROR_INIT;

    json_end_object(w);
    if (exchange_hold(call->exchange, w->out->size, &e) == 0) {
        exchange_reply_written(call->exchange, 200, w);
        return;
    }
    buffer_fini(w->out);
    exchange_reply_error(call->exchange, &e);
}

static void on_list_done(struct file_call *call, uint32_t flags)
{
    const struct list_call *list = (const void *)call;
    const struct entries of = {FILE_NAMES_ENTRY, "name", list->after, list->limit};
    struct buffer body = BUFFER_INIT(REPLY_BYTES_MAX);
    bool is_more = (flags & CHANNEL_END_MORE) != 0;
    struct file_record last = {0};
    struct error e = ERROR_INIT;
    struct json_writer w;

    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_put_bytes(&w, "path", call->path, strlen(call->path));
    int result = put_entries(call, &of, &last, &w, &e);
    if (result == 0 && is_more && last.name == NULL)
        result = error_set(&e, ERR_BAD_REQUEST, "a page without entries that is not the last");
    if (result != 0) {
        buffer_fini(&body);
        file_call_accuse(call, &e);
        return;
    }
    if (is_more)
        json_put_bytes(&w, "next", last.name, last.name_size);
    else
        json_put_null(&w, "next");
    reply_entries(call, &w);
}

static int start_list(struct exchange *x, struct agent_link *link, const char *path,
                      struct error *e)
{
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct list_call *list = file_call_new(x, sizeof(*list), path, e);

    if (list == NULL)
        return -1;
    (void)snprintf(list->base.path, sizeof(list->base.path), "%s", path);
    list->limit = FILE_LIST_LIMIT_MAX;
    int rc = exchange_query_number(x, "limit", 1, FILE_LIST_LIMIT_MAX, &list->limit, e);
    if (rc == 0)
        rc = take_text(x, "after", list->after, sizeof(list->after), e);
    if (rc == 0)
        rc = agent_request_list(&request, list->limit, list->after, path, e);
    if (rc == 0)
        rc = file_call_start(&list->base, link, CHANNEL_OP_LIST, "list", &request, on_list_done, e);
    buffer_fini(&request);
    return rc;
}

void api_file_list(struct exchange *x)
{
    static const char *const query[] = {"path", "limit", "after", NULL};
    static const struct file_path_call call = {.query = query, .start = start_list};

    file_path_begin(x, &call);
}

static void on_search_done(struct file_call *call, uint32_t flags)
{
    const struct search_call *search = (const void *)call;
    const struct entries of = {FILE_NAMES_PATH, "path", "", search->limit};
    struct buffer body = BUFFER_INIT(REPLY_BYTES_MAX);
    struct file_record last = {0};
    struct error e = ERROR_INIT;
    struct json_writer w;

    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_put_bytes(&w, "path", call->path, strlen(call->path));
    json_put_bytes(&w, "pattern", search->pattern, strlen(search->pattern));
    if (put_entries(call, &of, &last, &w, &e) != 0) {
        buffer_fini(&body);
        file_call_accuse(call, &e);
        return;
    }
    json_put_bool(&w, "truncated", (flags & CHANNEL_END_MORE) != 0);
    reply_entries(call, &w);
}

static int check_pattern(const char *pattern, struct error *e)
{
    if (pattern[0] != '\0' && pattern[0] != '/')
        return 0;
    (void)error_set(e, ERR_INVALID_FIELD,
                    pattern[0] == '/' ? "pattern is an absolute path" : "the query has no pattern");
    return error_remedy(e, "Give one relative to path, as in *.csv or **/*.py.");
}

static int start_search(struct exchange *x, struct agent_link *link, const char *path,
                        struct error *e)
{
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct search_call *search = file_call_new(x, sizeof(*search), path, e);

    if (search == NULL)
        return -1;
    (void)snprintf(search->base.path, sizeof(search->base.path), "%s", path);
    search->limit = FILE_SEARCH_LIMIT;
    int rc = exchange_query_number(x, "limit", 1, FILE_SEARCH_LIMIT_MAX, &search->limit, e);
    if (rc == 0)
        rc = take_text(x, "pattern", search->pattern, sizeof(search->pattern), e);
    if (rc == 0)
        rc = check_pattern(search->pattern, e);
    if (rc == 0)
        rc = agent_request_search(&request, search->limit, path, search->pattern, e);
    if (rc == 0)
        rc = file_call_start(&search->base, link, CHANNEL_OP_SEARCH, "search", &request,
                             on_search_done, e);
    buffer_fini(&request);
    return rc;
}

void api_file_search(struct exchange *x)
{
    static const char *const query[] = {"path", "pattern", "limit", NULL};
    static const struct file_path_call call = {.query = query, .start = start_search};

    file_path_begin(x, &call);
}
