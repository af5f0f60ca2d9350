/* The agent's READ and WRITE operations, over a socket pair on the host. */
#include "test_agent_peer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/mount.h>

struct fixture {
    struct peer peer;
    char dir[64];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/cloche-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    peer_start(&f->peer, false);
    *state = f;
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    peer_stop(&f->peer, 0);
    assert_int_equal(nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
    free(f);
    return 0;
}

static const char *in_dir(struct fixture *f, const char *name)
{
    static char path[256];

    (void)snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    return path;
}

static void put_file(const char *path, const void *data, size_t size, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);

    assert_true(fd >= 0);
    assert_int_equal(fd_write_full(fd, data, size), 0);
    assert_int_equal(fchmod(fd, mode), 0);
    (void)close(fd);
}

static void expect_file(const char *path, const void *data, size_t size)
{
    static uint8_t bytes[16u << 20];
    int fd = open(path, O_RDONLY);

    assert_true(fd >= 0);
    assert_int_equal(fd_read_full(fd, bytes, sizeof(bytes)), size);
    assert_memory_equal(bytes, data, size);
    (void)close(fd);
}

static mode_t mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(lstat(path, &st), 0);
    return st.st_mode & 07777;
}

static unsigned entries_of(const char *path)
{
    DIR *dir = opendir(path);
    unsigned count = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    (void)closedir(dir);
    return count - 2; /* . and .. */
}

static void read_file(struct peer *p, const char *path, struct peer_result *r)
{
    peer_result_init(r);
    peer_finish(p, peer_open_file(p, CHANNEL_OP_READ, 0, path), r);
}

/* Writes within the credit, and returns the END. */
static void write_content(struct peer *p, uint32_t id, const uint8_t *data, size_t size,
                          struct peer_result *r)
{
    static struct peer_frame f;
    uint64_t credit = CHANNEL_WINDOW_BYTES;
    bool ended = false, eof = false;
    size_t sent = 0;

    peer_result_init(r);
    while (!ended) {
        while (sent < size && credit > 0) {
            size_t n = size - sent < 40000 ? size - sent : 40000;
            n = n < credit ? n : credit;
            peer_send(p, id, CHANNEL_DATA, 0, data + sent, n);
            sent += n;
            credit -= n;
        }
        if (sent == size && !eof)
            peer_send(p, id, CHANNEL_EOF, 0, NULL, 0);
        eof = sent == size;
        assert_true(peer_receive(p, &f));
        assert_int_equal(f.h.stream, id);
        if (f.h.type == CHANNEL_CREDIT) {
            struct wire_reader reader;
            wire_reader_init(&reader, f.payload, 4);
            credit += wire_get_u32(&reader);
        }
        ended = peer_take(r, &f);
    }
}

static void write_file(struct peer *p, const char *path, uint32_t mode, const uint8_t *data,
                       size_t size, struct peer_result *r)
{
    write_content(p, peer_open_file(p, CHANNEL_OP_WRITE, mode, path), data, size, r);
}

static void fill(uint8_t *bytes, size_t size)
{
    unsigned seed = 7;

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)rand_r(&seed);
}

static void test_round_trip(void **state)
{
    static uint8_t bytes[8u << 20];
    static const size_t sizes[] = {0,
                                   1,
                                   65535,
                                   65536,
                                   65537,
                                   262144,
                                   STAGING_BYTES - 1,
                                   STAGING_BYTES,
                                   STAGING_BYTES + 1,
                                   3 * STAGING_BYTES + STAGING_ALIGN + 1,
                                   8u << 20};
    struct fixture *f = *state;
    struct peer_result r;

    fill(bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const char *path = in_dir(f, "a/b c/d.bin");

        write_file(&f->peer, path, 0, bytes, sizes[i], &r);
        assert_string_equal(r.text, "");
        assert_int_equal(r.bytes, sizes[i]);
        peer_result_fini(&r);
        expect_file(path, bytes, sizes[i]);
        assert_int_equal(mode_of(path), 0644);
        assert_int_equal(entries_of(in_dir(f, "a/b c")), 1);

        read_file(&f->peer, in_dir(f, "a/b c/d.bin"), &r);
        assert_int_equal(r.status, 0);
        assert_int_equal(r.size, sizes[i]);
        assert_int_equal(r.bytes, sizes[i]);
        assert_int_equal(r.mode, 0644);
        assert_true(r.mtime_ns > 1600000000000000000u);
        assert_true(r.eof[CHANNEL_LANE_IN]);
        assert_int_equal(r.lanes[CHANNEL_LANE_IN].size, sizes[i]);
        if (sizes[i] > 0)
            assert_memory_equal(buffer_bytes(&r.lanes[CHANNEL_LANE_IN]), bytes, sizes[i]);
        peer_result_fini(&r);
    }
    assert_int_equal(mode_of(in_dir(f, "a/b c")), 0755);
}

static void test_modes_and_owner(void **state)
{
    struct fixture *f = *state;
    struct peer_result r;
    struct stat st;
    const char *path = in_dir(f, "x");

    write_file(&f->peer, path, 0777, (const uint8_t *)"1", 1, &r);
    peer_result_fini(&r);
    assert_int_equal(mode_of(path), 0777);
    /* 0 keeps the mode, and the owner stays in any case. */
    if (getuid() == 0)
        assert_int_equal(chown(path, 1234, 1235), 0);
    assert_int_equal(chmod(path, 04711), 0);
    write_file(&f->peer, path, 0, (const uint8_t *)"22", 2, &r);
    peer_result_fini(&r);
    assert_int_equal(mode_of(path), 04711);
    assert_int_equal(stat(path, &st), 0);
    if (getuid() == 0)
        assert_true(st.st_uid == 1234 && st.st_gid == 1235);
    expect_file(path, "22", 2);
}

static void test_links(void **state)
{
    struct fixture *f = *state;
    struct peer_result r;

    put_file(in_dir(f, "target"), "old", 3, 0600);
    assert_int_equal(symlink("target", in_dir(f, "link")), 0);
    assert_int_equal(symlink("new/place", in_dir(f, "dangling")), 0);
    assert_int_equal(symlink("loop", in_dir(f, "loop")), 0);
    write_file(&f->peer, in_dir(f, "link"), 0, (const uint8_t *)"new", 3, &r);
    peer_result_fini(&r);
    expect_file(in_dir(f, "target"), "new", 3);
    assert_int_equal(mode_of(in_dir(f, "target")), 0600);
    write_file(&f->peer, in_dir(f, "dangling"), 0, (const uint8_t *)"made", 4, &r);
    assert_int_equal(r.status, 0);
    peer_result_fini(&r);
    expect_file(in_dir(f, "new/place"), "made", 4);
    write_file(&f->peer, in_dir(f, "loop"), 0, (const uint8_t *)"", 0, &r);
    assert_int_equal(r.status, ELOOP);
    peer_result_fini(&r);
    read_file(&f->peer, in_dir(f, "link"), &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_IN, "new"));
    peer_result_fini(&r);
}

static void test_ranges(void **state)
{
    static uint8_t bytes[300000];
    static const struct {
        uint64_t offset, length;
        uint64_t at, size; /* what comes */
    } cases[] = {
        {0, UINT64_MAX, 0, 300000},
        {1, 5, 1, 5},
        {299990, 100, 299990, 10},
        {100000, 150000, 100000, 150000},
        {300000, UINT64_MAX, 300000, 0},
        {INT64_MAX, 1, 300000, 0},
        {CHANNEL_READ_TAIL, 7, 299993, 7},
        {CHANNEL_READ_TAIL, 0, 300000, 0},
        {CHANNEL_READ_TAIL, UINT64_MAX, 0, 300000},
        {5, 0, 5, 0},
    };
    struct fixture *f = *state;
    struct peer_result r;

    fill(bytes, sizeof(bytes));
    put_file(in_dir(f, "x"), bytes, sizeof(bytes), 0644);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        peer_result_init(&r);
        uint32_t id = peer_open_range(&f->peer, cases[i].offset, cases[i].length, in_dir(f, "x"));
        peer_send_u32(&f->peer, id, CHANNEL_CREDIT, 0, 1u << 20);
        peer_finish(&f->peer, id, &r);
        assert_int_equal(r.status, 0);
        assert_int_equal(r.size, sizeof(bytes));
        assert_int_equal(r.offset, cases[i].at);
        assert_int_equal(r.bytes, cases[i].size);
        assert_int_equal(r.lanes[CHANNEL_LANE_IN].size, cases[i].size);
        if (cases[i].size > 0)
            assert_memory_equal(buffer_bytes(&r.lanes[CHANNEL_LANE_IN]), bytes + cases[i].at,
                                cases[i].size);
        peer_result_fini(&r);
    }
    /* Without a size everything comes. */
    peer_result_init(&r);
    peer_finish(&f->peer, peer_open_range(&f->peer, 3, 4, "/proc/self/oom_score_adj"), &r);
    assert_int_equal(r.status, 0);
    assert_int_equal(r.offset, 0);
    assert_int_equal(r.bytes, r.size);
    assert_true(r.size > 0);
    peer_result_fini(&r);
}

static void expect_read(struct fixture *f, const char *path, unsigned status)
{
    struct peer_result r;
    read_file(&f->peer, path, &r);
    assert_int_equal(r.status, status);
    assert_false(r.has_info);
    assert_int_equal(r.frames, 1);
    peer_result_fini(&r);
}

static void expect_write(struct fixture *f, const char *path, unsigned status)
{
    struct peer_result r;

    write_file(&f->peer, path, 0, (const uint8_t *)"x", 1, &r);
    assert_int_equal(r.status, status);
    peer_result_fini(&r);
}

static void test_what_is_no_file(void **state)
{
    struct fixture *f = *state;
    char long_name[400];

    assert_int_equal(mkfifo(in_dir(f, "fifo"), 0666), 0);
    put_file(in_dir(f, "plain"), "p", 1, 0644);
    memset(long_name, 'n', sizeof(long_name));
    long_name[0] = '/';
    long_name[300] = '\0';

    expect_read(f, f->dir, EISDIR);
    expect_read(f, in_dir(f, "fifo"), EINVAL);
    expect_read(f, "/dev/zero", EINVAL);
    expect_read(f, in_dir(f, "missing"), ENOENT);
    expect_read(f, in_dir(f, "plain/x"), ENOTDIR);
    expect_read(f, long_name, ENAMETOOLONG);

    expect_write(f, f->dir, EISDIR);
    expect_write(f, "/", EISDIR);
    expect_write(f, in_dir(f, "new/"), EISDIR);
    expect_write(f, in_dir(f, "."), EISDIR);
    expect_write(f, in_dir(f, "fifo"), EINVAL);
    expect_write(f, "/dev/null", EINVAL);
    expect_write(f, in_dir(f, "plain/x"), ENOTDIR);
    expect_write(f, in_dir(f, "plain/x/y"), ENOTDIR);
    expect_write(f, long_name, ENAMETOOLONG);
    assert_int_equal(entries_of(f->dir), 2);
}

/* Sizes that the kernel tells of its own files are wrong; what INFO says is not. */
static void test_kernel_files(void **state)
{
    static const char *const paths[] = {"/proc/self/stat", "/proc/cpuinfo", "/proc/version",
                                        "/sys/kernel/mm/transparent_hugepage/enabled"};
    struct fixture *f = *state;
    struct peer_result r;

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (access(paths[i], R_OK) < 0)
            continue;
        read_file(&f->peer, paths[i], &r);
        assert_int_equal(r.status, 0);
        assert_true(r.bytes > 0);
        assert_int_equal(r.bytes, r.size);
        assert_int_equal(r.lanes[CHANNEL_LANE_IN].size, r.size);
        peer_result_fini(&r);
    }
}

/* Reads until the credit is used up, so that the file can be changed meanwhile. */
static uint32_t read_first_window(struct fixture *f, const char *name, struct peer_result *r)
{
    static struct peer_frame frame;
    uint32_t id = peer_open_file(&f->peer, CHANNEL_OP_READ, 0, in_dir(f, name));

    peer_result_init(r);
    while (r->lanes[CHANNEL_LANE_IN].size < CHANNEL_WINDOW_BYTES) {
        assert_true(peer_receive(&f->peer, &frame));
        assert_false(peer_take(r, &frame));
    }
    assert_false(peer_settle(&f->peer, id, r));
    return id;
}

static void test_file_changes_while_read(void **state)
{
    static uint8_t bytes[1u << 20];
    struct fixture *f = *state;
    struct peer_result r;

    fill(bytes, sizeof(bytes));
    put_file(in_dir(f, "big"), bytes, sizeof(bytes), 0644);
    uint32_t id = read_first_window(f, "big", &r);
    assert_int_equal(truncate(in_dir(f, "big"), 300000), 0);
    peer_send_u32(&f->peer, id, CHANNEL_CREDIT, 0, 2u << 20);
    peer_finish(&f->peer, id, &r);
    assert_int_equal(r.status, EIO);
    peer_result_fini(&r);

    put_file(in_dir(f, "big"), bytes, sizeof(bytes), 0644);
    id = read_first_window(f, "big", &r);
    int fd = open(in_dir(f, "big"), O_WRONLY | O_APPEND);
    assert_int_equal(fd_write_full(fd, bytes, 5000), 0);
    (void)close(fd);
    peer_send_u32(&f->peer, id, CHANNEL_CREDIT, 0, 2u << 20);
    peer_finish(&f->peer, id, &r);
    assert_int_equal(r.status, 0);
    assert_int_equal(r.bytes, sizeof(bytes));
    assert_memory_equal(buffer_bytes(&r.lanes[CHANNEL_LANE_IN]), bytes, sizeof(bytes));
    peer_result_fini(&r);
}

/* Some get no staging memory, of some a part is in the page cache: each comes whole. */
static void test_large_files_at_once(void **state)
{
    enum { FILES = STAGING_COUNT + 1 };
    static uint8_t bytes[4 * STAGING_BYTES + 777], some[3 * STAGING_ALIGN];
    static const char *const names[FILES] = {"one", "two", "three"};
    struct fixture *f = *state;
    struct peer_result r[FILES];
    uint32_t ids[FILES];

    fill(bytes, sizeof(bytes));
    for (int i = 0; i < FILES; i++)
        ids[i] = peer_open_file(&f->peer, CHANNEL_OP_WRITE, 0, in_dir(f, names[i]));
    for (int i = FILES; i-- > 0;) {
        write_content(&f->peer, ids[i], bytes, sizeof(bytes), &r[i]);
        assert_int_equal(r[i].bytes, sizeof(bytes));
        peer_result_fini(&r[i]);
    }
    for (int i = 0; i < FILES; i++) {
        FD_AUTO int fd = open(in_dir(f, names[i]), O_RDONLY);

        assert_int_equal(fsync(fd), 0);
        assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
        assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
        assert_int_equal(fd_pread_full(fd, some, sizeof(some), STAGING_BYTES), sizeof(some));
        ids[i] = read_first_window(f, names[i], &r[i]);
    }
    for (int i = FILES; i-- > 0;) {
        peer_send_u32(&f->peer, ids[i], CHANNEL_CREDIT, 0, CHANNEL_WINDOW_BYTES);
        peer_finish(&f->peer, ids[i], &r[i]);
        assert_int_equal(r[i].status, 0);
        assert_int_equal(r[i].lanes[CHANNEL_LANE_IN].size, sizeof(bytes));
        assert_memory_equal(buffer_bytes(&r[i].lanes[CHANNEL_LANE_IN]), bytes, sizeof(bytes));
        peer_result_fini(&r[i]);
        expect_file(in_dir(f, names[i]), bytes, sizeof(bytes));
    }
}

/* Until EOF, and after RESET, the old file is as it was and nothing else is there. */
static void test_write_given_up(void **state)
{
    struct fixture *f = *state;
    struct peer_result r;

    put_file(in_dir(f, "x"), "old", 3, 0644);
    uint32_t id = peer_open_file(&f->peer, CHANNEL_OP_WRITE, 0, in_dir(f, "x"));
    peer_send(&f->peer, id, CHANNEL_DATA, 0, "new content", 11);
    peer_result_init(&r);
    (void)peer_settle(&f->peer, id, &r);
    expect_file(in_dir(f, "x"), "old", 3);
    assert_int_equal(entries_of(f->dir), 2);
    peer_send(&f->peer, id, CHANNEL_RESET, 0, NULL, 0);
    peer_finish(&f->peer, id, &r);
    assert_int_equal(r.status, ECANCELED);
    assert_int_equal(entries_of(f->dir), 1);
    expect_file(in_dir(f, "x"), "old", 3);
    /* What is still under way for it is ignored. */
    peer_send(&f->peer, id, CHANNEL_DATA, 0, "more", 4);
    peer_send(&f->peer, id, CHANNEL_EOF, 0, NULL, 0);
    read_file(&f->peer, in_dir(f, "x"), &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_IN, "old"));
    peer_result_fini(&r);
}

static void test_disk_full(void **state)
{
    static uint8_t bytes[4u << 20];
    struct fixture *f = *state;
    struct peer_result r;

    if (getuid() != 0)
        skip();
    assert_int_equal(mkdir(in_dir(f, "small"), 0755), 0);
    assert_int_equal(mount("none", in_dir(f, "small"), "tmpfs", 0, "size=1m"), 0);
    /* The agent runs in the same mount namespace. */
    put_file(in_dir(f, "small/x"), "old", 3, 0644);
    write_file(&f->peer, in_dir(f, "small/x"), 0, bytes, sizeof(bytes), &r);
    assert_int_equal(r.status, ENOSPC);
    peer_result_fini(&r);
    expect_file(in_dir(f, "small/x"), "old", 3);
    assert_int_equal(entries_of(in_dir(f, "small")), 1);
    assert_int_equal(umount(in_dir(f, "small")), 0);
}

#define FILE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_TEST(test_round_trip),
        FILE_TEST(test_modes_and_owner),
        FILE_TEST(test_links),
        FILE_TEST(test_ranges),
        FILE_TEST(test_what_is_no_file),
        FILE_TEST(test_kernel_files),
        FILE_TEST(test_file_changes_while_read),
        FILE_TEST(test_large_files_at_once),
        FILE_TEST(test_write_given_up),
        FILE_TEST(test_disk_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
