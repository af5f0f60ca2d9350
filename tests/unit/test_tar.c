/*
 * Archives turned into a tree's entries and back: hostile and damaged ones, made by hand, and all
 * kinds of names. What is refused names its entry, and what came before it is whole.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/fd.h"
#include "base/tree.h"
#include "daemon/tar_work.h"

#define BLOCK     512u
#define OUT_MAX   (64 * MIB)
#define NAMES_MAX 8192u

/* --- Making archives --------------------------------------------------------------------------
 */

struct tar {
    struct buffer bytes;
};

struct header {
    const char *name;
    char type;
    const char *link;
    const char *content;
    size_t size;
    const char *size_text; /* in place of `size` in the header; 12 bytes */
    const char *uid_text;  /* 8 bytes */
};

static void pad(struct buffer *b)
{
    static const uint8_t zeros[BLOCK];

    assert_int_equal(buffer_append(b, zeros, (BLOCK - b->size % BLOCK) % BLOCK), 0);
}

static void sum_up(uint8_t block[BLOCK])
{
    unsigned sum = 0;

    memset(block + 148, ' ', 8);
    for (size_t i = 0; i < BLOCK; i++)
        sum += block[i];
    (void)snprintf((char *)block + 148, 8, "%06o", sum);
}

static void put(struct tar *t, const struct header *h)
{
    uint8_t block[BLOCK] = {0};

    memcpy(block, h->name, strlen(h->name) < 100 ? strlen(h->name) : 100);
    memcpy(block + 100, "0000644", 7);
    memcpy(block + 108, h->uid_text != NULL ? h->uid_text : "0000012\0", 8);
    memcpy(block + 116, "0000013", 7);
    (void)snprintf((char *)block + 124, 12, "%011zo", h->size);
    if (h->size_text != NULL)
        memcpy(block + 124, h->size_text, 12);
    memcpy(block + 136, "14512345670", 11);
    block[156] = (uint8_t)h->type;
    if (h->link != NULL)
        memcpy(block + 157, h->link, strlen(h->link) < 100 ? strlen(h->link) : 100);
    memcpy(block + 257, "ustar\00000", 8);
    sum_up(block);
    assert_int_equal(buffer_append(&t->bytes, block, BLOCK), 0);
    if (h->content != NULL)
        assert_int_equal(buffer_append(&t->bytes, h->content, h->size), 0);
    pad(&t->bytes);
}

static void put_plain(struct tar *t, const char *name, char type, const char *link)
{
    put(t, &(struct header){.name = name,
                            .type = type,
                            .link = link,
                            .content = type == '0' ? "x" : NULL,
                            .size = type == '0'});
}

/* A pax header with one record, whose length may lie. */
static void put_pax(struct tar *t, const char *key, const char *value, size_t value_size)
{
    char record[8192];
    size_t length = strlen(key) + value_size + 3;

    for (size_t digits = 1; digits <= 4; digits++) {
        char text[16];
        int n = snprintf(text, sizeof(text), "%zu", length + digits);
        if ((size_t)n != digits)
            continue;
        length += digits;
        break;
    }
    int n = snprintf(record, sizeof(record), "%zu %s=", length, key);
    memcpy(record + n, value, value_size);
    record[length - 1] = '\n';
    put(t, &(struct header){.name = "pax", .type = 'x', .content = record, .size = length});
}

static struct tar begin_tar(void)
{
    return (struct tar){.bytes = BUFFER_INIT(OUT_MAX)};
}

static void end_tar(struct tar *t)
{
    uint8_t zeros[2 * BLOCK] = {0};

    assert_int_equal(buffer_append(&t->bytes, zeros, sizeof(zeros)), 0);
}

/* --- Running ------------------------------------------------------------------------------------
 */

struct run {
    int (*work)(int fd, struct tar_work *work);
    int fd;
    int result;
    struct tar_work results;
};

static void *work_main(void *arg)
{
    struct run *r = arg;

    r->result = r->work(r->fd, &r->results);
    (void)close(r->fd);
    return NULL;
}

struct feed {
    int fd;
    const uint8_t *data;
    size_t size;
};

static void *feed_main(void *arg)
{
    struct feed *f = arg;

    for (size_t at = 0; at < f->size;) {
        ssize_t n = send(f->fd, f->data + at, f->size - at, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    (void)shutdown(f->fd, SHUT_WR);
    return NULL;
}

/* Runs one of the two over a socket pair; what comes out is appended to `out`. */
static int run(int (*work)(int, struct tar_work *), const void *data, size_t size,
               struct buffer *out, struct tar_work *ret_results)
{
    struct run r = {.work = work};
    pthread_t worker, feeder;
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    r.fd = fds[1];
    struct feed f = {.fd = fds[0], .data = data, .size = size};
    assert_int_equal(pthread_create(&worker, NULL, work_main, &r), 0);
    assert_int_equal(pthread_create(&feeder, NULL, feed_main, &f), 0);
    for (;;) {
        uint8_t *to = buffer_reserve(out, 65536);
        assert_non_null(to);
        ssize_t n = recv(fds[0], to, 65536, 0);
        if (n <= 0)
            break;
        buffer_commit(out, (size_t)n);
    }
    (void)shutdown(fds[0], SHUT_RDWR);
    assert_int_equal(pthread_join(feeder, NULL), 0);
    assert_int_equal(pthread_join(worker, NULL), 0);
    (void)close(fds[0]);
    assert_int_equal(r.result != 0, r.results.error.code != ERR_NONE);
    *ret_results = r.results;
    return r.result;
}

struct unpacked {
    int result;
    struct tar_work work;
    bool is_between; /* the entries end where they may */
    unsigned entries;
    uint64_t bytes;
    char names[NAMES_MAX]; /* "TYPE:PATH>TARGET;" of each */
};

static struct unpacked unpack(const void *data, size_t size)
{
    static struct tree_reader r;
    struct buffer out = BUFFER_INIT(OUT_MAX);
    struct unpacked u = {0};
    struct error e = ERROR_INIT;
    struct tree_entry entry;
    enum tree_event event;

    u.result = run(tar_unpack, data, size, &out, &u.work);
    tree_reader_init(&r);
    for (size_t at = 0, used = 0; at < out.size; at += used) {
        assert_int_equal(
            tree_reader_next(&r, buffer_bytes(&out) + at, out.size - at, &used, &event, &entry, &e),
            0);
        u.bytes += event == TREE_CONTENT ? used : 0;
        if (event != TREE_ENTRY)
            continue;
        u.entries++;
        size_t length = strlen(u.names);
        (void)snprintf(u.names + length, sizeof(u.names) - length, "%d:%s>%s;", entry.type,
                       entry.path, entry.target);
    }
    u.is_between = tree_reader_is_between(&r);
    buffer_fini(&out);
    return u;
}

static struct unpacked unpack_tar(struct tar *t)
{
    struct unpacked u = unpack(buffer_bytes(&t->bytes), t->bytes.size);

    buffer_fini(&t->bytes);
    return u;
}

static void expect_refused(const struct unpacked *u, const char *words)
{
    if (u->result == 0 || u->work.error.code != ERR_ARCHIVE_REFUSED ||
        (strstr(u->work.error.message, words) == NULL &&
         strstr(u->work.error.cause, words) == NULL))
        fail_msg("\"%s\" is not in: %d %s (%s); taken: %s", words, u->result, u->work.error.message,
                 u->work.error.cause, u->names);
    assert_true(u->work.error.remedy[0] != '\0' || strstr(words, "entries") != NULL);
}

/* --- Tests --------------------------------------------------------------------------------------
 */

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

/* --- Packing ------------------------------------------------------------------------------------
 */

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

    (void)state;
    for (size_t i = 0; i < sizeof(deep) - 1; i++)
        deep[i] = i % 200 == 199 ? '/' : 'p';
    deep[sizeof(deep) - 2] = 'p';
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++)
        put_tree(&tree, &entries[i], entries[i].size == 3 ? "abc" : "");
    assert_int_equal(run(tar_pack, buffer_bytes(&tree), tree.size, &out, &work), 0);
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
    static const struct tree_entry fine = {.type = TREE_FILE, .size = 1, .path = "f", .target = ""},
                                   bad = {.type = TREE_FILE, .path = "../f", .target = ""},
                                   hard = {.type = TREE_HARDLINK, .path = "h", .target = "f"};

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct buffer tree = BUFFER_INIT(OUT_MAX), out = BUFFER_INIT(OUT_MAX);
        struct tar_work work;

        put_tree(&tree, &fine, "x");
        if (i == 0)
            put_tree(&tree, &bad, "");
        else if (i == 1)
            put_tree(&tree, &hard, "");
        else if (i == 2)
            put_tree(&tree, &fine, ""); /* without its content */
        else
            assert_int_equal(buffer_append(&tree, "\x01\x02", 2), 0);
        assert_int_equal(run(tar_pack, buffer_bytes(&tree), tree.size, &out, &work), -1);
        assert_int_equal(work.error.code, ERR_BAD_REQUEST);
        if (out.size > 0) {
            struct unpacked u = unpack(buffer_bytes(&out), out.size);
            expect_refused(&u, "");
        }
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
    for (int i = 0; i < 300; i++)
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
    }
    buffer_fini(&tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),           cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_hostile_entries), cmocka_unit_test(test_hostile_numbers),
        cmocka_unit_test(test_hostile_pax),     cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_no_archives),     cmocka_unit_test(test_behind_the_end),
        cmocka_unit_test(test_pack_and_unpack), cmocka_unit_test(test_pack_hostile),
        cmocka_unit_test(test_pack_for_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
