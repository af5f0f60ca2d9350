#include "daemon/link/guest_call.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/link/agent_message.h"

struct guest_call {
    uv_timer_t timer;
    struct agent_stream *stream;
    struct guest_call_events events;
    void *arg;
    const char *verb; /* these two for error texts */
    char *path;
    enum channel_op op;
    bool is_write;
    bool is_over;
    bool is_short_of_room; /* write: the guest has to take something before we may go on */
    bool is_finished;      /* write: all content was given */
    bool has_started;      /* INFO came */
    bool has_progress;     /* since the timer's last tick */
    uint64_t
        unconsumed; /* read, ask: bytes that wait for our owner, so it is not the guest's turn */
};

/* What an errno of the guest means to a client; any other is ERR_FILE_REFUSED without a remedy. */
static const struct {
    uint32_t status;
    enum error_code code;
    const char *remedy;
} meanings[] = {
    {EEXIST, ERR_FILE_EXISTS, "Choose another path, or remove what is there first."},
    {ENOTEMPTY, ERR_DIRECTORY_NOT_EMPTY,
     "Remove what is in it first; DELETE does so with recursive=true."},
    {EMFILE, ERR_TOO_MANY, "End other watches and commands, or watch fewer directories."},
    {EBUSY, ERR_FILE_REFUSED, "That is a mount point, or in use."},
    {EPERM, ERR_FILE_REFUSED, "The sandbox's kernel does not let anyone do that."},
    {EXDEV, ERR_FILE_REFUSED, "It cannot be moved there: copy it with a command, then remove it."},
    {ENOENT, ERR_FILE_NOT_FOUND, "Check the path; files are those inside the sandbox."},
    {EISDIR, ERR_FILE_REFUSED, "That is a directory; name a regular file."},
    {ENOTDIR, ERR_FILE_REFUSED, "A part of the path is a file, not a directory."},
    {ELOOP, ERR_FILE_REFUSED, "The path leads through too many symbolic links."},
    {EROFS, ERR_FILE_REFUSED, "That part of the sandbox is read-only."},
    {EACCES, ERR_FILE_REFUSED, "That part of the sandbox takes no files."},
    {ENOSPC, ERR_DISK_FULL, "Delete files in the sandbox or create it with a larger disk_mib."},
    {EDQUOT, ERR_DISK_FULL, "Delete files in the sandbox or create it with a larger disk_mib."},
    {EFBIG, ERR_DISK_FULL, "Create the sandbox with a larger disk_mib."},
    {ENAMETOOLONG, ERR_INVALID_PATH, "A name in a path has at most 255 bytes."},
    {ENXIO, ERR_FILE_REFUSED, "Only regular files can be read and written."},
};

static int refuse_path(const char *path, const char *what, struct error *e)
{
    (void)error_set(e, ERR_INVALID_PATH, "path \"%.200s\" %s", path, what);
    return error_remedy(e, "Give an absolute path inside the sandbox, as in /workspace/data.csv.");
}

static bool has_dotdot(const char *path)
{
    for (const char *at = path; (at = strstr(at, "/..")) != NULL; at += 3) {
        if (at[3] == '/' || at[3] == '\0')
            return true;
    }
    return false;
}

int guest_call_check_path(const char *path, size_t size, struct error *e)
{
    if (size == 0)
        return refuse_path("", "is empty", e);
    if (memchr(path, '\0', size) != NULL)
        return refuse_path(path, "holds a NUL byte", e);
    if (path[0] != '/')
        return refuse_path(path, "is not absolute", e);
    if (size >= CHANNEL_PATH_MAX)
        return refuse_path(path, "is too long", e);
    if (has_dotdot(path))
        return refuse_path(path, "has a '..' component", e);
    if (path[size - 1] == '/')
        return refuse_path(path, "names no file", e);
    return 0;
}

static void on_timer_closed(uv_handle_t *timer)
{
    struct guest_call *call = timer->data;

    free(call->path);
    free(call);
}

static void retire(struct guest_call *call)
{
    call->is_over = true;
    call->stream = NULL;
    uv_close((uv_handle_t *)&call->timer, on_timer_closed);
}

static void set_meaning(const struct guest_call *call, const struct agent_end *end, struct error *e)
{
    enum error_code code = ERR_FILE_REFUSED;
    const char *remedy = "";

    for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++) {
        if (meanings[i].status == end->status) {
            code = meanings[i].code;
            remedy = meanings[i].remedy;
        }
    }
    /* The agent's word for what is no regular file; the kernel has it for much else. */
    if (end->status == EINVAL && agent_op_kind(call->op) != AGENT_OP_RECORDS)
        remedy = "Only regular files can be read and written.";
    /* Not found is what an entry links to. */
    if (call->op == CHANNEL_OP_TREE_IN && code == ERR_FILE_NOT_FOUND)
        code = ERR_FILE_REFUSED;
    if (call->op == CHANNEL_OP_TREE_IN && code == ERR_FILE_REFUSED)
        remedy = "See what is there already, and what the archive puts in its way.";
    (void)error_set(e, code, "cannot %s \"%.300s\"", call->verb, call->path);
    if (end->text[0] != '\0')
        (void)error_cause(e, "%.200s", end->text);
    else
        (void)error_cause(e, "%s", strerror((int)end->status));
    (void)error_remedy(e, "%s", remedy);
}

static void on_stream_end(void *arg, enum agent_outcome outcome, const struct agent_end *end)
{
    struct guest_call *call = arg;
    struct error e = ERROR_INIT;
    bool is_whole = outcome == AGENT_ENDED && end->status == 0;

    if (outcome != AGENT_ENDED)
        (void)error_set(&e, ERR_SANDBOX_GONE, "the sandbox ended before it could %s \"%.300s\"",
                        call->verb, call->path);
    else if (!is_whole)
        set_meaning(call, end, &e);
    retire(call);
    call->events.on_end(call->arg, is_whole ? NULL : &e, is_whole ? end : NULL);
}

/* Has the guest had its turn all the time since the last tick, and done nothing? */
static void on_timer(uv_timer_t *timer)
{
    struct guest_call *call = timer->data;
    bool is_guests_turn =
        call->is_write ? call->is_short_of_room || call->is_finished : call->unconsumed == 0;
    /* What is watched may be quiet for ever, and DIFF waits for us to ask. */
    bool may_be_silent = call->has_started && (call->op == CHANNEL_OP_WATCH ||
                                               (call->op == CHANNEL_OP_DIFF && !call->is_finished));
    struct error e = ERROR_INIT;

    if (call->has_progress || !is_guests_turn || may_be_silent) {
        call->has_progress = false;
        return;
    }
    (void)error_set(&e, ERR_UNREACHABLE, "the sandbox made no progress with \"%.300s\" for %u s",
                    call->path, GUEST_CALL_STALL_MS / 1000);
    (void)error_remedy(&e, "See if the sandbox's processes leave it any CPU; else delete it.");
    agent_stream_abandon(call->stream);
    retire(call);
    call->events.on_end(call->arg, &e, NULL);
}

static void on_stream_info(void *arg, const struct agent_info *info)
{
    struct guest_call *call = arg;

    call->has_progress = true;
    call->has_started = true;
    if (call->events.on_info != NULL)
        call->events.on_info(call->arg, info);
}

static void on_stream_data(void *arg, enum channel_lane lane, const uint8_t *data, size_t size)
{
    struct guest_call *call = arg;

    call->has_progress = true;
    if (call->is_write) { /* a sign of life */
        agent_stream_consume(call->stream, lane, size);
        return;
    }
    call->unconsumed += size;
    call->events.on_data(call->arg, data, size);
}

static void on_stream_writable(void *arg)
{
    struct guest_call *call = arg;

    call->has_progress = true;
    call->is_short_of_room = false;
    if (call->events.on_writable != NULL)
        call->events.on_writable(call->arg);
}

int guest_call_ask(uv_loop_t *loop, struct agent_link *link, enum channel_op op, const char *verb,
                   const char *path, struct buffer *request, const struct guest_call_events *events,
                   void *arg, struct guest_call **ret_call, struct error *e)
{
    static const struct agent_stream_calls stream_calls = {
        .on_info = on_stream_info,
        .on_data = on_stream_data,
        .on_writable = on_stream_writable,
        .on_end = on_stream_end,
    };
    struct guest_call *call = calloc(1, sizeof(*call));

    if (call == NULL || (call->path = strdup(path)) == NULL) {
        free(call);
        return error_set(e, ERR_INTERNAL, "out of memory for a call to the guest");
    }
    call->events = *events;
    call->arg = arg;
    call->verb = verb;
    call->op = op;
    call->is_write = op == CHANNEL_OP_WRITE || op == CHANNEL_OP_TREE_IN;
    bool sends = call->is_write || op == CHANNEL_OP_DIFF;
    if (agent_stream_open(link, op, sends, request, &stream_calls, call, &call->stream, e) != 0) {
        free(call->path);
        free(call);
        return -1;
    }
    (void)uv_timer_init(loop, &call->timer);
    call->timer.data = call;
    (void)uv_timer_start(&call->timer, on_timer, GUEST_CALL_STALL_MS, GUEST_CALL_STALL_MS);
    *ret_call = call;
    return 0;
}

int guest_call_read(uv_loop_t *loop, struct agent_link *link, const char *path,
                    const struct guest_call_range *range, const struct guest_call_events *events,
                    void *arg, struct guest_call **ret_call, struct error *e)
{
    static const struct guest_call_range whole = {0, UINT64_MAX};
    const struct guest_call_range *of = range != NULL ? range : &whole;
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    int rc = agent_request_read(&request, of->offset, of->length, path, e);

    if (rc == 0)
        rc = guest_call_ask(loop, link, CHANNEL_OP_READ, "read", path, &request, events, arg,
                            ret_call, e);
    buffer_fini(&request);
    return rc;
}

int guest_call_write(uv_loop_t *loop, struct agent_link *link, const char *path, uint32_t mode,
                     const struct guest_call_events *events, void *arg,
                     struct guest_call **ret_call, struct error *e)
{
    struct buffer request = BUFFER_INIT(CHANNEL_OPEN_MAX);
    int rc = agent_request_write(&request, mode, path, e);

    if (rc == 0)
        rc = guest_call_ask(loop, link, CHANNEL_OP_WRITE, "write", path, &request, events, arg,
                            ret_call, e);
    buffer_fini(&request);
    return rc;
}

void guest_call_consume(struct guest_call *call, size_t size)
{
    if (call->is_over)
        return;
    assert(size <= call->unconsumed);
    call->unconsumed -= size;
    agent_stream_consume(call->stream, CHANNEL_LANE_IN, size);
}

size_t guest_call_send(struct guest_call *call, const void *data, size_t size)
{
    if (call->is_over)
        return size;
    size_t taken = agent_stream_send(call->stream, data, size);

    call->has_progress = call->has_progress || taken > 0;
    call->is_short_of_room = taken < size;
    return taken;
}

void guest_call_finish(struct guest_call *call)
{
    if (call->is_over)
        return;
    call->is_finished = true;
    call->has_progress = true;
    agent_stream_eof(call->stream);
}

void guest_call_abandon(struct guest_call *call)
{
    if (call == NULL || call->is_over)
        return;
    agent_stream_abandon(call->stream);
    retire(call);
}
