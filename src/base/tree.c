#include "base/tree.h"

#include <string.h>

#include "base/wire.h"

const char *tree_path_fault(const char *path)
{
    size_t length = strlen(path);

    if (length == 0)
        return "is empty";
    if (length >= CHANNEL_PATH_MAX)
        return "is too long";
    if (path[0] == '/')
        return "is absolute";
    for (const char *at = path;; at++) {
        size_t part = strcspn(at, "/");

        if (part == 2 && memcmp(at, "..", 2) == 0)
            return "has a '..' component";
        if (part == 0 || (part == 1 && at[0] == '.'))
            return "has a component that is none";
        if (part >= FILE_NAME_BYTES)
            return "has a name that is too long";
        at += part;
        if (*at == '\0')
            return NULL;
    }
}

size_t tree_entry_put(const struct tree_entry *entry, void *data, size_t size)
{
    size_t path_size = strlen(entry->path), target_size = strlen(entry->target);
    struct wire_writer w;

    wire_writer_init(&w, data, size);
    wire_put_u8(&w, (uint8_t)entry->type);
    wire_put_u32(&w, (uint32_t)(TREE_FIELDS_BYTES + 4 + path_size + 4 + target_size));
    wire_put_u32(&w, entry->mode);
    wire_put_u64(&w, entry->size);
    wire_put_u32(&w, entry->uid);
    wire_put_u32(&w, entry->gid);
    wire_put_u64(&w, (uint64_t)entry->mtime_s);
    wire_put_u32(&w, entry->mtime_ns);
    wire_put_string(&w, entry->path, path_size);
    wire_put_string(&w, entry->target, target_size);
    return w.bad ? 0 : w.used;
}

void tree_reader_init(struct tree_reader *r)
{
    r->used = 0;
    r->content_left = 0;
    r->count = 0;
}

bool tree_reader_is_between(const struct tree_reader *r)
{
    return r->used == 0 && r->content_left == 0;
}

static const char *judge(const struct tree_entry *t)
{
    const char *fault = t->type == TREE_SKIPPED ? NULL : tree_path_fault(t->path);

    if (t->mode > 07777 || t->mtime_ns > 999999999 || t->size > INT64_MAX)
        return "has malformed fields";
    if (t->size > 0 && t->type != TREE_FILE && t->type != TREE_SKIPPED)
        return "has a size";
    if (fault != NULL)
        return fault;
    switch (t->type) {
    case TREE_SYMLINK:
        return t->target[0] == '\0' ? "says nothing" : NULL;
    case TREE_HARDLINK:
        return tree_path_fault(t->target) != NULL ? "links to what is not in the tree" : NULL;
    case TREE_SKIPPED:
        return t->path[0] != '\0' || t->target[0] != '\0' ? "has a name" : NULL;
    default:
        return t->target[0] != '\0' ? "has a target" : NULL;
    }
}

static void get_string(struct wire_reader *in, char to[CHANNEL_PATH_MAX])
{
    size_t size = 0;
    const char *text = wire_get_string(in, CHANNEL_PATH_MAX - 1, &size);

    if (text != NULL)
        memcpy(to, text, size);
    to[size] = '\0';
}

/* All of the entry is there. */
static int parse(struct tree_reader *r, struct tree_entry *ret_entry, struct error *e)
{
    struct wire_reader in;

    wire_reader_init(&in, r->record, r->used);
    struct tree_entry t = {.type = (enum tree_type)wire_get_u8(&in)};
    (void)wire_get_u32(&in);
    t.mode = wire_get_u32(&in);
    t.size = wire_get_u64(&in);
    t.uid = wire_get_u32(&in);
    t.gid = wire_get_u32(&in);
    t.mtime_s = (int64_t)wire_get_u64(&in);
    t.mtime_ns = wire_get_u32(&in);
    get_string(&in, r->path);
    get_string(&in, r->target);
    t.path = r->path;
    t.target = r->target;
    if (in.bad || in.left > 0)
        return error_set(e, ERR_BAD_REQUEST, "an entry of a tree is malformed");
    const char *fault = judge(&t);
    if (fault != NULL)
        return error_set(e, ERR_BAD_REQUEST, "\"%.200s\" in a tree %s", t.path, fault);
    if (++r->count > TREE_ENTRIES_MAX)
        return error_set(e, ERR_BAD_REQUEST, "a tree of more than %u entries", TREE_ENTRIES_MAX);
    r->content_left = t.type == TREE_FILE ? t.size : 0;
    r->used = 0;
    *ret_entry = t;
    return 0;
}

/* How long the entry is, as far as is known; 0 where it cannot be one. */
static size_t record_bytes(const struct tree_reader *r)
{
    struct wire_reader in;

    wire_reader_init(&in, r->record, r->used);
    uint8_t type = wire_get_u8(&in);
    if (type < TREE_FILE || type > TREE_SKIPPED)
        return 0;
    if (r->used < TREE_HEAD_BYTES)
        return TREE_HEAD_BYTES;
    uint32_t length = wire_get_u32(&in);
    return length <= TREE_RECORD_BYTES_MAX - TREE_HEAD_BYTES ? TREE_HEAD_BYTES + length : 0;
}

int tree_reader_next(struct tree_reader *r, const void *data, size_t size, size_t *ret_used,
                     enum tree_event *ret_event, struct tree_entry *ret_entry, struct error *e)
{
    const uint8_t *bytes = data;
    size_t at = 0;

    *ret_event = TREE_MORE;
    if (r->content_left > 0) {
        *ret_used = size < r->content_left ? size : (size_t)r->content_left;
        r->content_left -= *ret_used;
        *ret_event = size > 0 ? TREE_CONTENT : TREE_MORE;
        return 0;
    }
    while (at < size) {
        if (r->used == 0 && bytes[at] == TREE_MARK) {
            at++;
            continue;
        }
        if (r->used == 0)
            r->record[r->used++] = bytes[at++];
        size_t wanted = record_bytes(r);
        if (wanted == 0)
            return error_set(e, ERR_BAD_REQUEST, "a tree has what is no entry");
        size_t n = wanted - r->used < size - at ? wanted - r->used : size - at;
        memcpy(r->record + r->used, bytes + at, n);
        r->used += n;
        at += n;
        if (r->used < TREE_HEAD_BYTES || r->used < record_bytes(r) || record_bytes(r) == 0)
            continue;
        *ret_used = at;
        *ret_event = TREE_ENTRY;
        return parse(r, ret_entry, e);
    }
    *ret_used = at;
    return 0;
}
