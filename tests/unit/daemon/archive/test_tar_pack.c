/* A tree's entries turned into an archive, and back; what is no tree is no archive either. */
#include "tar_fixture.h"

#define LARGE (256 * KIB)

static void put_tree(struct buffer *b, const struct tree_entry *entry, const char *content)
{
    uint8_t *to = buffer_reserve(b, TREE_RECORD_BYTES_MAX);

    assert_non_null(to);
    buffer_commit(b, tree_entry_put(entry, to, TREE_RECORD_BYTES_MAX));
    assert_int_equal(buffer_append(b, content, strlen(content)), 0);
}

static void test_pack_and_unpack(void **state)
{
    static char deep[4000];
    static const struct tree_entry entries[] = {
        {.type = TREE_SKIPPED, .size = 42, .path = "", .target = ""},
        {TREE_DIRECTORY, 01755, 0, 0, 0, 1, 2, "d", ""},
        {TREE_FILE, 0644, 3, 4294967290, 3000000, INT64_MIN, 999999999, "d/f", ""},
        {TREE_FILE, 0644, 0, 0, 0, INT64_MAX, 0, "d/\xff\xfe", ""},
        {TREE_FILE, 0644, 0, 0, 0, 0, 0, "d/u\xcc\x88 \xc3\xbc", ""},
        {TREE_SYMLINK, 0777, 0, 0, 0, 0, 0, "d/l\xff", "../\xfe/\xc3\xbc"},
        {TREE_FILE, 0644, 0, 0, 0, 0, 0, deep, ""},
    };
    struct buffer tree = BUFFER_INIT(OUT_MAX), out = BUFFER_INIT(OUT_MAX);
    char expected[6000];
    struct tar_work work;
    size_t taken;

    (void)state;
    for (size_t i = 0; i < sizeof(deep) - 1; i++)
        deep[i] = i % 200 == 199 ? '/' : 'p';
    deep[sizeof(deep) - 2] = 'p';
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++)
        put_tree(&tree, &entries[i], entries[i].size == 3 ? "abc" : "");
    assert_int_equal(run(tar_pack, buffer_bytes(&tree), tree.size, &out, &work, &taken), 0);
    assert_int_equal(work.skipped, 42);
    assert_int_equal(out.size % BLOCK, 0);
    struct unpacked u = unpack(buffer_bytes(&out), out.size);
    (void)snprintf(expected, sizeof(expected),
                   "2:d>;1:d/f>;1:d/\xff\xfe>;1:d/u\xcc\x88 \xc3\xbc>;3:d/l\xff>../\xfe/\xc3\xbc;"
                   "1:%s>;",
                   deep);
    assert_int_equal(u.result, 0);
    assert_string_equal(u.names, expected);
    assert_int_equal(u.bytes, 3);
    buffer_fini(&tree);
    buffer_fini(&out);
}

/* What a guest sends that is no tree is never an archive that looks whole. */
static void test_pack_hostile(void **state)
{
    static const struct tree_entry large = {.type = TREE_FILE,
                                            .size = LARGE - 1,
                                            .path = "large",
                                            .target = ""},
                                   fine = {.type = TREE_FILE, .size = 1, .path = "f", .target = ""},
                                   bad = {.type = TREE_FILE, .path = "../f", .target = ""},
                                   hard = {.type = TREE_HARDLINK, .path = "h", .target = "f"};
    static char content[LARGE]; /* more than is gathered before it goes out */

    (void)state;
    memset(content, 'c', sizeof(content) - 1);
    for (int i = 0; i < 4; i++) {
        struct buffer tree = BUFFER_INIT(OUT_MAX), out = BUFFER_INIT(OUT_MAX);
        struct tar_work work;
        size_t taken;

        put_tree(&tree, &large, content);
        put_tree(&tree, &fine, "x");
        if (i == 0)
            put_tree(&tree, &bad, "");
        else if (i == 1)
            put_tree(&tree, &hard, "");
        else if (i == 2)
            put_tree(&tree, &fine, ""); /* without its content */
        else
            assert_int_equal(buffer_append(&tree, "\x01\x02", 2), 0);
        assert_int_equal(run(tar_pack, buffer_bytes(&tree), tree.size, &out, &work, &taken), -1);
        assert_int_equal(work.error.code, ERR_BAD_REQUEST);
        assert_true(out.size > 0);
        struct unpacked u = unpack(buffer_bytes(&out), out.size);
        expect_refused(&u, "");
        buffer_fini(&tree);
        buffer_fini(&out);
    }
}

/* A reader that has gone, and a file as large as one can claim to be: no wait, no leak. */
static void test_pack_for_nobody(void **state)
{
    static const struct tree_entry huge = {
        .type = TREE_FILE, .size = INT64_MAX, .path = "f", .target = ""};
    struct buffer tree = BUFFER_INIT(OUT_MAX);

    (void)state;
    put_tree(&tree, &huge, "x");
    /* More than is gathered before it goes out, and less than a socket holds. */
    for (int i = 0; i < 10000; i++)
        assert_int_equal(buffer_append(&tree, "0123456789", 10), 0);
    for (int is_read = 0; is_read < 2; is_read++) {
        struct run r = {.work = tar_pack};
        int fds[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        r.fd = fds[1];
        assert_int_equal(fd_write_full(fds[0], buffer_bytes(&tree), tree.size), 0);
        (void)shutdown(fds[0], is_read ? SHUT_WR : SHUT_RDWR);
        (void)work_main(&r);
        (void)close(fds[0]);
        assert_int_equal(r.result, -1);
        assert_int_equal(r.results.error.code, is_read ? ERR_BAD_REQUEST : ERR_INTERNAL);
        assert_string_equal(r.results.error.cause, is_read ? "" : "nobody takes it");
    }
    buffer_fini(&tree);
}

/* A name that is UTF-8 is written as such, whatever the process's locale is. */
static void test_names_are_text(void **state)
{
    static const struct tree_entry entry = {.type = TREE_FILE, .path = "\xc3\xbc", .target = ""};
    struct buffer tree = BUFFER_INIT(OUT_MAX), out = BUFFER_INIT(OUT_MAX);
    struct tar_work work;
    size_t taken;

    (void)state;
    put_tree(&tree, &entry, "");
    assert_int_equal(run(tar_pack, buffer_bytes(&tree), tree.size, &out, &work, &taken), 0);
    assert_non_null(memmem(buffer_bytes(&out), out.size, " path=\xc3\xbc\n", 9));
    assert_null(memmem(buffer_bytes(&out), out.size, "hdrcharset", 10));
    buffer_fini(&tree);
    buffer_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack_and_unpack),
        cmocka_unit_test(test_pack_hostile),
        cmocka_unit_test(test_pack_for_nobody),
        cmocka_unit_test(test_names_are_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
