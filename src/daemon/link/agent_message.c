#include "daemon/link/agent_message.h"

#include <string.h>

#include "base/utf8.h"
#include "base/wire.h"

#define CLAIM_MAX (UINT64_C(1) << 53)

_Static_assert(AGENT_MESSAGE_MAX <= CHANNEL_PAYLOAD_MAX, "an END fits one frame");

enum agent_op_kind agent_op_kind(enum channel_op op)
{
    switch (op) {
    case CHANNEL_OP_EXEC:
        return AGENT_OP_COMMAND;
    case CHANNEL_OP_READ:
        return AGENT_OP_READ;
    case CHANNEL_OP_WRITE:
        return AGENT_OP_WRITE;
    case CHANNEL_OP_TREE_IN:
        return AGENT_OP_TREE;
    default:
        return AGENT_OP_RECORDS;
    }
}

int agent_info_parse(enum channel_op op, const void *data, size_t size, struct agent_info *ret_info,
                     struct error *e)
{
    struct agent_info info = {0};
    struct wire_reader r;

    wire_reader_init(&r, data, size);
    switch (agent_op_kind(op)) {
    case AGENT_OP_COMMAND:
        info.pid = wire_get_u32(&r);
        r.bad = r.bad || info.pid == 0; /* 0 is for those that have not started */
        break;
    case AGENT_OP_READ:
        info.size = wire_get_u64(&r);
        info.mode = wire_get_u32(&r) & 07777;
        info.mtime_ns = wire_get_u64(&r);
        info.offset = wire_get_u64(&r);
        /* No file of Linux is larger. */
        r.bad = r.bad || info.size > INT64_MAX || info.offset > info.size;
        break;
    case AGENT_OP_WRITE:
    case AGENT_OP_RECORDS:
    case AGENT_OP_TREE:
        break;
    }
    if (r.bad || r.left > 0)
        return error_set(e, ERR_BAD_REQUEST, "agent: INFO of %zu bytes does not fit op %d", size,
                         (int)op);
    *ret_info = info;
    return 0;
}

/* A guest may claim anything; what is out of proportion becomes the largest number that every JSON
 * reader understands, and can be counted in finer units without a wrap. */
static uint64_t get_claim(struct wire_reader *r)
{
    uint64_t claim = wire_get_u64(r);

    return claim < CLAIM_MAX ? claim : CLAIM_MAX;
}

/* A guest's words may go to a terminal: what could steer one is replaced, and so is what is not
 * text. (C1 control characters are 0xc2 and a byte below 0xa0 in UTF-8.) */
static void copy_text(char *to, const char *text, size_t size)
{
    size_t i = 0;

    while (i < size) {
        size_t length = utf8_sequence(text + i, size - i);
        unsigned char c = (unsigned char)text[i];
        bool is_control = c < 0x20 || c == 0x7f ||
                          (c == 0xc2 && length == 2 && (unsigned char)text[i + 1] < 0xa0);

        if (length == 0 || is_control) {
            to[i++] = '?';
            if (length == 2)
                to[i++] = '?';
            continue;
        }
        memcpy(to + i, text + i, length);
        i += length;
    }
    to[size] = '\0';
}

static void parse_exec_end(struct wire_reader *r, struct agent_end *end)
{
    uint32_t kind = wire_get_u32(r);

    end->code = (int32_t)wire_get_u32(r);
    (void)get_claim(r); /* how long it took: our own clock says that */
    end->user_us = get_claim(r);
    end->system_us = get_claim(r);
    end->max_rss_bytes = get_claim(r);
    end->kind = (enum channel_exec_end)kind;
    if (kind < CHANNEL_EXEC_EXITED || kind > CHANNEL_EXEC_OOM)
        r->bad = true;
    if (kind == CHANNEL_EXEC_EXITED && (end->code < 0 || end->code > 255))
        r->bad = true;
    if (kind == CHANNEL_EXEC_SIGNALED && (end->code < 1 || end->code > 64))
        r->bad = true;
}

int agent_end_parse(enum channel_op op, const void *data, size_t size, struct agent_end *ret_end,
                    struct error *e)
{
    struct agent_end end = {0};
    struct wire_reader r;
    size_t text_size = 0;

    wire_reader_init(&r, data, size);
    end.status = wire_get_u32(&r);
    const char *text = wire_get_string(&r, CHANNEL_TEXT_MAX, &text_size);
    if (text != NULL)
        copy_text(end.text, text, text_size);
    if (end.status == 0) {
        if (op == CHANNEL_OP_EXEC)
            parse_exec_end(&r, &end);
        else
            end.bytes = wire_get_u64(&r);
        if (agent_op_kind(op) == AGENT_OP_RECORDS)
            end.flags = wire_get_u32(&r);
        if (op == CHANNEL_OP_TREE_IN) {
            end.files = get_claim(&r);
            end.directories = get_claim(&r);
            end.symlinks = get_claim(&r);
            end.content_bytes = get_claim(&r);
        }
        r.bad = r.bad || (end.flags & ~(CHANNEL_END_MORE | CHANNEL_END_EXISTED)) != 0;
    }
    if (r.bad || r.left > 0)
        return error_set(e, ERR_BAD_REQUEST, "agent: END of %zu bytes does not fit op %d", size,
                         (int)op);
    *ret_end = end;
    return 0;
}

static size_t string_bytes(const char *text)
{
    return 4 + strlen(text);
}

static void put_text(struct wire_writer *w, const char *text)
{
    wire_put_string(w, text, strlen(text));
}

/* Reserves `size` bytes of a request and starts it with the op. */
static int begin(struct buffer *request, enum channel_op op, size_t size, struct wire_writer *ret_w,
                 struct error *e)
{
    uint8_t *at = buffer_reserve(request, size);

    if (at == NULL)
        return error_set(e, ERR_INTERNAL, "no room for a request of %zu bytes to the guest", size);
    wire_writer_init(ret_w, at, size);
    wire_put_u16(ret_w, (uint16_t)op);
    return 0;
}

/* Sum of a vector's strings as they go over the wire; past CHANNEL_OPEN_MAX where there are too
 * many. */
static size_t vector_bytes(const char *const *vector, uint32_t *ret_count)
{
    size_t bytes = 4;
    uint32_t count = 0;

    for (; vector[count] != NULL; count++) {
        if (count == CHANNEL_ARGS_MAX || bytes > CHANNEL_OPEN_MAX)
            return CHANNEL_OPEN_MAX + 1;
        bytes += string_bytes(vector[count]);
    }
    *ret_count = count;
    return bytes;
}

int agent_request_exec(struct buffer *request, const struct agent_command *command, struct error *e)
{
    uint32_t argc = 0;
    uint32_t envc = 0;
    struct wire_writer w;
    size_t size = 2 + 4 + 2 + 2 + 4 + string_bytes(command->user) + string_bytes(command->cwd) + 4 +
                  command->limit_count * CHANNEL_LIMIT_BYTES + vector_bytes(command->argv, &argc) +
                  vector_bytes(command->env, &envc);

    if (size > CHANNEL_OPEN_MAX) {
        (void)error_set(e, ERR_TOO_LARGE, "argv and env are larger than %u bytes together",
                        (unsigned)CHANNEL_OPEN_MAX);
        return error_remedy(e, "Put large data into a file, or send it as stdin.");
    }
    if (begin(request, CHANNEL_OP_EXEC, size, &w, e) != 0)
        return -1;
    wire_put_u32(&w, (command->has_stdin ? (uint32_t)CHANNEL_EXEC_STDIN : 0) |
                         (command->has_pty ? (uint32_t)CHANNEL_EXEC_PTY : 0));
    wire_put_u16(&w, command->has_pty ? command->rows : 0);
    wire_put_u16(&w, command->has_pty ? command->columns : 0);
    wire_put_u32(&w, command->umask);
    put_text(&w, command->user);
    put_text(&w, command->cwd);
    wire_put_u32(&w, (uint32_t)command->limit_count);
    for (size_t i = 0; i < command->limit_count; i++) {
        wire_put_u32(&w, command->limits[i].kind);
        wire_put_u64(&w, command->limits[i].value);
    }
    wire_put_u32(&w, argc);
    for (uint32_t i = 0; i < argc; i++)
        put_text(&w, command->argv[i]);
    wire_put_u32(&w, envc);
    for (uint32_t i = 0; i < envc; i++)
        put_text(&w, command->env[i]);
    buffer_commit(request, w.used);
    return 0;
}

int agent_request_read(struct buffer *request, uint64_t offset, uint64_t length, const char *path,
                       struct error *e)
{
    struct wire_writer w;

    if (begin(request, CHANNEL_OP_READ, 2 + 8 + 8 + string_bytes(path), &w, e) != 0)
        return -1;
    wire_put_u64(&w, offset);
    wire_put_u64(&w, length);
    put_text(&w, path);
    buffer_commit(request, w.used);
    return 0;
}

int agent_request_write(struct buffer *request, uint32_t mode, const char *path, struct error *e)
{
    struct wire_writer w;

    if (begin(request, CHANNEL_OP_WRITE, 2 + 4 + string_bytes(path), &w, e) != 0)
        return -1;
    wire_put_u32(&w, mode);
    put_text(&w, path);
    buffer_commit(request, w.used);
    return 0;
}

static int request_flags_path(struct buffer *request, enum channel_op op, uint32_t flags,
                              const char *path, struct error *e)
{
    struct wire_writer w;

    if (begin(request, op, 2 + 4 + string_bytes(path), &w, e) != 0)
        return -1;
    wire_put_u32(&w, flags);
    put_text(&w, path);
    buffer_commit(request, w.used);
    return 0;
}

int agent_request_stat(struct buffer *request, uint32_t flags, const char *path, struct error *e)
{
    return request_flags_path(request, CHANNEL_OP_STAT, flags, path, e);
}

int agent_request_diff(struct buffer *request, struct error *e)
{
    struct wire_writer w;

    if (begin(request, CHANNEL_OP_DIFF, 2, &w, e) != 0)
        return -1;
    buffer_commit(request, w.used);
    return 0;
}

int agent_request_watch(struct buffer *request, uint32_t flags, const char *path, struct error *e)
{
    return request_flags_path(request, CHANNEL_OP_WATCH, flags, path, e);
}

int agent_request_list(struct buffer *request, uint32_t limit, const char *after, const char *path,
                       struct error *e)
{
    struct wire_writer w;

    if (begin(request, CHANNEL_OP_LIST, 2 + 4 + string_bytes(after) + string_bytes(path), &w, e) !=
        0)
        return -1;
    wire_put_u32(&w, limit);
    put_text(&w, after);
    put_text(&w, path);
    buffer_commit(request, w.used);
    return 0;
}

int agent_request_search(struct buffer *request, uint32_t limit, const char *path,
                         const char *pattern, struct error *e)
{
    struct wire_writer w;

    if (begin(request, CHANNEL_OP_SEARCH, 2 + 4 + string_bytes(path) + string_bytes(pattern), &w,
              e) != 0)
        return -1;
    wire_put_u32(&w, limit);
    put_text(&w, path);
    put_text(&w, pattern);
    buffer_commit(request, w.used);
    return 0;
}

int agent_request_tree(struct buffer *request, enum channel_op op, const char *path,
                       struct error *e)
{
    struct wire_writer w;

    if (begin(request, op, 2 + string_bytes(path), &w, e) != 0)
        return -1;
    put_text(&w, path);
    buffer_commit(request, w.used);
    return 0;
}

int agent_request_change(struct buffer *request, const struct agent_change *change, struct error *e)
{
    struct wire_writer w;

    if (begin(request, CHANNEL_OP_CHANGE,
              2 + 4 + 4 + 4 + string_bytes(change->path) + string_bytes(change->other), &w, e) != 0)
        return -1;
    wire_put_u32(&w, (uint32_t)change->change);
    wire_put_u32(&w, change->flags);
    wire_put_u32(&w, change->mode);
    put_text(&w, change->path);
    put_text(&w, change->other);
    buffer_commit(request, w.used);
    return 0;
}
