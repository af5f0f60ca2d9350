/*
 * The host's side of the channel for tests of the agent: blocking, one frame at a time, and free to
 * break every rule. The agent runs in a child process over a socket pair.
 */
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/fd.h"
#include "base/frame.h"
#include "base/wire.h"
#include "guest/channel/service.h"
#include "guest/operations.h"

#define PEER_WAIT_MS      20000
#define PEER_BYTES_MAX    (64u << 20)
#define PEER_EXIT_BROKEN  42
#define PEER_EXIT_FAILED  43
#define PEER_CGROUP_BYTES 128u

struct peer {
    int fd;
    pid_t pid;
    uint32_t next_stream;
    char cgroup[PEER_CGROUP_BYTES]; /* empty: the agent runs without */
};

struct peer_frame {
    struct channel_header h;
    uint8_t payload[CHANNEL_PAYLOAD_MAX];
};

/* What came on one stream, up to its END. */
struct peer_result {
    struct buffer lanes[CHANNEL_LANE_COUNT];
    bool eof[CHANNEL_LANE_COUNT];
    bool has_info;
    uint32_t pid; /* EXEC's INFO */
    uint64_t size, mtime_ns, offset;
    uint32_t mode; /* READ's INFO */
    uint32_t status;
    char text[CHANNEL_TEXT_MAX + 1];
    uint32_t kind, code;
    uint64_t wall_us, user_us, system_us, max_rss_bytes;
    uint64_t bytes; /* END of all but EXEC */
    uint32_t flags; /* END of STAT, LIST, SEARCH, CHANGE */
    size_t frames;
};

/* What a test wants the agent to take for the layers of its root, and how long a command's
 * descendants have to finish their output; 0: as in a guest. */
static struct layers peer_layers = LAYERS_NONE;
static uint64_t peer_grace_ns;

static inline void peer_agent_main(int fd, const char *cgroup)
{
    static struct operations operations;
    static struct service service;
    struct error e = ERROR_INIT;

    /* As PID 1: orphans are ours, and nobody has left descriptors open. */
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    (void)close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    if (operations_init(&operations, cgroup, &peer_layers, &e) < 0 ||
        service_init(&service, fd, operations.rows, OPERATION_COUNT, &e) < 0)
        _exit(PEER_EXIT_FAILED);
    if (peer_grace_ns > 0)
        operations.commands.grace_ns = peer_grace_ns;
    service_when_idle(&service, operations_tidy, &operations);
    int result = service_run(&service, &e);
    if (result < 0)
        fprintf(stderr, "agent: %s\n", e.message);
    service_fini(&service);
    operations_fini(&operations);
    (void)close(fd);
    exit(result < 0 ? PEER_EXIT_BROKEN : 0);
}

/* What runs in the child; a test may have another service there. */
static void (*peer_main)(int fd, const char *cgroup) = peer_agent_main;

static inline void peer_start(struct peer *p, bool with_cgroup)
{
    static const char *const roots[] = {"/sys/fs/cgroup/unified", "/sys/fs/cgroup"};
    int fds[2];

    *p = (struct peer){.next_stream = 1};
    for (size_t i = 0; with_cgroup && i < 2; i++) {
        char probe[64];
        (void)snprintf(probe, sizeof(probe), "%s/cgroup.procs", roots[i]);
        if (access(probe, W_OK) < 0)
            continue;
        (void)snprintf(p->cgroup, sizeof(p->cgroup), "%s/cloche-test-%d", roots[i], getpid());
        if (mkdir(p->cgroup, 0755) == 0)
            break;
        p->cgroup[0] = '\0';
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    p->pid = fork();
    assert_true(p->pid >= 0);
    if (p->pid == 0) {
        (void)close(fds[0]);
        /* As PID 1 starts: a shell's background job, say, ignores some, and so would commands. */
        for (int s = 1; s < SIGRTMIN; s++)
            (void)signal(s, SIG_DFL);
        peer_main(fds[1], p->cgroup[0] != '\0' ? p->cgroup : NULL);
    }
    (void)close(fds[1]);
    p->fd = fds[0];
}

/* A service that ended in the middle of a command leaves its cgroup to whoever ends the guest. */
static inline void peer_remove_cgroup(const char *cgroup)
{
    DIR *dir = opendir(cgroup);

    if (dir == NULL)
        return;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
            (void)unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
    }
    (void)closedir(dir);
    (void)rmdir(cgroup);
}

/* Hangs up and checks how the agent ended. */
static inline void peer_stop(struct peer *p, int expected_exit)
{
    int status = 0;

    (void)close(p->fd);
    assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), expected_exit);
    for (int i = 0; p->cgroup[0] != '\0' && access(p->cgroup, F_OK) == 0 && i < 2000; i++) {
        peer_remove_cgroup(p->cgroup);
        (void)usleep(i == 0 ? 0 : 10000);
    }
    assert_true(p->cgroup[0] == '\0' || access(p->cgroup, F_OK) < 0);
}

/* Does not fail where the agent has hung up. */
static inline void peer_send_raw(struct peer *p, const void *data, size_t size)
{
    const uint8_t *at = data;

    while (size > 0) {
        ssize_t n = send(p->fd, at, size, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        at += n;
        size -= (size_t)n;
    }
}

static inline void peer_send(struct peer *p, uint32_t stream, unsigned type, unsigned lane,
                             const void *payload, size_t size)
{
    uint8_t header[CHANNEL_HEADER_BYTES];
    struct channel_header h = {
        .length = (uint32_t)size, .stream = stream, .type = (uint8_t)type, .lane = (uint8_t)lane};

    frame_header_put(header, &h);
    peer_send_raw(p, header, sizeof(header));
    peer_send_raw(p, payload, size);
}

static inline void peer_send_u32(struct peer *p, uint32_t stream, unsigned type, unsigned lane,
                                 uint32_t value)
{
    uint8_t bytes[4];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u32(&w, value);
    peer_send(p, stream, type, lane, bytes, sizeof(bytes));
}

static inline bool peer_readable(struct peer *p, int timeout_ms)
{
    struct pollfd wait = {.fd = p->fd, .events = POLLIN};

    return poll(&wait, 1, timeout_ms) == 1;
}

/* False at the end of the channel. A silent agent fails the test. */
static inline bool peer_receive(struct peer *p, struct peer_frame *ret_frame)
{
    uint8_t header[CHANNEL_HEADER_BYTES];
    struct error e = ERROR_INIT;

    assert_true(peer_readable(p, PEER_WAIT_MS));
    ssize_t n = fd_read_full(p->fd, header, sizeof(header));
    if (n <= 0)
        return false;
    assert_int_equal(n, sizeof(header));
    assert_int_equal(frame_header_get(header, &ret_frame->h, &e), 0);
    assert_int_equal(fd_read_full(p->fd, ret_frame->payload, ret_frame->h.length),
                     ret_frame->h.length);
    return true;
}

static inline void put_text(struct wire_writer *w, const char *text)
{
    wire_put_string(w, text, strlen(text));
}

struct peer_exec {
    const char *const *argv;
    const char *const *env; /* NULL: a PATH */
    const char *user;
    const char *cwd;
    bool has_stdin;
    bool has_pty;
    uint16_t rows, columns;
    uint32_t flags; /* further ones */
    uint32_t umask; /* 0: the agent's */
    struct channel_limit limits[CHANNEL_LIMIT_COUNT + 1];
    uint32_t limit_count;
};

static inline uint32_t peer_exec(struct peer *p, const struct peer_exec *x)
{
    static const char *const env_default[] = {"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C", NULL};
    static uint8_t bytes[CHANNEL_PAYLOAD_MAX];
    const char *const *env = x->env != NULL ? x->env : env_default;
    struct wire_writer w;
    uint32_t argc = 0, envc = 0;

    while (x->argv[argc] != NULL)
        argc++;
    while (env[envc] != NULL)
        envc++;
    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u16(&w, CHANNEL_OP_EXEC);
    wire_put_u32(&w, x->flags | (x->has_stdin ? (uint32_t)CHANNEL_EXEC_STDIN : 0) |
                         (x->has_pty ? (uint32_t)CHANNEL_EXEC_PTY : 0));
    wire_put_u16(&w, x->rows);
    wire_put_u16(&w, x->columns);
    wire_put_u32(&w, x->umask != 0 ? x->umask : CHANNEL_UMASK_DEFAULT);
    put_text(&w, x->user != NULL ? x->user : "");
    put_text(&w, x->cwd != NULL ? x->cwd : "/");
    wire_put_u32(&w, x->limit_count);
    for (uint32_t i = 0; i < x->limit_count; i++) {
        wire_put_u32(&w, x->limits[i].kind);
        wire_put_u64(&w, x->limits[i].value);
    }
    wire_put_u32(&w, argc);
    for (uint32_t i = 0; i < argc; i++)
        put_text(&w, x->argv[i]);
    wire_put_u32(&w, envc);
    for (uint32_t i = 0; i < envc; i++)
        put_text(&w, env[i]);
    assert_false(w.bad);
    peer_send(p, p->next_stream, CHANNEL_OPEN, 0, bytes, w.used);
    return p->next_stream++;
}

static inline uint32_t peer_shell(struct peer *p, const char *script, bool has_stdin)
{
    const char *argv[] = {"sh", "-c", script, NULL};

    return peer_exec(p, &(struct peer_exec){.argv = argv, .has_stdin = has_stdin});
}

static inline uint32_t peer_open(struct peer *p, const uint8_t *bytes, const struct wire_writer *w)
{
    assert_false(w->bad);
    peer_send(p, p->next_stream, CHANNEL_OPEN, 0, bytes, w->used);
    return p->next_stream++;
}

static inline uint32_t peer_open_range(struct peer *p, uint64_t offset, uint64_t length,
                                       const char *path)
{
    uint8_t bytes[CHANNEL_PATH_MAX + 64];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u16(&w, CHANNEL_OP_READ);
    wire_put_u64(&w, offset);
    wire_put_u64(&w, length);
    put_text(&w, path);
    return peer_open(p, bytes, &w);
}

static inline uint32_t peer_open_file(struct peer *p, enum channel_op op, uint32_t mode,
                                      const char *path)
{
    uint8_t bytes[CHANNEL_PATH_MAX + 64];
    struct wire_writer w;

    if (op == CHANNEL_OP_READ)
        return peer_open_range(p, 0, UINT64_MAX, path);
    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u16(&w, (uint16_t)op);
    wire_put_u32(&w, mode);
    put_text(&w, path);
    return peer_open(p, bytes, &w);
}

static inline void peer_result_init(struct peer_result *r)
{
    *r = (struct peer_result){0};
    for (int i = 0; i < CHANNEL_LANE_COUNT; i++)
        r->lanes[i] = (struct buffer)BUFFER_INIT(PEER_BYTES_MAX);
}

static inline void peer_result_fini(struct peer_result *r)
{
    for (int i = 0; i < CHANNEL_LANE_COUNT; i++)
        buffer_fini(&r->lanes[i]);
}

static inline void peer_parse_end(struct peer_result *r, const struct peer_frame *f)
{
    struct wire_reader reader;
    size_t size = 0;

    wire_reader_init(&reader, f->payload, f->h.length);
    r->status = wire_get_u32(&reader);
    const char *text = wire_get_string(&reader, CHANNEL_TEXT_MAX, &size);
    assert_non_null(text);
    memcpy(r->text, text, size);
    r->text[size] = '\0';
    assert_int_equal(r->status == 0, size == 0);
    if (reader.left == 8 || reader.left == 12) {
        r->bytes = wire_get_u64(&reader);
        r->flags = reader.left > 0 ? wire_get_u32(&reader) : 0;
    } else if (reader.left > 0) {
        r->kind = wire_get_u32(&reader);
        r->code = wire_get_u32(&reader);
        r->wall_us = wire_get_u64(&reader);
        r->user_us = wire_get_u64(&reader);
        r->system_us = wire_get_u64(&reader);
        r->max_rss_bytes = wire_get_u64(&reader);
    }
    assert_false(reader.bad);
    assert_int_equal(reader.left, 0);
}

/* Takes a frame into the result; true when it was the END. */
static inline bool peer_take(struct peer_result *r, const struct peer_frame *f)
{
    struct wire_reader reader;

    r->frames++;
    wire_reader_init(&reader, f->payload, f->h.length);
    switch (f->h.type) {
    case CHANNEL_INFO:
        assert_false(r->has_info);
        r->has_info = true;
        if (f->h.length == 4) {
            r->pid = wire_get_u32(&reader);
        } else {
            r->size = wire_get_u64(&reader);
            r->mode = wire_get_u32(&reader);
            r->mtime_ns = wire_get_u64(&reader);
            r->offset = wire_get_u64(&reader);
        }
        return false;
    case CHANNEL_DATA:
        assert_true(r->has_info && !r->eof[f->h.lane]);
        assert_int_equal(buffer_append(&r->lanes[f->h.lane], f->payload, f->h.length), 0);
        return false;
    case CHANNEL_EOF:
        assert_false(r->eof[f->h.lane]);
        r->eof[f->h.lane] = true;
        return false;
    case CHANNEL_CREDIT:
        return false;
    case CHANNEL_END:
        peer_parse_end(r, f);
        return true;
    default:
        fail_msg("type %u from the agent", f->h.type);
        return false;
    }
}

/* Receives until the stream's END, granting credit for each byte at once. */
static inline void peer_finish(struct peer *p, uint32_t stream, struct peer_result *ret_result)
{
    static struct peer_frame f;

    for (;;) {
        assert_true(peer_receive(p, &f));
        if (f.h.stream != stream)
            continue;
        if (f.h.type == CHANNEL_DATA)
            peer_send_u32(p, stream, CHANNEL_CREDIT, f.h.lane, f.h.length);
        if (peer_take(ret_result, &f))
            return;
    }
}

/*
 * Until the agent has done all that it does by itself: two requests that end at once, the second
 * sent behind the first one's END, so that a whole turn of its loop lies between. What comes of
 * `stream` meanwhile is taken into the result; returns whether it was DATA.
 */
static inline bool peer_settle(struct peer *p, uint32_t stream, struct peer_result *ret_result)
{
    static struct peer_frame f;
    bool is_data = false;

    for (int i = 0; i < 2; i++) {
        uint32_t id = peer_open_file(p, CHANNEL_OP_READ, 0, "/");

        do {
            assert_true(peer_receive(p, &f));
            if (f.h.stream == stream) {
                is_data = is_data || f.h.type == CHANNEL_DATA;
                (void)peer_take(ret_result, &f);
            }
        } while (f.h.stream != id || f.h.type != CHANNEL_END);
    }
    return is_data;
}

static inline bool peer_lane_is(const struct peer_result *r, enum channel_lane lane,
                                const char *text)
{
    const struct buffer *b = &r->lanes[lane];

    bool same =
        b->size == strlen(text) && (b->size == 0 || memcmp(buffer_bytes(b), text, b->size) == 0);

    if (!same)
        print_error("lane %d: \"%.*s\"\n", (int)lane, (int)b->size, (char *)buffer_bytes(b));
    return same;
}
