/* GET /v1/sandboxes/{id}/files/stat, /list and /search: what there is. */
#include <string.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api/files/file_call.h"
#include "daemon/api/files/handlers.h"
#include "daemon/link/file_record.h"
#include "daemon/server/exchange.h"
#include "json/json_write.h"

/* A byte of a name may become six in JSON, and each record brings its members' names. */
#define REPLY_BYTES_MAX (6 * FILE_RECORDS_BYTES_MAX + FILE_SEARCH_LIMIT_MAX * 256u)

/* The call with its path; NULL where the error has been replied. */
static struct file_call *begin(struct exchange *x, const char *const *query)
{
    struct error e = ERROR_INIT;
    struct file_call *c = NULL;
    const char *path = NULL;

    if (exchange_check_query(x, query, &e) == 0 && file_call_query_path(x, &path, &e) == 0)
        c = file_call_new(x, &e);
    if (c != NULL && file_call_take_path(path, strlen(path), c->path, &e) == 0)
        return c;
    exchange_reply_error(x, &e);
    return NULL;
}

static void start(struct file_call *c, enum channel_op op, const char *verb, int request_result,
                  struct buffer *request, void (*on_done)(struct file_call *c, uint32_t flags),
                  struct error *e)
{
    if (request_result != 0 || file_call_start(c, op, verb, request, on_done, e) != 0)
        exchange_reply_error(c->exchange, e);
    buffer_fini(request);
}

/* --- stat ---------------------------------------------------------------------------------------
 */

static void on_stat_done(struct file_call *c, uint32_t flags)
{
    struct buffer body = BUFFER_INIT(REPLY_BYTES_MAX);
    struct file_record record, other;
    struct file_records records;
    struct error e = ERROR_INIT;
    struct json_writer w;

    (void)flags;
    file_records_init(&records, buffer_bytes(&c->records), c->records.size, FILE_NAMES_NONE, "");
    int count = file_records_next(&records, &record, &e);
    if (count == 0)
        (void)error_set(&e, ERR_BAD_REQUEST, "no record of a file");
    if (count == 1 && file_records_next(&records, &other, &e) == 1)
        (void)error_set(&e, ERR_BAD_REQUEST, "a second record of one file");
    if (e.code != ERR_NONE) {
        file_call_accuse(c, &e);
        return;
    }
    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    file_record_put(&record, "path", c->path, &w);
    json_end_object(&w);
    exchange_reply_written(c->exchange, 200, &w);
}

void api_file_stat(struct exchange *x)
{
    static const char *const query[] = {"path", "follow", NULL};
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct error e = ERROR_INIT;
    bool is_followed = false;
    struct file_call *c = begin(x, query);

    if (c == NULL)
        return;
    int rc = exchange_query_bool(x, "follow", &is_followed, &e);
    if (rc == 0)
        rc = agent_request_stat(&request, is_followed ? CHANNEL_STAT_FOLLOW : 0, c->path, &e);
    start(c, CHANNEL_OP_STAT, "look at", rc, &request, on_stat_done, &e);
}

/* --- list and search ----------------------------------------------------------------------------
 */

/* Writes "entries"; -1 where the guest's records are none, or more than were asked for. */
static int put_entries(struct file_call *c, enum file_names names, const char *key,
                       struct file_record *ret_last, struct json_writer *w, struct error *e)
{
    struct file_records records;
    uint32_t count = 0;
    int result;

    file_records_init(&records, buffer_bytes(&c->records), c->records.size, names,
                      names == FILE_NAMES_ENTRY ? c->other : "");
    json_begin_array(w, "entries");
    while ((result = file_records_next(&records, ret_last, e)) == 1) {
        if (++count > c->number)
            return error_set(e, ERR_BAD_REQUEST, "more files than were asked for");
        json_begin_object(w, NULL);
        file_record_put(ret_last, key, NULL, w);
        json_end_object(w);
    }
    json_end_array(w);
    return result;
}

static void reply_entries(struct file_call *c, uint32_t flags, enum file_names names)
{
    struct buffer body = BUFFER_INIT(REPLY_BYTES_MAX);
    bool is_list = names == FILE_NAMES_ENTRY;
    bool is_more = (flags & CHANNEL_END_MORE) != 0;
    struct file_record last = {0};
    struct error e = ERROR_INIT;
    struct json_writer w;

    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_put_bytes(&w, "path", c->path, strlen(c->path));
    if (!is_list)
        json_put_bytes(&w, "pattern", c->other, strlen(c->other));
    int result = put_entries(c, names, is_list ? "name" : "path", &last, &w, &e);
    if (result == 0 && is_list && is_more && last.name == NULL)
        result = error_set(&e, ERR_BAD_REQUEST, "a page without entries that is not the last");
    if (result != 0) {
        buffer_fini(&body);
        file_call_accuse(c, &e);
        return;
    }
    if (!is_list)
        json_put_bool(&w, "truncated", is_more);
    else if (is_more)
        json_put_bytes(&w, "next", last.name, last.name_size);
    else
        json_put_null(&w, "next");
    json_end_object(&w);
    if (exchange_hold(c->exchange, body.size, &e) == 0) {
        exchange_reply_written(c->exchange, 200, &w);
        return;
    }
    buffer_fini(&body);
    exchange_reply_error(c->exchange, &e);
}

static void on_list_done(struct file_call *c, uint32_t flags)
{
    reply_entries(c, flags, FILE_NAMES_ENTRY);
}

static void on_search_done(struct file_call *c, uint32_t flags)
{
    reply_entries(c, flags, FILE_NAMES_PATH);
}

/* A query parameter of less than `size_max` bytes into c->other; "" where it is absent. */
static int take_other(struct file_call *c, const char *name, size_t size_max, struct error *e)
{
    const char *text = exchange_query(c->exchange, name);
    size_t size = text != NULL ? strlen(text) : 0;

    if (size >= size_max)
        return error_set(e, ERR_INVALID_FIELD, "%s is longer than %zu bytes", name, size_max - 1);
    if (size > 0)
        memcpy(c->other, text, size + 1);
    return 0;
}

void api_file_list(struct exchange *x)
{
    static const char *const query[] = {"path", "limit", "after", NULL};
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct error e = ERROR_INIT;
    struct file_call *c = begin(x, query);

    if (c == NULL)
        return;
    c->number = FILE_LIST_LIMIT_MAX;
    int rc = exchange_query_number(x, "limit", 1, FILE_LIST_LIMIT_MAX, &c->number, &e);
    if (rc == 0)
        rc = take_other(c, "after", FILE_NAME_BYTES, &e);
    if (rc == 0)
        rc = agent_request_list(&request, c->number, c->other, c->path, &e);
    start(c, CHANNEL_OP_LIST, "list", rc, &request, on_list_done, &e);
}

static int check_pattern(const char *pattern, struct error *e)
{
    if (pattern[0] != '\0' && pattern[0] != '/')
        return 0;
    (void)error_set(e, ERR_INVALID_FIELD,
                    pattern[0] == '/' ? "pattern is an absolute path" : "the query has no pattern");
    return error_remedy(e, "Give one relative to path, as in *.csv or **/*.py.");
}

void api_file_search(struct exchange *x)
{
    static const char *const query[] = {"path", "pattern", "limit", NULL};
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    struct error e = ERROR_INIT;
    struct file_call *c = begin(x, query);

    if (c == NULL)
        return;
    c->number = FILE_SEARCH_LIMIT;
    int rc = exchange_query_number(x, "limit", 1, FILE_SEARCH_LIMIT_MAX, &c->number, &e);
    if (rc == 0)
        rc = take_other(c, "pattern", FILE_PATTERN_MAX, &e);
    if (rc == 0)
        rc = check_pattern(c->other, &e);
    if (rc == 0)
        rc = agent_request_search(&request, c->number, c->path, c->other, &e);
    start(c, CHANNEL_OP_SEARCH, "search", rc, &request, on_search_done, &e);
}
