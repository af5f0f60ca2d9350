/* The agent's CHANGE: what is made, moved and removed, and what is left alone. */
#include "fileops_fixture.h"

#include <sys/mount.h>

static mode_t mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(lstat(path, &st), 0);
    return st.st_mode & 07777;
}

static void test_mkdir(void **state)
{
    struct fixture *f = *state;
    const uint32_t parents = CHANNEL_CHANGE_PARENTS;

    assert_int_equal(ask_change(f, CHANNEL_CHANGE_MKDIR, 0, 0755, in_dir(f, "a"), ""), 0);
    assert_int_equal(f->result.flags, 0);
    assert_int_equal(mode_of(in_dir(f, "a")), 0755);
    assert_int_equal(ask_change(f, CHANNEL_CHANGE_MKDIR, 0, 0755, in_dir(f, "a"), ""), EEXIST);
    assert_int_equal(ask_change(f, CHANNEL_CHANGE_MKDIR, parents, 0, in_dir(f, "a"), ""), 0);
    assert_int_equal(f->result.flags, CHANNEL_END_EXISTED);
    assert_int_equal(mode_of(in_dir(f, "a")), 0755);
    assert_int_equal(ask_change(f, CHANNEL_CHANGE_MKDIR, 0, 0755, in_dir(f, "b/c"), ""), ENOENT);
    assert_int_equal(ask_change(f, CHANNEL_CHANGE_MKDIR, parents, 03777, in_dir(f, "b/c"), ""), 0);
    assert_int_equal(f->result.flags, 0);
    assert_int_equal(mode_of(in_dir(f, "b")), 0755);
    assert_int_equal(mode_of(in_dir(f, "b/c")), 03777);

    put_file(in_dir(f, "file"), "x");
    assert_int_equal(ask_change(f, CHANNEL_CHANGE_MKDIR, parents, 0755, in_dir(f, "file"), ""),
                     EEXIST);
    assert_int_equal(ask_change(f, CHANNEL_CHANGE_MKDIR, parents, 0755, in_dir(f, "file/x"), ""),
                     ENOTDIR);
    assert_int_equal(ask_change(f, CHANNEL_CHANGE_MKDIR, parents, 0755, "/", ""), 0);
    assert_int_equal(f->result.flags, CHANNEL_END_EXISTED);
}

static void test_rename(void **state)
{
    struct fixture *f = *state;
    const enum channel_change rename_it = CHANNEL_CHANGE_RENAME;

    put_file(in_dir(f, "a"), "a");
    put_file(in_dir(f, "b"), "bb");
    assert_int_equal(mkdir(in_dir(f, "d"), 0755), 0);
    assert_int_equal(ask_change(f, rename_it, 0, 0, in_dir(f, "a"), in_dir(f, "b")), EEXIST);
    assert_true(is_there(in_dir(f, "a")));
    assert_int_equal(ask_change(f, rename_it, 0, 0, in_dir(f, "a"), in_dir(f, "c\xff")), 0);
    assert_false(is_there(in_dir(f, "a")));
    assert_true(is_there(in_dir(f, "c\xff")));
    assert_int_equal(
        ask_change(f, rename_it, CHANNEL_CHANGE_OVERWRITE, 0, in_dir(f, "c\xff"), in_dir(f, "b")),
        0);
    assert_int_equal(ask_stat(f, in_dir(f, "b"), 0), 0);
    assert_int_equal(ask_change(f, rename_it, 0, 0, in_dir(f, "none"), in_dir(f, "x")), ENOENT);
    assert_int_equal(ask_change(f, rename_it, 0, 0, in_dir(f, "b"), in_dir(f, "no/x")), ENOENT);
    assert_int_equal(ask_change(f, rename_it, 0, 0, in_dir(f, "d"), in_dir(f, "d/x")), EINVAL);
    assert_int_equal(
        ask_change(f, rename_it, CHANNEL_CHANGE_OVERWRITE, 0, in_dir(f, "b"), in_dir(f, "d")),
        EISDIR);
}

static void test_chmod_and_symlink(void **state)
{
    struct fixture *f = *state;

    put_file(in_dir(f, "a"), "a");
    assert_int_equal(ask_change(f, CHANNEL_CHANGE_CHMOD, 0, 04711, in_dir(f, "a"), ""), 0);
    assert_int_equal(mode_of(in_dir(f, "a")), 04711);
    assert_int_equal(ask_change(f, CHANNEL_CHANGE_CHMOD, 0, 0600, in_dir(f, "none"), ""), ENOENT);
    assert_int_equal(ask_change(f, CHANNEL_CHANGE_SYMLINK, 0, 0, in_dir(f, "l"), "no where"), 0);
    char target[16] = "";
    assert_int_equal(readlink(in_dir(f, "l"), target, sizeof(target)), 8);
    assert_string_equal(target, "no where");
    assert_int_equal(ask_change(f, CHANNEL_CHANGE_SYMLINK, 0, 0, in_dir(f, "l"), "x"), EEXIST);
}

static void test_remove(void **state)
{
    struct fixture *f = *state;

    put_file(in_dir(f, "a"), "a");
    assert_int_equal(mkdir(in_dir(f, "d"), 0755), 0);
    assert_int_equal(mkdir(in_dir(f, "empty"), 0755), 0);
    put_file(in_dir(f, "d/x"), "x");
    assert_int_equal(symlink("d", in_dir(f, "link")), 0);
    assert_int_equal(ask_remove(f, in_dir(f, "a"), false), 0);
    assert_int_equal(ask_remove(f, in_dir(f, "a"), false), ENOENT);
    assert_int_equal(ask_remove(f, in_dir(f, "a"), true), ENOENT);
    assert_int_equal(ask_remove(f, in_dir(f, "empty"), false), 0);
    assert_int_equal(ask_remove(f, in_dir(f, "d"), false), ENOTEMPTY);
    assert_int_equal(ask_remove(f, in_dir(f, "link"), true), 0);
    assert_true(is_there(in_dir(f, "d/x")));
    assert_false(is_there(in_dir(f, "link")));
    assert_int_equal(ask_remove(f, "/", true), EBUSY);
    assert_int_equal(ask_remove(f, "/proc", true), EBUSY);
}

static void test_remove_tree(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkdir(in_dir(f, "t"), 0755), 0);
    assert_int_equal(mkdir(in_dir(f, "keep"), 0755), 0);
    put_file(in_dir(f, "keep/x"), "x");
    for (unsigned i = 0; i < 40; i++) {
        char name[64];

        (void)snprintf(name, sizeof(name), "t/d%u", i);
        assert_int_equal(mkdir(in_dir(f, name), i % 2 == 0 ? 0755 : 0), 0);
        for (unsigned k = 0; k < 100 && i % 2 == 0; k++) {
            (void)snprintf(name, sizeof(name), "t/d%u/f\n\xff%u", i, k);
            put_file(in_dir(f, name), "");
        }
    }
    assert_int_equal(symlink("../keep", in_dir(f, "t/d0/link")), 0);
    assert_int_equal(symlink("/", in_dir(f, "t/root")), 0);
    assert_int_equal(mkfifo(in_dir(f, "t/fifo"), 0600), 0);
    assert_int_equal(ask_remove(f, in_dir(f, "t"), true), 0);
    assert_false(is_there(in_dir(f, "t")));
    assert_true(is_there(in_dir(f, "keep/x")));
}

/* Many times deeper than a path can be long. */
static void test_remove_deep_tree(void **state)
{
    struct fixture *f = *state;
    char name[101];
    int fd = open(f->dir, O_RDONLY | O_DIRECTORY);

    memset(name, 'd', 100);
    name[100] = '\0';
    for (unsigned i = 0; i < 400; i++) {
        assert_int_equal(mkdirat(fd, name, 0755), 0);
        int below = openat(fd, name, O_RDONLY | O_DIRECTORY);
        assert_true(below >= 0);
        int file = openat(fd, i % 2 == 0 ? "a" : "z", O_WRONLY | O_CREAT, 0644);
        assert_true(file >= 0);
        (void)close(file);
        (void)close(fd);
        fd = below;
    }
    (void)close(fd);
    assert_int_equal(ask_remove(f, in_dir(f, name), true), 0);
    assert_false(is_there(in_dir(f, name)));
}

static void test_remove_stops_at_a_mount(void **state)
{
    struct fixture *f = *state;

    if (getuid() != 0)
        skip();
    assert_int_equal(mkdir(in_dir(f, "t"), 0755), 0);
    assert_int_equal(mkdir(in_dir(f, "t/a"), 0755), 0);
    assert_int_equal(mkdir(in_dir(f, "t/a/m"), 0755), 0);
    assert_int_equal(mount("none", in_dir(f, "t/a/m"), "tmpfs", 0, NULL), 0);
    put_file(in_dir(f, "t/a/m/x"), "x");
    assert_int_equal(ask_remove(f, in_dir(f, "t"), true), EBUSY);
    assert_non_null(strstr(f->result.text, "t/a/m"));
    assert_true(is_there(in_dir(f, "t/a/m/x")));
    assert_int_equal(ask_remove(f, in_dir(f, "t/a/m"), true), EBUSY);
    assert_true(is_there(in_dir(f, "t/a/m/x")));
    assert_int_equal(umount(in_dir(f, "t/a/m")), 0);
    assert_int_equal(ask_remove(f, in_dir(f, "t"), true), 0);
}

/* It can be stopped on its way, and others are served meanwhile. */
static void test_remove_is_not_alone(void **state)
{
    struct fixture *f = *state;
    struct buffer request;

    assert_int_equal(mkdir(in_dir(f, "t"), 0755), 0);
    for (unsigned i = 0; i < 5000; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "t/%u", i);
        assert_int_equal(symlink("x", in_dir(f, name)), 0);
    }
    stop_agent(f);
    request = change_request(CHANNEL_CHANGE_REMOVE, CHANNEL_CHANGE_TREE, 0, in_dir(f, "t"), "");
    uint32_t id = open_request(f, &request);
    peer_send(&f->peer, id, CHANNEL_RESET, 0, NULL, 0);
    continue_agent(f);
    peer_finish(&f->peer, id, &f->result);
    assert_int_equal(f->result.status, ECANCELED);
    assert_true(is_there(in_dir(f, "t")));

    stop_agent(f);
    request = change_request(CHANNEL_CHANGE_REMOVE, CHANNEL_CHANGE_TREE, 0, in_dir(f, "t"), "");
    uint32_t remove_id = open_request(f, &request);
    request = change_request(CHANNEL_CHANGE_MKDIR, 0, 0755, in_dir(f, "new"), "");
    id = open_request(f, &request);
    continue_agent(f);
    assert_int_equal(first_end(f), id);
    assert_int_equal(first_end(f), remove_id);
    assert_false(is_there(in_dir(f, "t")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_TEST(test_mkdir),
        FILE_TEST(test_rename),
        FILE_TEST(test_chmod_and_symlink),
        FILE_TEST(test_remove),
        FILE_TEST(test_remove_tree),
        FILE_TEST(test_remove_deep_tree),
        FILE_TEST(test_remove_stops_at_a_mount),
        FILE_TEST(test_remove_is_not_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
