/*
 * Archives turned into a tree's entries: hostile and damaged ones, made by hand, and all kinds of
 * names. What is refused names its entry, and what came before it is whole.
 */
#include "tar_fixture.h"

static void test_kinds(void **state)
{
    struct tar t = begin_tar();

    (void)state;
    put_plain(&t, "./", '5', NULL);
    put_plain(&t, "./a b/", '5', NULL);
    put_plain(&t, "./a b//./f", '0', NULL);
    put_plain(&t, "old", '\0', NULL);
    put_plain(&t, "l", '2', "../anywhere/at/all");
    put_plain(&t, "h", '1', "./a b/f");
    put_plain(&t, "\xff\xc3\xbc", '0', NULL);
    end_tar(&t);
    struct unpacked u = unpack_tar(&t);
    assert_int_equal(u.result, 0);
    assert_string_equal(u.names, "2:a b>;1:a b/f>;1:old>;3:l>../anywhere/at/all;4:h>a b/f;"
                                 "1:\xff\xc3\xbc>;");
    assert_int_equal(u.bytes, 2);
}

/* Names longer than a header's, in both ways to write them, and in bytes that are no text. */
static void test_long_names(void **state)
{
    char name[1200];

    (void)state;
    for (size_t i = 0; i < sizeof(name); i++)
        name[i] = i % 100 == 99 ? '/' : 'n';
    name[1199] = '\0';
    name[500] = '\xfe';
    for (int is_pax = 0; is_pax < 2; is_pax++) {
        struct tar t = begin_tar();
        char expected[2600];

        if (is_pax) {
            put_pax(&t, "path", name, strlen(name));
        } else {
            put(&t, &(struct header){
                        .name = "././@LongLink", .type = 'L', .content = name, .size = 1200});
        }
        put_plain(&t, "short", '0', NULL);
        if (is_pax) {
            put_pax(&t, "linkpath", name, strlen(name));
        } else {
            put(&t, &(struct header){
                        .name = "././@LongLink", .type = 'K', .content = name, .size = 1200});
        }
        put_plain(&t, "link", '2', "short");
        end_tar(&t);
        struct unpacked u = unpack_tar(&t);
        (void)snprintf(expected, sizeof(expected), "1:%s>;3:link>%s;", name, name);
        assert_string_equal(u.names, expected);
        assert_int_equal(u.result, 0);
    }
}

static void test_hostile_entries(void **state)
{
    static const struct {
        const char *name;
        char type;
        const char *link;
        const char *words;
    } cases[] = {
        {"/etc/passwd", '0', NULL, "\"/etc/passwd\" in the archive is absolute"},
        {"..", '5', NULL, "\"..\" in the archive has a '..'"},
        {"../f", '0', NULL, "\"../f\""},
        {"a/../../f", '0', NULL, "\"a/../../f\""},
        {"./..", '2', "x", "'..'"},
        {"h", '1', "../../etc/shadow", "\"h\" in the archive is a hard link"},
        {"h", '1', "/etc/shadow", "\"h\" in the archive is a hard link"},
        {"h", '1', ".", "\"h\" in the archive is a hard link"},
        {"c", '3', NULL, "\"c\" in the archive is a device"},
        {"b", '4', NULL, "\"b\" in the archive is a device"},
        {"p", '6', NULL, "\"p\" in the archive is a device, fifo"},
        {".", '2', "elsewhere", "\".\" in the archive is the top"},
        {"s", '2', "", "\"s\""},
        {"", '0', NULL, "empty"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tar t = begin_tar();
        put_plain(&t, "before", '0', NULL);
        put_plain(&t, cases[i].name, cases[i].type, cases[i].link);
        put_plain(&t, "behind", '0', NULL);
        end_tar(&t);
        struct unpacked u = unpack_tar(&t);
        expect_refused(&u, cases[i].words);
        assert_string_equal(u.names, "1:before>;");
        assert_true(u.is_between && u.bytes == 1);
    }
}

/* Numbers that are none, negative, or more than there is. */
static void test_hostile_numbers(void **state)
{
    static const struct {
        const char *size_text, *uid_text;
        const char *pax_key, *pax_value;
    } cases[] = {
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", NULL, NULL, NULL}, /* -1 */
        {"\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", NULL, NULL, NULL}, /* INT64_MAX */
        {"\x80\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff", NULL, NULL, NULL},
        {"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", NULL, NULL, NULL},
        {"77777777777\0", NULL, NULL, NULL}, /* 8 GiB of which nothing is there */
        {NULL, NULL, "size", "-1"},
        {NULL, NULL, "size", "99999999999999999999999999"},
        {NULL, NULL, "size", "18446744073709551615"},
        {NULL, NULL, "size", "9223372036854775807"},
        {NULL, NULL, "size", "70368744177664"},
        {NULL, "\xff\xff\xff\xff\xff\xff\xff\xff", NULL, NULL},
        {NULL, NULL, "uid", "4294967296"},
        {NULL, NULL, "gid", "-7"},
        {NULL, NULL, "path", "../f"},
        {NULL, NULL, "path", "/f"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tar t = begin_tar();
        put_plain(&t, "before", '0', NULL);
        if (cases[i].pax_key != NULL)
            put_pax(&t, cases[i].pax_key, cases[i].pax_value, strlen(cases[i].pax_value));
        put(&t, &(struct header){.name = "f",
                                 .type = '0',
                                 .content = "12345",
                                 .size = 5,
                                 .size_text = cases[i].size_text,
                                 .uid_text = cases[i].uid_text});
        end_tar(&t);
        struct unpacked u = unpack_tar(&t);
        if (u.result == 0)
            fail_msg("case %zu: taken: %s", i, u.names);
        expect_refused(&u, "");
        assert_true(strncmp(u.names, "1:before>;", 10) == 0);
    }
}

/* Records of a pax header whose lengths lie, and a name that ends early. */
static void test_hostile_pax(void **state)
{
    static const char *const records[] = {
        "999999 path=x\n",
        "0 path=x\n",
        "-5 path=x\n",
        "11 path=xyz",
        "9 path\n\n",
        "x path=y\n",
        "99999999999999999999 path=x\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
        struct tar t = begin_tar();
        put(&t, &(struct header){
                    .name = "pax", .type = 'x', .content = records[i], .size = strlen(records[i])});
        put_plain(&t, "f", '0', NULL);
        end_tar(&t);
        struct unpacked u = unpack_tar(&t);
        if (u.result == 0)
            fail_msg("case %zu: taken: %s", i, u.names);
        expect_refused(&u, "");
    }
    struct tar t = begin_tar();
    put_pax(&t, "path", "a\0/../../b", 10);
    put_plain(&t, "f", '0', NULL);
    end_tar(&t);
    struct unpacked u = unpack_tar(&t);
    /* As in a header without pax: a name ends where its first NUL is. */
    assert_string_equal(u.names, "1:a>;");
}

/* Wherever an archive is cut, that is seen; what came whole before is taken. */
static void test_truncated(void **state)
{
    static char zeros[2 * BLOCK];
    struct tar t = begin_tar();

    (void)state;
    put_plain(&t, "one", '5', NULL);
    put(&t, &(struct header){.name = "two", .type = '0', .content = zeros, .size = 2 * BLOCK});
    put_pax(&t, "path", "three\xc3\xbc", 7);
    put_plain(&t, "f", '0', NULL);
    put_plain(&t, "four", '2', "x");
    size_t whole = t.bytes.size;
    end_tar(&t);
    for (size_t size = 0; size <= t.bytes.size; size += size % BLOCK == 0 ? 1 : BLOCK - 1) {
        struct unpacked u = unpack(buffer_bytes(&t.bytes), size);
        if (size >= whole + BLOCK) {
            assert_int_equal(u.result, 0);
            assert_int_equal(u.entries, 4);
            continue;
        }
        if (u.result == 0)
            fail_msg("cut at %zu of %zu: %s", size, whole, u.names);
        expect_refused(&u, "");
    }
    buffer_fini(&t.bytes);
}

static void test_no_archives(void **state)
{
    static const char *const texts[] = {
        "", "x", "hello, world\n", "\x1f\x8b\x08\x00gzip", "PK\x03\x04", "070701"};
    char junk[4096];

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct unpacked u = unpack(texts[i], strlen(texts[i]));
        expect_refused(&u, "");
    }
    for (size_t i = 0; i < sizeof(junk); i++)
        junk[i] = (char)(i * 7 + 1);
    struct unpacked u = unpack(junk, sizeof(junk));
    expect_refused(&u, "");
    assert_int_equal(u.entries, 0);
}

/* A second archive behind the first is not dropped in silence; padding is fine. */
static void test_behind_the_end(void **state)
{
    static const uint8_t padding[20 * BLOCK];

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct tar t = begin_tar();
        put_plain(&t, "f", '0', NULL);
        end_tar(&t);
        for (int k = 0; k < 20; k++)
            assert_int_equal(buffer_append(&t.bytes, padding, sizeof(padding)), 0);
        if (i == 1)
            put_plain(&t, "g", '0', NULL);
        if (i == 2)
            assert_int_equal(buffer_append(&t.bytes, "x", 1), 0);
        struct unpacked u = unpack_tar(&t);
        assert_string_equal(u.names, "1:f>;");
        if (i == 0)
            assert_int_equal(u.result, 0);
        else
            expect_refused(&u, "behind its end");
    }
}

/* What is no whole block libarchive has looked at and put aside when it finds the end. */
static void test_crumbs_behind_the_end(void **state)
{
    static const uint8_t zeros[BLOCK];

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct tar t = begin_tar();
        put_plain(&t, "f", '0', NULL);
        assert_int_equal(buffer_append(&t.bytes, zeros, BLOCK), 0);
        assert_int_equal(buffer_append(&t.bytes, i == 0 ? "\0\0" : "\0x", 2), 0);
        struct unpacked u = unpack_tar(&t);
        assert_string_equal(u.names, "1:f>;");
        if (i == 0)
            assert_int_equal(u.result, 0);
        else
            expect_refused(&u, "behind its end");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_hostile_entries),
        cmocka_unit_test(test_hostile_numbers),
        cmocka_unit_test(test_hostile_pax),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_no_archives),
        cmocka_unit_test(test_behind_the_end),
        cmocka_unit_test(test_crumbs_behind_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
