/* Entries of a tree: packed and unpacked again in pieces of any size; what may not be is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/tree.h"
#include "base/wire.h"

static const struct tree_entry examples[] = {
    {.type = TREE_SKIPPED, .size = 3, .path = "", .target = ""},
    {TREE_DIRECTORY, 01777, 0, 1, 2, -5, 999999999, "a b", ""},
    {TREE_FILE, 04755, 5, 1000, 4294967295, 1700000000, 1, "a b/\xff\n", ""},
    {TREE_SYMLINK, 0777, 0, 0, 0, 0, 0, "a b/link", "/../\xc3\xbc"},
    {TREE_HARDLINK, 0644, 0, 0, 0, 0, 0, "hard", "a b/\xff\n"},
    {TREE_FILE, 0, 0, 0, 0, 0, 0, "...", ""},
};
#define EXAMPLE_COUNT (sizeof(examples) / sizeof(examples[0]))
#define CONTENT       "12345"

/* All examples, with a mark before each. */
static size_t pack(uint8_t *bytes, size_t size)
{
    size_t used = 0;

    for (size_t i = 0; i < EXAMPLE_COUNT; i++) {
        bytes[used++] = TREE_MARK;
        size_t n = tree_entry_put(&examples[i], bytes + used, size - used);
        assert_true(n > 0);
        used += n;
        if (examples[i].type == TREE_FILE) {
            memcpy(bytes + used, CONTENT, examples[i].size);
            used += examples[i].size;
        }
    }
    return used;
}

static void assert_same(const struct tree_entry *a, const struct tree_entry *b)
{
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->mode, b->mode);
    assert_true(a->size == b->size && a->mtime_s == b->mtime_s && a->mtime_ns == b->mtime_ns);
    assert_true(a->uid == b->uid && a->gid == b->gid);
    assert_string_equal(a->path, b->path);
    assert_string_equal(a->target, b->target);
}

static void test_pieces(void **state)
{
    static struct tree_reader r;
    uint8_t bytes[1024];
    size_t size = pack(bytes, sizeof(bytes));

    (void)state;
    for (size_t piece = 1; piece <= size; piece++) {
        struct error e = ERROR_INIT;
        struct tree_entry entry;
        enum tree_event event;
        char content[16] = "";
        size_t entries = 0, content_used = 0;

        tree_reader_init(&r);
        for (size_t at = 0; at < size;) {
            size_t used = 0, n = piece < size - at ? piece : size - at;
            assert_int_equal(tree_reader_next(&r, bytes + at, n, &used, &event, &entry, &e), 0);
            assert_true(used > 0 && used <= n);
            assert_true(event != TREE_MORE || used == n);
            if (event == TREE_ENTRY)
                assert_same(&entry, &examples[entries++]);
            if (event == TREE_CONTENT) {
                memcpy(content + content_used, bytes + at, used);
                content_used += used;
            }
            at += used;
            /* Only between entries may it end. */
            if (event == TREE_ENTRY)
                assert_int_equal(tree_reader_is_between(&r),
                                 entry.type != TREE_FILE || entry.size == 0);
        }
        assert_int_equal(entries, EXAMPLE_COUNT);
        assert_string_equal(content, CONTENT);
        assert_true(tree_reader_is_between(&r));
    }
}

/* The reader's word about one entry; NULL where it is taken. */
static const char *fault_of(const struct tree_entry *entry)
{
    static struct tree_reader r;
    static struct error e;
    static uint8_t bytes[4 * CHANNEL_PATH_MAX];
    struct tree_entry taken;
    enum tree_event event = TREE_MORE;
    size_t used = 0;

    size_t size = tree_entry_put(entry, bytes, sizeof(bytes));
    assert_true(size > 0);
    tree_reader_init(&r);
    e = (struct error)ERROR_INIT;
    if (tree_reader_next(&r, bytes, size, &used, &event, &taken, &e) == 0) {
        if (event == TREE_ENTRY)
            return NULL;
        assert_int_equal(tree_reader_next(&r, bytes, 0, &used, &event, &taken, &e), 0);
        assert_int_equal(tree_reader_next(&r, "x", 1, &used, &event, &taken, &e), -1);
    }
    assert_int_equal(e.code, ERR_BAD_REQUEST);
    return e.message;
}

static void test_judgement(void **state)
{
    static char long_name[FILE_NAME_BYTES + 1], long_path[CHANNEL_PATH_MAX + 1];
    static const struct {
        struct tree_entry entry;
        const char *words; /* NULL: taken */
    } cases[] = {
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, "/a", ""}, "absolute"},
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, "", ""}, "empty"},
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, "..", ""}, "'..'"},
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, "a/../b", ""}, "'..'"},
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, "a/..", ""}, "'..'"},
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, "./a", ""}, "none"},
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, "a//b", ""}, "none"},
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, "a/", ""}, "none"},
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, "..a/b..", ""}, NULL},
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, long_name, ""}, "too long"},
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, long_name + 1, ""}, NULL},
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, long_path, ""}, "malformed"},
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, long_path + 2, ""}, NULL},
        {{TREE_FILE, 010000, 0, 0, 0, 0, 0, "a", ""}, "fields"},
        {{TREE_FILE, 0, UINT64_MAX, 0, 0, 0, 0, "a", ""}, "fields"},
        {{TREE_FILE, 0, INT64_MAX, 0, 0, 0, 0, "a", ""}, NULL},
        {{TREE_FILE, 0, 0, 0, 0, 0, 1000000000, "a", ""}, "fields"},
        {{TREE_FILE, 0, 0, 0, 0, 0, 0, "a", "b"}, "target"},
        {{TREE_DIRECTORY, 0, 1, 0, 0, 0, 0, "a", ""}, "size"},
        {{TREE_SYMLINK, 0, 0, 0, 0, 0, 0, "a", ""}, "nothing"},
        {{TREE_SYMLINK, 0, 0, 0, 0, 0, 0, "a/../b", "x"}, "'..'"},
        {{TREE_HARDLINK, 0, 0, 0, 0, 0, 0, "a", "/etc/shadow"}, "not in the tree"},
        {{TREE_HARDLINK, 0, 0, 0, 0, 0, 0, "a", "../b"}, "not in the tree"},
        {{TREE_SKIPPED, 0, 0, 0, 0, 0, 0, "a", ""}, "name"},
        {{(enum tree_type)6, 0, 0, 0, 0, 0, 0, "a", ""}, "no entry"},
    };

    (void)state;
    memset(long_name, 'x', sizeof(long_name) - 1);
    for (size_t i = 0; i < CHANNEL_PATH_MAX; i++)
        long_path[i] = i % 2 == 0 ? 'x' : '/';
    long_path[CHANNEL_PATH_MAX - 1] = 'x';
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *fault = fault_of(&cases[i].entry);
        if ((fault == NULL) != (cases[i].words == NULL) ||
            (fault != NULL && strstr(fault, cases[i].words) == NULL))
            fail_msg("case %zu: %s", i, fault != NULL ? fault : "taken");
    }
}

/* Lengths that lie, and strings with a NUL inside. */
static void test_bytes(void **state)
{
    static struct tree_reader r;
    static const struct tree_entry plain = {.type = TREE_FILE, .path = "abc", .target = ""};
    struct error e = ERROR_INIT;
    struct tree_entry entry;
    enum tree_event event;
    uint8_t bytes[128];
    size_t used, size = tree_entry_put(&plain, bytes, sizeof(bytes));

    (void)state;
    assert_int_equal(tree_entry_put(&plain, bytes, size - 1), 0);
    assert_int_equal(tree_entry_put(&plain, bytes, sizeof(bytes)), size);
    bytes[1]++; /* the length */
    tree_reader_init(&r);
    assert_int_equal(tree_reader_next(&r, bytes, size + 1, &used, &event, &entry, &e), -1);
    bytes[1] -= 2;
    tree_reader_init(&r);
    assert_int_equal(tree_reader_next(&r, bytes, size, &used, &event, &entry, &e), -1);
    bytes[1]++;
    bytes[4] = 1; /* 16 MB */
    tree_reader_init(&r);
    assert_int_equal(tree_reader_next(&r, bytes, size, &used, &event, &entry, &e), -1);
    bytes[4] = 0;
    bytes[size - 4 - 1] = '\0'; /* "ab\0" */
    tree_reader_init(&r);
    assert_int_equal(tree_reader_next(&r, bytes, size, &used, &event, &entry, &e), -1);
}

static void test_count(void **state)
{
    static struct tree_reader r;
    static const struct tree_entry plain = {.type = TREE_DIRECTORY, .path = "a", .target = ""};
    struct error e = ERROR_INIT;
    struct tree_entry entry;
    enum tree_event event;
    uint8_t bytes[64];
    size_t used, size = tree_entry_put(&plain, bytes, sizeof(bytes));

    (void)state;
    tree_reader_init(&r);
    for (uint32_t i = 0; i < TREE_ENTRIES_MAX; i++)
        assert_int_equal(tree_reader_next(&r, bytes, size, &used, &event, &entry, &e), 0);
    assert_int_equal(tree_reader_next(&r, bytes, size, &used, &event, &entry, &e), -1);
    assert_non_null(strstr(e.message, "1000000"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_judgement),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
