/* The agent's STAT, LIST, SEARCH and CHANGE over a socket pair, on a directory of the host. */
#pragma once

#include "test_agent_peer.h"

#include <errno.h>
#include <ftw.h>

#include "daemon/link/agent_message.h"
#include "daemon/link/file_record.h"

struct fixture {
    struct peer peer;
    char dir[64];
    struct peer_result result; /* of the last question */
};

static inline int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/cloche-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    peer_result_init(&f->result);
    peer_start(&f->peer, false);
    *state = f;
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;
    char command[128];

    peer_stop(&f->peer, 0);
    peer_result_fini(&f->result);
    (void)snprintf(command, sizeof(command), "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* A path below the test's directory; good until eight more were made. */
static inline const char *in_dir(struct fixture *f, const char *name)
{
    static char paths[8][CHANNEL_PATH_MAX];
    static unsigned slot;

    slot = (slot + 1) % 8;
    (void)snprintf(paths[slot], sizeof(paths[slot]), "%s/%s", f->dir, name);
    return paths[slot];
}

static inline void put_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(fd_write_full(fd, text, strlen(text)), 0);
    (void)close(fd);
}

static inline bool is_there(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static inline uint32_t open_request(struct fixture *f, struct buffer *request)
{
    struct wire_writer w = {.used = request->size};
    uint32_t id = peer_open(&f->peer, buffer_bytes(request), &w);

    buffer_fini(request);
    return id;
}

/* Sends a request and takes all that comes; the host's credit is what it is at most in all. */
static inline uint32_t finish_request(struct fixture *f, struct buffer *request)
{
    uint32_t id = open_request(f, request);

    peer_result_fini(&f->result);
    peer_result_init(&f->result);
    peer_send_u32(&f->peer, id, CHANNEL_CREDIT, 0, FILE_RECORDS_BYTES_MAX);
    peer_finish(&f->peer, id, &f->result);
    assert_int_equal(f->result.bytes, f->result.lanes[0].size);
    assert_true(f->result.bytes <= FILE_RECORDS_BYTES_MAX);
    return f->result.status;
}

/* What is sent while the agent is stopped is there at once when it goes on. */
static inline void stop_agent(struct fixture *f)
{
    int status;

    assert_int_equal(kill(f->peer.pid, SIGSTOP), 0);
    assert_int_equal(waitpid(f->peer.pid, &status, WUNTRACED), f->peer.pid);
    assert_true(WIFSTOPPED(status));
}

static inline void continue_agent(struct fixture *f)
{
    assert_int_equal(kill(f->peer.pid, SIGCONT), 0);
}

/* The stream whose END comes first. */
static inline uint32_t first_end(struct fixture *f)
{
    static struct peer_frame frame;

    do {
        assert_true(peer_receive(&f->peer, &frame));
    } while (frame.h.type != CHANNEL_END);
    return frame.h.stream;
}

static inline struct buffer new_request(void)
{
    return (struct buffer)BUFFER_INIT(CHANNEL_OPEN_MAX);
}

static inline uint32_t ask_stat(struct fixture *f, const char *path, uint32_t flags)
{
    struct buffer request = new_request();
    struct error e = ERROR_INIT;

    assert_int_equal(agent_request_stat(&request, flags, path, &e), 0);
    return finish_request(f, &request);
}

static inline uint32_t ask_list(struct fixture *f, const char *path, uint32_t limit,
                                const char *after)
{
    struct buffer request = new_request();
    struct error e = ERROR_INIT;

    assert_int_equal(agent_request_list(&request, limit, after, path, &e), 0);
    return finish_request(f, &request);
}

static inline uint32_t ask_search(struct fixture *f, const char *path, uint32_t limit,
                                  const char *pattern)
{
    struct buffer request = new_request();
    struct error e = ERROR_INIT;

    assert_int_equal(agent_request_search(&request, limit, path, pattern, &e), 0);
    return finish_request(f, &request);
}

static inline struct buffer change_request(enum channel_change change, uint32_t flags,
                                           uint32_t mode, const char *path, const char *other)
{
    struct buffer request = new_request();
    struct error e = ERROR_INIT;
    const struct agent_change c = {change, flags, mode, path, other};

    assert_int_equal(agent_request_change(&request, &c, &e), 0);
    return request;
}

static inline uint32_t ask_change(struct fixture *f, enum channel_change change, uint32_t flags,
                                  uint32_t mode, const char *path, const char *other)
{
    struct buffer request = change_request(change, flags, mode, path, other);

    return finish_request(f, &request);
}

static inline uint32_t ask_remove(struct fixture *f, const char *path, bool tree)
{
    return ask_change(f, CHANNEL_CHANGE_REMOVE, tree ? CHANNEL_CHANGE_TREE : 0, 0, path, "");
}

/* The records that came, one call each; false at their end. */
static inline void first_record(struct fixture *f, struct file_records *r, enum file_names names)
{
    assert_int_equal(f->result.status, 0);
    assert_true(f->result.has_info && f->result.eof[0]);
    file_records_init(r, buffer_bytes(&f->result.lanes[0]), f->result.lanes[0].size, names, "");
}

static inline bool next_record(struct file_records *r, struct file_record *record)
{
    struct error e = ERROR_INIT;
    int result = file_records_next(r, record, &e);

    if (result < 0)
        fail_msg("%s", e.message);
    return result == 1;
}

static inline bool name_is(const struct file_record *r, const char *name)
{
    return r->name_size == strlen(name) && memcmp(r->name, name, r->name_size) == 0;
}

#define FILE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
