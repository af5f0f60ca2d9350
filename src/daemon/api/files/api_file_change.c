/* DELETE /v1/sandboxes/{id}/files and POST .../files/mkdir, /rename, /chmod and /symlink. */
#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/api/common/api.h"
#include "daemon/api/files/file_call.h"
#include "daemon/api/files/file_path.h"
#include "daemon/api/files/handlers.h"
#include "daemon/link/agent_message.h"
#include "daemon/link/file_mode.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/server/exchange.h"
#include "json/json.h"
#include "json/json_write.h"

#define BODY_MAX       (64 * KIB)
#define DIRECTORY_MODE 0755u
#define REPLY_MAX      (16 * CHANNEL_PATH_MAX)

/* A path as text, or in base64 where its bytes are none. */
struct path_fields {
    const char *text;
    const char *base64;
};

struct change_fields {
    struct path_fields path;
    struct path_fields other;
    const char *mode;
    bool parents;
    bool overwrite;
};

#define TEXT_FIELD(n, m, is_required, size_max)                                                    \
    {                                                                                              \
        .name = (n), .type = JSON_STRING, .required = (is_required), .max = (size_max),            \
        .offset = offsetof(struct change_fields, m)                                                \
    }
#define BOOL_FIELD(n, m)                                                                           \
    {                                                                                              \
        .name = (n), .type = JSON_BOOL, .offset = offsetof(struct change_fields, m)                \
    }
#define PATH_FIELDS(n, m)                                                                          \
    TEXT_FIELD(n, m.text, false, CHANNEL_PATH_MAX - 1),                                            \
        TEXT_FIELD(n "_base64", m.base64, false, (CHANNEL_PATH_MAX + 2) / 3 * 4)
#define MODE_FIELD(is_required) TEXT_FIELD("mode", mode, is_required, 8)

static const struct json_field mkdir_fields[] = {PATH_FIELDS("path", path), MODE_FIELD(false),
                                                 BOOL_FIELD("parents", parents)};
static const struct json_field rename_fields[] = {
    PATH_FIELDS("from", path), PATH_FIELDS("to", other), BOOL_FIELD("overwrite", overwrite)};
static const struct json_field chmod_fields[] = {PATH_FIELDS("path", path), MODE_FIELD(true)};
static const struct json_field symlink_fields[] = {PATH_FIELDS("target", other),
                                                   PATH_FIELDS("path", path)};

/* What the calls differ in. */
struct kind {
    enum channel_change change;
    const char *verb;
    const struct json_field *fields;
    size_t field_count;
    const char *path_name;
    const char *other_name; /* NULL: it has none */
    bool is_other_free;     /* any text, not a path to be checked */
    uint32_t mode;          /* for a body without one */
    int status;
};

#define FIELDS(table) .fields = (table), .field_count = sizeof(table) / sizeof((table)[0])

static const struct kind kinds[] = {
    {.change = CHANNEL_CHANGE_MKDIR,
     .verb = "make the directory",
     FIELDS(mkdir_fields),
     .path_name = "path",
     .mode = DIRECTORY_MODE,
     .status = 201},
    {.change = CHANNEL_CHANGE_RENAME,
     .verb = "rename",
     FIELDS(rename_fields),
     .path_name = "from",
     .other_name = "to",
     .status = 200},
    {.change = CHANNEL_CHANGE_CHMOD,
     .verb = "change the mode of",
     FIELDS(chmod_fields),
     .path_name = "path",
     .status = 200},
    {.change = CHANNEL_CHANGE_SYMLINK,
     .verb = "make the link",
     FIELDS(symlink_fields),
     .path_name = "path",
     .other_name = "target",
     .is_other_free = true,
     .status = 201},
};

struct change_call {
    struct file_call base;
    const struct kind *kind;
    char other[CHANNEL_PATH_MAX]; /* where the kind has an other_name */
    uint32_t mode;
};

static const struct kind *kind_of(enum channel_change change)
{
    const struct kind *k = kinds;

    while (k->change != change)
        k++;
    return k;
}

/* One path of the body, as bytes with a NUL behind; 0 and *ret_size, or -1. */
static int decode_path(const struct path_fields *f, const char *name,
                       char ret_path[CHANNEL_PATH_MAX], size_t *ret_size, struct error *e)
{
    uint8_t bytes[(CHANNEL_PATH_MAX + 2) / 3 * 3 + 3];

    if ((f->text != NULL) == (f->base64 != NULL)) {
        (void)error_set(e, ERR_INVALID_FIELD, "%s %s", name,
                        f->text != NULL ? "is given twice, as text and in base64" : "is missing");
        return error_remedy(e, "Give it as \"%s\", or bytes that are no UTF-8 as \"%s_base64\".",
                            name, name);
    }
    if (f->text != NULL) {
        *ret_size = strlen(f->text);
        memcpy(ret_path, f->text, *ret_size + 1);
        return 0;
    }
    if (base64_decode(f->base64, strlen(f->base64), bytes, ret_size) != 0 ||
        *ret_size >= CHANNEL_PATH_MAX) {
        (void)error_set(e, ERR_INVALID_FIELD, "%s_base64 is not base64 of a path", name);
        return error_remedy(e, "Encode with the standard alphabet and padding, at most %u bytes.",
                            CHANNEL_PATH_MAX - 1);
    }
    memcpy(ret_path, bytes, *ret_size);
    ret_path[*ret_size] = '\0';
    return 0;
}

static int take_path(const struct path_fields *f, const char *name, bool is_free,
                     char ret_path[CHANNEL_PATH_MAX], struct error *e)
{
    char path[CHANNEL_PATH_MAX];
    size_t size = 0;

    if (decode_path(f, name, path, &size, e) != 0)
        return -1;
    if (!is_free)
        return file_path_take(path, size, ret_path, e) == 0 ? 0 : error_wrap(e, "%s", name);
    if (size == 0 || memchr(path, '\0', size) != NULL)
        return error_set(e, ERR_INVALID_FIELD, "%s is empty, or holds a NUL byte", name);
    memcpy(ret_path, path, size + 1);
    return 0;
}

/* --- POST ---------------------------------------------------------------------------------------
 */

static void on_changed(struct file_call *call, uint32_t flags)
{
    const struct change_call *change = (const void *)call;
    const struct kind *k = change->kind;
    bool has_existed = k->change == CHANNEL_CHANGE_MKDIR && (flags & CHANNEL_END_EXISTED) != 0;
    struct buffer body = BUFFER_INIT(REPLY_MAX);
    struct json_writer w;
    char mode[8];

    (void)snprintf(mode, sizeof(mode), "%04o", change->mode & 07777);
    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_put_bytes(&w, k->path_name, call->path, strlen(call->path));
    if (k->other_name != NULL)
        json_put_bytes(&w, k->other_name, change->other, strlen(change->other));
    if (k->change == CHANNEL_CHANGE_CHMOD)
        json_put_text(&w, "mode", mode);
    if (k->change == CHANNEL_CHANGE_MKDIR)
        json_put_bool(&w, "created", !has_existed);
    json_end_object(&w);
    exchange_reply_written(call->exchange, has_existed ? 200 : k->status, &w);
}

static int send_change(struct file_call *call, struct agent_link *link, const char *verb,
                       const struct agent_change *change,
                       void (*on_done)(struct file_call *call, uint32_t flags), struct error *e)
{
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    int rc = agent_request_change(&request, change, e);

    if (rc == 0)
        rc = file_call_start(call, link, CHANNEL_OP_CHANGE, verb, &request, on_done, e);
    buffer_fini(&request);
    return rc;
}

static int start_change(struct change_call *change, const void *data, size_t size, struct error *e)
{
    struct exchange *x = change->base.exchange;
    const struct kind *k = change->kind;
    struct change_fields f = {.parents = true};
    JSON_AUTO cJSON *tree = NULL;

    if (json_parse_object(data, size, &tree, e) != 0 ||
        json_read(tree, "", k->fields, k->field_count, &f, e) != 0 ||
        take_path(&f.path, k->path_name, false, change->base.path, e) != 0)
        return -1;
    if (k->other_name != NULL &&
        take_path(&f.other, k->other_name, k->is_other_free, change->other, e) != 0)
        return -1;
    change->mode = k->mode;
    if (f.mode != NULL && file_mode_parse(f.mode, &change->mode, e) != 0)
        return -1;
    struct sandbox *s = api_sandbox(x, e);
    if (s == NULL)
        return -1;
    const struct agent_change wanted = {
        .change = k->change,
        .flags = (k->change == CHANNEL_CHANGE_MKDIR && f.parents ? CHANNEL_CHANGE_PARENTS : 0) |
                 (f.overwrite ? CHANNEL_CHANGE_OVERWRITE : 0),
        .mode = change->mode,
        .path = change->base.path,
        .other = change->other};
    return send_change(&change->base, sandbox_agent(s), k->verb, &wanted, on_changed, e);
}

static void on_body(struct exchange *x, const void *data, size_t size)
{
    struct error e = ERROR_INIT;

    if (start_change(exchange_user(x), data, size, &e) != 0)
        exchange_reply_error(x, &e);
}

static void begin_change(struct exchange *x, enum channel_change which)
{
    static const char *const no_query[] = {NULL};
    struct change_call *change = NULL;
    struct error e = ERROR_INIT;

    if (exchange_check_query(x, no_query, &e) == 0 && api_sandbox(x, &e) != NULL)
        change = file_call_new(x, sizeof(*change), "", &e);
    if (change == NULL) {
        exchange_reply_error(x, &e);
        return;
    }
    change->kind = kind_of(which);
    exchange_read_whole(x, BODY_MAX, on_body);
}

void api_file_mkdir(struct exchange *x)
{
    begin_change(x, CHANNEL_CHANGE_MKDIR);
}

void api_file_rename(struct exchange *x)
{
    begin_change(x, CHANNEL_CHANGE_RENAME);
}

void api_file_chmod(struct exchange *x)
{
    begin_change(x, CHANNEL_CHANGE_CHMOD);
}

void api_file_symlink(struct exchange *x)
{
    begin_change(x, CHANNEL_CHANGE_SYMLINK);
}

/* --- DELETE -------------------------------------------------------------------------------------
 */

static void on_removed(struct file_call *call, uint32_t flags)
{
    (void)flags;
    exchange_reply_empty(call->exchange);
}

static int start_remove(struct exchange *x, struct agent_link *link, const char *path,
                        struct error *e)
{
    bool is_tree = false;
    struct file_call *call = NULL;

    if (exchange_query_bool(x, "recursive", &is_tree, e) != 0 ||
        (call = file_call_new(x, sizeof(*call), path, e)) == NULL)
        return -1;
    const struct agent_change change = {.change = CHANNEL_CHANGE_REMOVE,
                                        .flags = is_tree ? CHANNEL_CHANGE_TREE : 0,
                                        .path = path,
                                        .other = ""};
    return send_change(call, link, "remove", &change, on_removed, e);
}

void api_file_delete(struct exchange *x)
{
    static const char *const query[] = {"path", "recursive", NULL};
    static const struct file_path_call call = {.query = query, .start = start_remove};

    file_path_begin(x, &call);
}
