/* The agent's WATCH: what happens in a directory is told, in order, and what is lost is told, too.
 */
#include "fileops_fixture.h"

#include "daemon/link/file_event.h"

struct watch {
    struct fixture *f;
    uint32_t id;
    struct buffer held;
    char line[FILE_EVENT_LINE_MAX];
    bool started, ended;
};

static struct watch watch;

static void open_watch(struct fixture *f, const char *path, uint32_t flags)
{
    struct buffer request = new_request();
    struct error e = ERROR_INIT;

    buffer_fini(&watch.held);
    watch = (struct watch){.f = f, .held = BUFFER_INIT(PEER_BYTES_MAX)};
    assert_int_equal(agent_request_watch(&request, flags, path, &e), 0);
    watch.id = open_request(f, &request);
    peer_send_u32(&f->peer, watch.id, CHANNEL_CREDIT, 0, 16u << 20);
}

/* Takes one frame. */
static void take_frame(void)
{
    static struct peer_frame frame;

    assert_true(peer_receive(&watch.f->peer, &frame));
    assert_int_equal(frame.h.stream, watch.id);
    if (frame.h.type == CHANNEL_INFO)
        watch.started = true;
    if (frame.h.type == CHANNEL_DATA)
        assert_int_equal(buffer_append(&watch.held, frame.payload, frame.h.length), 0);
    if (frame.h.type == CHANNEL_END) {
        watch.ended = true;
        peer_parse_end(&watch.f->result, &frame);
    }
}

static void wait_start(struct fixture *f, const char *path, uint32_t flags)
{
    open_watch(f, path, flags);
    while (!watch.started)
        take_frame();
}

/* The next event as its line; NULL at the end. */
static const char *next_line(void)
{
    struct buffer line = BUFFER_INIT(FILE_EVENT_LINE_MAX);
    struct error e = ERROR_INIT;

    for (;;) {
        size_t used = 0;
        int result = file_event_take(buffer_bytes(&watch.held), watch.held.size, &line, &used, &e);

        assert_true(result >= 0);
        if (result == 0 && watch.ended)
            return NULL;
        if (result == 0) {
            take_frame();
            continue;
        }
        buffer_consume(&watch.held, used);
        if (line.size == 0)
            continue;
        memcpy(watch.line, buffer_bytes(&line), line.size - 1);
        watch.line[line.size - 1] = '\0';
        buffer_fini(&line);
        return watch.line;
    }
}

static void expect(const char *type, const char *name, bool is_directory)
{
    char line[512];

    (void)snprintf(line, sizeof(line), "{\"type\":\"%s\",\"path\":\"%s/%s\",\"directory\":%s}",
                   type, watch.f->dir, name, is_directory ? "true" : "false");
    assert_string_equal(next_line(), line);
}

/* Passes over other events until that one comes. */
static void await(const char *type, const char *name)
{
    char begin[512];

    (void)snprintf(begin, sizeof(begin), "{\"type\":\"%s\",\"path\":\"%s/%s\"", type, watch.f->dir,
                   name);
    for (;;) {
        const char *line = next_line();
        assert_non_null(line);
        if (strncmp(line, begin, strlen(begin)) == 0)
            return;
    }
}

static void stop_watch(struct fixture *f)
{
    peer_send(&f->peer, watch.id, CHANNEL_RESET, 0, NULL, 0);
    while (!watch.ended)
        take_frame();
    assert_int_equal(f->result.status, ECANCELED);
    buffer_fini(&watch.held);
}

static void test_one_directory(void **state)
{
    struct fixture *f = *state;
    char line[512];

    assert_int_equal(mkdir(in_dir(f, "sub"), 0755), 0);
    wait_start(f, f->dir, 0);
    put_file(in_dir(f, "sub/unseen"), "x");
    put_file(in_dir(f, "a"), "x");
    expect("created", "a", false);
    expect("modified", "a", false);
    assert_int_equal(chmod(in_dir(f, "a"), 0600), 0);
    expect("modified", "a", false);
    assert_int_equal(rename(in_dir(f, "a"), in_dir(f, "b")), 0);
    (void)snprintf(line, sizeof(line),
                   "{\"type\":\"moved\",\"path\":\"%s/b\",\"from\":\"%s/a\",\"directory\":false}",
                   f->dir, f->dir);
    assert_string_equal(next_line(), line);
    assert_int_equal(unlink(in_dir(f, "b")), 0);
    expect("deleted", "b", false);
    assert_int_equal(mkdir(in_dir(f, "d"), 0755), 0);
    expect("created", "d", true);
    assert_int_equal(rmdir(in_dir(f, "d")), 0);
    expect("deleted", "d", true);
    stop_watch(f);
}

static void test_tree(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkdir(in_dir(f, "t"), 0755), 0);
    assert_int_equal(mkdir(in_dir(f, "t/a"), 0755), 0);
    assert_int_equal(mkdir(in_dir(f, "t/a/b"), 0755), 0);
    assert_int_equal(mkdir(in_dir(f, "out"), 0755), 0);
    assert_int_equal(symlink("../out", in_dir(f, "t/link")), 0);
    wait_start(f, in_dir(f, "t///"), CHANNEL_WATCH_TREE);
    put_file(in_dir(f, "out/unseen"), "");
    put_file(in_dir(f, "t/a/b/x"), "");
    expect("created", "t/a/b/x", false);

    /* A new directory, with what came before its watch. */
    assert_int_equal(mkdir(in_dir(f, "t/n"), 0755), 0);
    assert_int_equal(mkdir(in_dir(f, "t/n/m"), 0755), 0);
    put_file(in_dir(f, "t/n/m/y"), "");
    await("created", "t/n/m/y");
    put_file(in_dir(f, "t/n/m/z"), "");
    await("created", "t/n/m/z");

    /* One that moves keeps its watches, under its new name. */
    assert_int_equal(rename(in_dir(f, "t/a"), in_dir(f, "t/c")), 0);
    await("moved", "t/c");
    put_file(in_dir(f, "t/c/b/late"), "");
    expect("created", "t/c/b/late", false);

    /* One that leaves is as gone, one that comes as made. */
    assert_int_equal(rename(in_dir(f, "t/c"), in_dir(f, "gone")), 0);
    expect("deleted", "t/c", true);
    put_file(in_dir(f, "gone/b/unseen"), "");
    assert_int_equal(rename(in_dir(f, "gone"), in_dir(f, "t/back")), 0);
    expect("created", "t/back", true);
    await("created", "t/back/b/unseen");
    put_file(in_dir(f, "t/back/b/seen"), "");
    await("created", "t/back/b/seen");
    stop_watch(f);
}

/* A step of the agent's ends between the halves of a move: the first one has it forget many
 * watches, which takes longer than a step may. */
static void test_move_over_two_steps(void **state)
{
    struct fixture *f = *state;
    char line[512];

    assert_int_equal(mkdir(in_dir(f, "t"), 0755), 0);
    assert_int_equal(mkdir(in_dir(f, "t/big"), 0755), 0);
    for (unsigned i = 0; i < FILE_WATCHES_MAX - 2; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "t/big/%u", i);
        assert_int_equal(mkdir(in_dir(f, name), 0755), 0);
    }
    put_file(in_dir(f, "t/a"), "");
    wait_start(f, in_dir(f, "t"), CHANNEL_WATCH_TREE);
    stop_agent(f);
    assert_int_equal(rename(in_dir(f, "t/big"), in_dir(f, "big")), 0);
    assert_int_equal(rename(in_dir(f, "t/a"), in_dir(f, "t/b")), 0);
    continue_agent(f);
    expect("deleted", "t/big", true);
    (void)snprintf(
        line, sizeof(line),
        "{\"type\":\"moved\",\"path\":\"%s/t/b\",\"from\":\"%s/t/a\",\"directory\":false}", f->dir,
        f->dir);
    assert_string_equal(next_line(), line);
    stop_watch(f);
}

static void test_end_with_the_directory(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkdir(in_dir(f, "t"), 0755), 0);
    wait_start(f, in_dir(f, "t"), CHANNEL_WATCH_TREE);
    put_file(in_dir(f, "t/x"), "");
    assert_int_equal(unlink(in_dir(f, "t/x")), 0);
    assert_int_equal(rmdir(in_dir(f, "t")), 0);
    expect("created", "t/x", false);
    await("deleted", "t/x");
    assert_null(next_line());
    assert_int_equal(f->result.status, 0);

    open_watch(f, in_dir(f, "t"), 0);
    assert_null(next_line());
    assert_int_equal(f->result.status, ENOENT);
    put_file(in_dir(f, "file"), "");
    open_watch(f, in_dir(f, "file"), 0);
    assert_null(next_line());
    assert_int_equal(f->result.status, ENOTDIR);
    buffer_fini(&watch.held);
}

/* The agent cannot read events while it is stopped: the kernel's queue runs over, and it says so.
 */
static void test_overflow(void **state)
{
    struct fixture *f = *state;
    char text[32] = "";
    int fd = open("/proc/sys/fs/inotify/max_queued_events", O_RDONLY);

    assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    (void)close(fd);
    long count_max = strtol(text, NULL, 10);
    if (count_max > 100000)
        skip();
    wait_start(f, f->dir, CHANNEL_WATCH_TREE);
    stop_agent(f);
    for (long i = 0; i <= count_max / 2; i++) {
        assert_int_equal(symlink("x", in_dir(f, "a")), 0);
        assert_int_equal(unlink(in_dir(f, "a")), 0);
    }
    assert_int_equal(mkdir(in_dir(f, "lost"), 0755), 0);
    continue_agent(f);
    const char *line;
    do {
        line = next_line();
        assert_non_null(line);
    } while (strcmp(line, "{\"type\":\"overflow\"}") != 0);
    /* It goes on, also in directories that it did not see come. */
    do {
        put_file(in_dir(f, "lost/y"), "");
        assert_int_equal(unlink(in_dir(f, "lost/y")), 0);
        (void)usleep(10000);
    } while (!peer_readable(&f->peer, 0));
    await("created", "lost/y");
    stop_watch(f);
}

static void test_many_directories(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i <= FILE_WATCHES_MAX; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "%u", i);
        assert_int_equal(mkdir(in_dir(f, name), 0755), 0);
    }
    open_watch(f, f->dir, CHANNEL_WATCH_TREE);
    assert_null(next_line());
    assert_false(watch.started);
    assert_int_equal(f->result.status, EMFILE);
    wait_start(f, f->dir, 0);
    stop_watch(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_TEST(test_one_directory),
        FILE_TEST(test_tree),
        FILE_TEST(test_move_over_two_steps),
        FILE_TEST(test_end_with_the_directory),
        FILE_TEST(test_overflow),
        FILE_TEST(test_many_directories),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
