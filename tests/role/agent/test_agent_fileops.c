/* The agent's STAT, LIST and SEARCH. */
#include "fileops_fixture.h"

static struct file_record only_record(struct fixture *f)
{
    struct file_record record, other;
    struct file_records r;

    first_record(f, &r, FILE_NAMES_NONE);
    assert_true(next_record(&r, &record));
    assert_false(next_record(&r, &other));
    return record;
}

static void test_stat(void **state)
{
    const struct timespec times[2] = {{.tv_sec = -5, .tv_nsec = 7}, {.tv_sec = -5, .tv_nsec = 7}};
    struct fixture *f = *state;

    put_file(in_dir(f, "x"), "hello");
    assert_int_equal(chmod(in_dir(f, "x"), 04640), 0);
    assert_int_equal(utimensat(AT_FDCWD, in_dir(f, "x"), times, 0), 0);
    assert_int_equal(symlink("x", in_dir(f, "link")), 0);
    assert_int_equal(mkfifo(in_dir(f, "fifo"), 0600), 0);

    assert_int_equal(ask_stat(f, in_dir(f, "x"), 0), 0);
    struct file_record r = only_record(f);
    assert_int_equal(r.mode, S_IFREG | 04640);
    assert_int_equal(r.size, 5);
    assert_int_equal(r.uid, getuid());
    assert_int_equal(r.mtime_s, -5);
    assert_int_equal(r.mtime_ns, 7);
    assert_int_equal(r.target_size, 0);

    assert_int_equal(ask_stat(f, in_dir(f, "link"), 0), 0);
    r = only_record(f);
    assert_true(S_ISLNK(r.mode));
    assert_int_equal(r.target_size, 1);
    assert_memory_equal(r.target, "x", 1);
    assert_int_equal(ask_stat(f, in_dir(f, "link"), CHANNEL_STAT_FOLLOW), 0);
    assert_true(S_ISREG(only_record(f).mode));
    assert_int_equal(ask_stat(f, in_dir(f, "fifo"), 0), 0);
    assert_true(S_ISFIFO(only_record(f).mode));
    assert_int_equal(ask_stat(f, "/", 0), 0);
    assert_true(S_ISDIR(only_record(f).mode));

    assert_int_equal(ask_stat(f, in_dir(f, "none"), 0), ENOENT);
    assert_int_equal(ask_stat(f, in_dir(f, "x/y"), 0), ENOTDIR);
}

static void test_list(void **state)
{
    static const char *const names[] = {".hidden", "B", "a", "a b", "line\nbreak", "z\xff"};
    struct fixture *f = *state;
    struct file_records r;
    struct file_record record;

    assert_int_equal(ask_list(f, f->dir, 1000, ""), 0);
    first_record(f, &r, FILE_NAMES_ENTRY);
    assert_false(next_record(&r, &record));
    for (size_t i = 0; i < 6; i++)
        put_file(in_dir(f, names[5 - i]), "12");
    assert_int_equal(ask_list(f, f->dir, 1000, ""), 0);
    first_record(f, &r, FILE_NAMES_ENTRY);
    for (size_t i = 0; i < 6; i++) {
        assert_true(next_record(&r, &record));
        assert_true(name_is(&record, names[i]));
        assert_int_equal(record.size, 2);
    }
    assert_false(next_record(&r, &record));
    assert_int_equal(f->result.flags, 0);

    assert_int_equal(ask_list(f, f->dir, 2, "B"), 0);
    first_record(f, &r, FILE_NAMES_ENTRY);
    assert_true(next_record(&r, &record) && name_is(&record, "a"));
    assert_true(next_record(&r, &record) && name_is(&record, "a b"));
    assert_false(next_record(&r, &record));
    assert_int_equal(f->result.flags, CHANNEL_END_MORE);
    assert_int_equal(ask_list(f, f->dir, 2, "a b"), 0);
    assert_int_equal(f->result.flags, 0);
    assert_int_equal(ask_list(f, f->dir, 2, "z\xff"), 0);
    assert_int_equal(f->result.bytes, 0);

    assert_int_equal(ask_list(f, in_dir(f, "a"), 2, ""), ENOTDIR);
    assert_int_equal(ask_list(f, in_dir(f, "none"), 2, ""), ENOENT);
}

/* Reads all pages; returns their number. Names are those of expected_count files in order. */
static unsigned read_pages(struct fixture *f, uint32_t limit, unsigned expected_count)
{
    char after[FILE_NAME_BYTES] = "";
    unsigned count = 0, pages = 0;

    do {
        struct file_records r;
        struct file_record record;

        assert_int_equal(ask_list(f, f->dir, limit, after), 0);
        first_record(f, &r, FILE_NAMES_ENTRY);
        while (next_record(&r, &record)) {
            char name[32];

            (void)snprintf(name, sizeof(name), "file-%05u", count++);
            assert_true(name_is(&record, name));
            memcpy(after, name, sizeof(name));
        }
        pages++;
    } while ((f->result.flags & CHANNEL_END_MORE) != 0);
    assert_int_equal(count, expected_count);
    return pages;
}

static void test_list_many(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 4000; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "file-%05u", i * 1237 % 4000);
        assert_int_equal(symlink("x", in_dir(f, name)), 0);
    }
    assert_int_equal(read_pages(f, 1000, 4000), 4);
    assert_int_equal(read_pages(f, 999, 4000), 5);
}

/* A page ends where a reply would be too large. */
static void test_list_large(void **state)
{
    static char target[4096];
    struct fixture *f = *state;

    memset(target, 't', sizeof(target) - 1);
    for (unsigned i = 0; i < 700; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "file-%05u", i);
        assert_int_equal(symlink(target, in_dir(f, name)), 0);
    }
    assert_true(read_pages(f, 1000, 700) > 1);
}

/* A host that takes little gets all of it, and nothing past its credit. */
static void test_list_credit(void **state)
{
    static struct peer_frame frame;
    struct fixture *f = *state;
    struct buffer request = new_request();
    struct error e = ERROR_INIT;
    bool ended = false;

    for (unsigned i = 0; i < 900; i++) {
        char name[300];

        (void)snprintf(name, sizeof(name), "%0200u", i);
        assert_int_equal(symlink(name, in_dir(f, name)), 0);
    }
    assert_int_equal(agent_request_list(&request, 1000, "", f->dir, &e), 0);
    uint32_t id = open_request(f, &request);
    uint64_t granted = CHANNEL_WINDOW_BYTES;
    while (!ended) {
        if (f->result.lanes[0].size == granted && !f->result.eof[0]) {
            assert_false(peer_settle(&f->peer, id, &f->result));
            peer_send_u32(&f->peer, id, CHANNEL_CREDIT, 0, 50000);
            granted += 50000;
            continue;
        }
        assert_true(peer_receive(&f->peer, &frame));
        ended = peer_take(&f->result, &frame);
        assert_true(f->result.lanes[0].size <= granted);
    }
    assert_int_equal(f->result.status, 0);
    assert_true(f->result.bytes > CHANNEL_WINDOW_BYTES);
}

static void make_tree(struct fixture *f)
{
    static const char *const directories[] = {"a", "a/b", "a/b/c", "d", ".git"};
    static const char *const files[] = {"x.py", "a/y.py", "a/b/c/z.py", "a/b/c/z.txt", ".git/q.py"};

    for (size_t i = 0; i < 5; i++)
        assert_int_equal(mkdir(in_dir(f, directories[i]), 0755), 0);
    for (size_t i = 0; i < 5; i++)
        put_file(in_dir(f, files[i]), "x");
    assert_int_equal(symlink("..", in_dir(f, "a/up")), 0);
    assert_int_equal(symlink("/", in_dir(f, "d/root.py")), 0);
}

/* How many matched, each with a path in the tree. */
static unsigned count_matches(struct fixture *f, const char *path, const char *pattern)
{
    struct file_records r;
    struct file_record record;
    unsigned count = 0;

    assert_int_equal(ask_search(f, path, 100, pattern), 0);
    first_record(f, &r, FILE_NAMES_PATH);
    while (next_record(&r, &record)) {
        char name[CHANNEL_PATH_MAX];

        memcpy(name, record.name, record.name_size);
        name[record.name_size] = '\0';
        assert_true(is_there(name));
        assert_int_equal(strncmp(name, f->dir, strlen(f->dir)), 0);
        assert_null(strstr(name, "//"));
        count++;
    }
    assert_int_equal(f->result.flags, 0);
    return count;
}

static void test_search(void **state)
{
    static const struct {
        const char *pattern;
        unsigned count;
    } cases[] = {{"*.py", 1}, {"**/*.py", 5}, {"a/**/*.py", 2}, {"**", 12},
                 {"*/*", 5},  {"a/b/c/z", 0}, {"a/b/c/z.*", 2}, {"**/up/*", 0},
                 {"d/*", 1},  {"[ad]", 2},    {"**/z.*", 2},    {"d/root.py/*", 0}};
    struct fixture *f = *state;

    make_tree(f);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned count = count_matches(f, f->dir, cases[i].pattern);
        if (count != cases[i].count)
            fail_msg("%s: %u", cases[i].pattern, count);
    }
    assert_int_equal(count_matches(f, in_dir(f, "a///"), "*"), 3);
    assert_int_equal(ask_search(f, in_dir(f, "x.py"), 5, "*"), ENOTDIR);
    assert_int_equal(ask_search(f, in_dir(f, "none"), 5, "*"), ENOENT);
}

static void test_search_limits(void **state)
{
    struct fixture *f = *state;
    struct file_records r;
    struct file_record record;
    unsigned count = 0;

    make_tree(f);
    assert_int_equal(ask_search(f, f->dir, 3, "**/*.py"), 0);
    first_record(f, &r, FILE_NAMES_PATH);
    while (next_record(&r, &record))
        count++;
    assert_int_equal(count, 3);
    assert_int_equal(f->result.flags, CHANNEL_END_MORE);
    assert_int_equal(ask_search(f, f->dir, 5, "**/*.py"), 0);
    assert_int_equal(f->result.flags, 0);
    /* Other mounts are entered by their path only. */
    assert_int_equal(ask_search(f, "/", 5, "proc/self"), 0);
    assert_int_equal(f->result.bytes, 0);
    assert_int_equal(ask_search(f, "/proc", 5, "self"), 0);
    assert_true(f->result.bytes > 0);
}

/* Deeper than a path can be long: what cannot be told is said to be missing. */
static void test_search_deep(void **state)
{
    struct fixture *f = *state;
    char name[201];

    memset(name, 'd', 200);
    name[200] = '\0';
    int fd = open(f->dir, O_RDONLY | O_DIRECTORY);
    for (unsigned i = 0; i < 30; i++) {
        assert_int_equal(mkdirat(fd, name, 0755), 0);
        int below = openat(fd, name, O_RDONLY | O_DIRECTORY);
        assert_true(below >= 0);
        (void)close(fd);
        fd = below;
    }
    (void)close(fd);
    assert_int_equal(ask_search(f, f->dir, 100, "**/d*"), 0);
    assert_int_equal(f->result.flags, CHANNEL_END_MORE);
    assert_true(f->result.bytes > 0);
}

static void test_reset(void **state)
{
    struct fixture *f = *state;
    struct buffer request = new_request();
    struct error e = ERROR_INIT;

    assert_int_equal(agent_request_search(&request, 10000, "/", "**/no such name", &e), 0);
    stop_agent(f);
    uint32_t id = open_request(f, &request);
    peer_send(&f->peer, id, CHANNEL_RESET, 0, NULL, 0);
    continue_agent(f);
    peer_finish(&f->peer, id, &f->result);
    assert_int_equal(f->result.status, ECANCELED);
    assert_int_equal(ask_stat(f, "/", 0), 0);
}

/* While it walks, others are served. */
static void test_fairness(void **state)
{
    struct fixture *f = *state;
    struct buffer request = new_request();
    struct error e = ERROR_INIT;

    assert_int_equal(agent_request_search(&request, 10000, "/", "**/no such name", &e), 0);
    stop_agent(f);
    (void)open_request(f, &request);
    assert_int_equal(agent_request_stat(&request, 0, "/", &e), 0);
    uint32_t id = open_request(f, &request);
    continue_agent(f);
    assert_int_equal(first_end(f), id);
}

static void test_malformed(void **state)
{
    static const struct {
        size_t size;
        uint8_t bytes[48];
    } cases[] = {
        {2, {CHANNEL_OP_STAT}},
        {7, {CHANNEL_OP_STAT, 0, 0, 0, 0, 0, 1}},
        {11, {CHANNEL_OP_STAT, 0, 2, 0, 0, 0, 1, 0, 0, 0, '/'}},             /* a flag */
        {11, {CHANNEL_OP_STAT, 0, 0, 0, 0, 0, 1, 0, 0, 0, 'x'}},             /* relative */
        {12, {CHANNEL_OP_STAT, 0, 0, 0, 0, 0, 1, 0, 0, 0, '/', 0}},          /* more */
        {15, {CHANNEL_OP_LIST, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, '/'}}, /* limit 0 */
        {15, {CHANNEL_OP_LIST, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, '/'}}, /* limit 65536 */
        {16, {CHANNEL_OP_SEARCH, 0, 0, 0, 0, 0, 1, 0, 0, 0, '/', 1, 0, 0, 0, '*'}},
        {23, {CHANNEL_OP_CHANGE, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, '/'}},
        {23, {CHANNEL_OP_CHANGE, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, '/'}},
        {23, {CHANNEL_OP_CHANGE, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, '/'}},
        {23, {CHANNEL_OP_CHANGE, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, '/'}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct peer p;

        peer_start(&p, false);
        peer_send(&p, 1, CHANNEL_OPEN, 0, cases[i].bytes, cases[i].size);
        assert_true(peer_readable(&p, PEER_WAIT_MS)); /* it hangs up */
        peer_stop(&p, PEER_EXIT_BROKEN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_TEST(test_stat),
        FILE_TEST(test_list),
        FILE_TEST(test_list_many),
        FILE_TEST(test_list_large),
        FILE_TEST(test_list_credit),
        FILE_TEST(test_search),
        FILE_TEST(test_search_limits),
        FILE_TEST(test_search_deep),
        FILE_TEST(test_reset),
        FILE_TEST(test_fairness),
        cmocka_unit_test(test_malformed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
