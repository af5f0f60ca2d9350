/* Output as NDJSON records: text stays text across pieces, bytes survive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/file_mode.h"
#include "daemon/guest_file.h"
#include "daemon/output_record.h"

#define TEXT(t) (const uint8_t *)(t), sizeof(t) - 1

static void expect(struct buffer *lines, const char *wanted)
{
    assert_int_equal(buffer_append(lines, "", 1), 0);
    assert_string_equal((const char *)buffer_bytes(lines), wanted);
    buffer_fini(lines);
}

static void test_text_and_bytes(void **state)
{
    struct buffer lines = BUFFER_INIT(4096);
    struct output_tail tail = {0};

    (void)state;
    assert_int_equal(output_record_append(&lines, "stdout", &tail, TEXT("a\"\n"), false), 0);
    expect(&lines, "{\"type\":\"stdout\",\"data\":\"a\\\"\\n\"}\n");
    assert_int_equal(output_record_append(&lines, "stderr", &tail, TEXT("a\0b"), false), 0);
    expect(&lines, "{\"type\":\"stderr\",\"data_base64\":\"YQBi\"}\n");
    assert_int_equal(output_record_append(&lines, "stderr", &tail, TEXT("\xff\xfe"), false), 0);
    expect(&lines, "{\"type\":\"stderr\",\"data_base64\":\"//4=\"}\n");
    assert_int_equal(output_record_append(&lines, "stdout", &tail, TEXT(""), true), 0);
    expect(&lines, "");
}

/* Every way to cut a text of one- to four-byte characters in two gives text, and all of it. */
static void test_characters_across_pieces(void **state)
{
    static const uint8_t text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";
    size_t size = sizeof(text) - 1;

    (void)state;
    for (size_t cut = 0; cut <= size; cut++) {
        struct buffer lines = BUFFER_INIT(4096);
        struct output_tail tail = {0};

        assert_int_equal(output_record_append(&lines, "stdout", &tail, text, cut, false), 0);
        assert_int_equal(
            output_record_append(&lines, "stdout", &tail, text + cut, size - cut, false), 0);
        assert_int_equal(output_record_append(&lines, "stdout", &tail, NULL, 0, true), 0);
        assert_int_equal(buffer_append(&lines, "", 1), 0);
        assert_null(strstr((const char *)buffer_bytes(&lines), "base64"));
        assert_int_equal(tail.size, 0);
        buffer_fini(&lines);
    }
}

static void test_half_a_character_at_the_end(void **state)
{
    struct buffer lines = BUFFER_INIT(4096);
    struct output_tail tail = {0};

    (void)state;
    assert_int_equal(output_record_append(&lines, "stdout", &tail, TEXT("ok\xe2\x82"), false), 0);
    assert_int_equal(tail.size, 2);
    expect(&lines, "{\"type\":\"stdout\",\"data\":\"ok\"}\n");
    assert_int_equal(output_record_append(&lines, "stdout", &tail, NULL, 0, true), 0);
    expect(&lines, "{\"type\":\"stdout\",\"data_base64\":\"4oI=\"}\n");
    /* What cannot become a character is not held back. */
    assert_int_equal(output_incomplete(TEXT("\xff")), 0);
    assert_int_equal(output_incomplete(TEXT("\x80\x80\x80\x80")), 0);
    assert_int_equal(output_incomplete(TEXT("\xf0\x9f\x98")), 3);
}

static void test_a_piece_of_control_characters_fits(void **state)
{
    static uint8_t ones[32768];
    struct buffer lines = BUFFER_INIT(OUTPUT_RECORD_MAX(sizeof(ones)));
    struct output_tail tail = {0};

    (void)state;
    memset(ones, 1, sizeof(ones));
    assert_int_equal(output_record_append(&lines, "stderr", &tail, TEXT("\xf0\x9f\x98"), false), 0);
    assert_int_equal(output_record_append(&lines, "stderr", &tail, ones, sizeof(ones), false), 0);
    buffer_fini(&lines);
    tail.size = 0;
    assert_int_equal(output_record_append(&lines, "stderr", &tail, ones, sizeof(ones), false), 0);
    buffer_fini(&lines);
}

static void test_paths(void **state)
{
    static const struct {
        const uint8_t *path;
        size_t size;
        int result;
    } cases[] = {
        {TEXT("/a"), 0},       {TEXT("/a..b/..c/d.."), 0},
        {TEXT("/a/./b"), 0},   {TEXT(""), -1},
        {TEXT("a"), -1},       {TEXT("/"), -1},
        {TEXT("/a/"), -1},     {TEXT("/.."), -1},
        {TEXT("/a/../b"), -1}, {TEXT("/a/.."), -1},
        {TEXT("/a\0b"), -1},
    };
    char path[CHANNEL_PATH_MAX + 1];
    struct error e = ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(guest_file_check_path((const char *)cases[i].path, cases[i].size, &e),
                         cases[i].result);
        if (cases[i].result != 0)
            assert_int_equal(e.code, ERR_INVALID_PATH);
    }
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[CHANNEL_PATH_MAX] = '\0';
    assert_int_equal(guest_file_check_path(path, CHANNEL_PATH_MAX - 1, &e), 0);
    assert_int_equal(guest_file_check_path(path, CHANNEL_PATH_MAX, &e), -1);
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
        cmocka_unit_test(test_text_and_bytes),
        cmocka_unit_test(test_characters_across_pieces),
        cmocka_unit_test(test_half_a_character_at_the_end),
        cmocka_unit_test(test_a_piece_of_control_characters_fits),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_modes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
