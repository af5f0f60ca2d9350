/* What the agent says about files: every record of a hostile guest is judged. And modes, as clients
 * give them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "daemon/link/file_mode.h"
#include "daemon/link/file_record.h"
#include "json/json_write.h"

struct given {
    uint32_t mode;
    uint64_t size;
    int64_t mtime_s;
    uint32_t mtime_ns;
    const char *name, *target;
};

static void put(struct wire_writer *w, const struct given *g)
{
    wire_put_u32(w, g->mode);
    wire_put_u64(w, g->size);
    wire_put_u32(w, 1000);
    wire_put_u32(w, 100);
    wire_put_u64(w, (uint64_t)g->mtime_s);
    wire_put_u32(w, g->mtime_ns);
    wire_put_string(w, g->name, strlen(g->name));
    wire_put_string(w, g->target, strlen(g->target));
}

/* How many records are taken; -1 where one is refused. */
static int count(const uint8_t *bytes, size_t size, enum file_names names, const char *after)
{
    struct file_records r;
    struct file_record record;
    struct error e = ERROR_INIT;
    int result, taken = 0;

    file_records_init(&r, bytes, size, names, after);
    while ((result = file_records_next(&r, &record, &e)) == 1)
        taken++;
    assert_int_equal(result < 0, e.code == ERR_BAD_REQUEST);
    return result < 0 ? -1 : taken;
}

static void test_names(void **state)
{
    static const struct {
        enum file_names names;
        const char *after;
        const char *given[3];
        int taken;
    } cases[] = {
        {FILE_NAMES_NONE, "", {""}, 1},
        {FILE_NAMES_NONE, "", {"x"}, -1},
        {FILE_NAMES_ENTRY, "", {"a", "b", "ba"}, 3},
        {FILE_NAMES_ENTRY, "", {"a", "b", "\xff"}, 3},
        {FILE_NAMES_ENTRY, "a", {"b"}, 1},
        {FILE_NAMES_ENTRY, "b", {"b"}, -1},
        {FILE_NAMES_ENTRY, "b", {"a"}, -1},
        {FILE_NAMES_ENTRY, "", {"a", "a"}, -1},
        {FILE_NAMES_ENTRY, "", {"ba", "b"}, -1},
        {FILE_NAMES_ENTRY, "", {""}, -1},
        {FILE_NAMES_ENTRY, "", {"a/b"}, -1},
        {FILE_NAMES_PATH, "", {"/b", "/a", "/a"}, 3},
        {FILE_NAMES_PATH, "", {"a"}, -1},
        {FILE_NAMES_PATH, "", {""}, -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t bytes[512];
        struct wire_writer w;

        wire_writer_init(&w, bytes, sizeof(bytes));
        for (size_t k = 0; k < 3 && cases[i].given[k] != NULL; k++) {
            wire_put_u32(&w, 0); /* at work */
            put(&w, &(struct given){.mode = S_IFREG, .name = cases[i].given[k], .target = ""});
        }
        wire_put_u32(&w, 0);
        if (count(bytes, w.used, cases[i].names, cases[i].after) != cases[i].taken)
            fail_msg("case %zu", i);
    }
}

static void test_long_names(void **state)
{
    static uint8_t bytes[3 * CHANNEL_PATH_MAX];
    static char name[CHANNEL_PATH_MAX + 8];
    static const struct {
        size_t size;
        enum file_names names;
        int taken;
    } cases[] = {
        {FILE_NAME_BYTES - 1, FILE_NAMES_ENTRY, 1},
        {FILE_NAME_BYTES, FILE_NAMES_ENTRY, -1},
        {CHANNEL_PATH_MAX - 1, FILE_NAMES_PATH, 1},
        {CHANNEL_PATH_MAX, FILE_NAMES_PATH, -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wire_writer w;

        memset(name, 'n', cases[i].size);
        name[0] = cases[i].names == FILE_NAMES_PATH ? '/' : 'n';
        name[cases[i].size] = '\0';
        wire_writer_init(&w, bytes, sizeof(bytes));
        put(&w, &(struct given){.mode = S_IFREG, .name = name, .target = ""});
        assert_int_equal(count(bytes, w.used, cases[i].names, ""), cases[i].taken);
    }
}

static void test_fields(void **state)
{
    static const struct {
        struct given given;
        int taken;
    } cases[] = {
        {{S_IFDIR | 0755, 0, 0, 0, "", ""}, 1},
        {{S_IFREG, INT64_MAX, INT64_MIN, 999999999, "", ""}, 1},
        {{S_IFREG, (uint64_t)INT64_MAX + 1, 0, 0, "", ""}, -1},
        {{S_IFREG, 0, 0, 1000000000, "", ""}, -1},
        {{0755, 0, 0, 0, "", ""}, -1},
        {{S_IFMT, 0, 0, 0, "", ""}, -1},
    };
    uint8_t bytes[512];
    struct wire_writer w;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        wire_writer_init(&w, bytes, sizeof(bytes));
        put(&w, &cases[i].given);
        assert_int_equal(count(bytes, w.used, FILE_NAMES_NONE, ""), cases[i].taken);
        /* Cut anywhere it is none. */
        for (size_t size = 1; size < w.used; size++)
            assert_int_equal(count(bytes, size, FILE_NAMES_NONE, ""), -1);
    }
    assert_int_equal(count(bytes, 0, FILE_NAMES_NONE, ""), 0);
}

static void expect_json(const struct given *g, const char *key, const char *name, const char *json)
{
    struct buffer out = BUFFER_INIT(4096);
    struct file_records r;
    struct file_record record;
    struct error e = ERROR_INIT;
    struct json_writer w;
    uint8_t bytes[512];
    struct wire_writer in;

    wire_writer_init(&in, bytes, sizeof(bytes));
    put(&in, g);
    file_records_init(&r, bytes, in.used, g->name[0] != '\0' ? FILE_NAMES_ENTRY : FILE_NAMES_NONE,
                      "");
    assert_int_equal(file_records_next(&r, &record, &e), 1);
    json_writer_init(&w, &out);
    json_begin_object(&w, NULL);
    file_record_put(&record, key, name, &w);
    json_end_object(&w);
    assert_int_equal(buffer_append(&out, "", 1), 0);
    assert_string_equal((const char *)buffer_bytes(&out), json);
    buffer_fini(&out);
}

static void test_json(void **state)
{
    (void)state;
    expect_json(&(struct given){S_IFREG | 0644, 5, 1700000000, 123456789, "a\n", ""}, "name", NULL,
                "{\"name\":\"a\\n\",\"type\":\"file\",\"size\":5,\"mode\":\"0644\",\"uid\":1000,"
                "\"gid\":100,\"mtime\":\"2023-11-14T22:13:20.123456789Z\"}");
    expect_json(&(struct given){S_IFLNK | 0777, 3, -1, 0, "\xff", "/x\xfe"}, "name", NULL,
                "{\"name_base64\":\"/w==\",\"type\":\"symlink\",\"size\":3,\"mode\":\"0777\","
                "\"uid\":1000,\"gid\":100,\"mtime\":\"1969-12-31T23:59:59.000000000Z\","
                "\"target_base64\":\"L3j+\"}");
    expect_json(&(struct given){S_IFDIR | 01777, 0, INT64_MAX, 0, "", ""}, "path", "/tmp",
                "{\"path\":\"/tmp\",\"type\":\"directory\",\"size\":0,\"mode\":\"1777\","
                "\"uid\":1000,\"gid\":100,\"mtime\":null}");
    expect_json(&(struct given){S_IFSOCK, 0, -62167219201, 0, "", ""}, "path", "/s",
                "{\"path\":\"/s\",\"type\":\"socket\",\"size\":0,\"mode\":\"0000\","
                "\"uid\":1000,\"gid\":100,\"mtime\":null}");
}

static void test_modes(void **state)
{
    static const char *const bad[] = {"", "8", "644x", "-1", "+7", " 7", "10000", "0x1ff"};
    struct error e = ERROR_INIT;
    uint32_t mode = 0;

    (void)state;
    assert_int_equal(file_mode_parse(NULL, &mode, &e), 0);
    assert_int_equal(mode, 0644);
    assert_int_equal(file_mode_parse("755", &mode, &e), 0);
    assert_int_equal(mode, 0755);
    assert_int_equal(file_mode_parse("07777", &mode, &e), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(file_mode_parse(bad[i], &mode, &e), -1);
        assert_int_equal(e.code, ERR_INVALID_FIELD);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),  cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_fields), cmocka_unit_test(test_json),
        cmocka_unit_test(test_modes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
