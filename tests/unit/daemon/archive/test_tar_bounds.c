/*
 * What an archive can make us hold. libarchive reads all that tells of one entry in one call, and
 * keeps it, larger than it came: each shape that has no end of its own is cut off, by the bytes
 * taken from the client and by the memory allocated at any one time. What is long and has an end
 * is taken as ever.
 */
#include "tar_fixture.h"

#define ENDLESS_BYTES (24 * MIB)
#define LARGEST       (1 * MIB)   /* the largest special header that libarchive takes */
#define TAKEN_MAX     (512 * KIB) /* headers, a piece, and what the socket holds */
#define MEMORY_MAX    (4 * MIB)

/* --- Memory -------------------------------------------------------------------------------------
 */

/* As in <sanitizer/allocator_interface.h>, which gcc has not. */
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                              void (*on_free)(const volatile void *));
size_t __sanitizer_get_allocated_size(const volatile void *at);

static int64_t held, peak; /* what was there before us, and goes, makes it negative */

static void on_malloc(const volatile void *at, size_t size)
{
    int64_t now = __atomic_add_fetch(&held, (int64_t)size, __ATOMIC_RELAXED);
    int64_t most = __atomic_load_n(&peak, __ATOMIC_RELAXED);

    (void)at;
    while (now > most && !__atomic_compare_exchange_n(&peak, &most, now, true, __ATOMIC_RELAXED,
                                                      __ATOMIC_RELAXED))
        continue;
}

static void on_free(const volatile void *at)
{
    if (at == NULL)
        return;
    (void)__atomic_sub_fetch(&held, (int64_t)__sanitizer_get_allocated_size(at), __ATOMIC_RELAXED);
}

/* --- Archives -----------------------------------------------------------------------------------
 */

static void append(struct buffer *b, const char *text)
{
    assert_int_equal(buffer_append_text(b, text), 0);
}

/* A pax record, whose length counts itself. */
static void add_record(struct buffer *b, const char *key, const char *value)
{
    size_t rest = strlen(key) + strlen(value) + 3;
    size_t digits = 1;
    char length[24];

    while ((size_t)snprintf(length, sizeof(length), "%zu", rest + digits) != digits)
        digits++;
    append(b, length);
    append(b, " ");
    append(b, key);
    append(b, "=");
    append(b, value);
    append(b, "\n");
}

/* A header of the special type `type` with that content, which is freed. */
static void put_special(struct tar *t, char type, struct buffer *content)
{
    put(t, &(struct header){.name = "special",
                            .type = type,
                            .content = (const char *)buffer_bytes(content),
                            .size = content->size});
    buffer_fini(content);
}

static void put_filled(struct tar *t, char type, size_t size)
{
    struct buffer content = BUFFER_INIT(2 * LARGEST);
    uint8_t *bytes = buffer_reserve(&content, size);

    assert_non_null(bytes);
    memset(bytes, 'n', size);
    buffer_commit(&content, size);
    put_special(t, type, &content);
}

/* A pax header with one record, whose value is `piece`s (with a number where they have a "%u"). */
static void put_list(struct tar *t, const char *key, const char *before, const char *after,
                     size_t size)
{
    struct buffer value = BUFFER_INIT(2 * LARGEST), records = BUFFER_INIT(2 * LARGEST);

    for (unsigned i = 0; value.size < size; i++)
        assert_int_equal(buffer_printf(&value, "%s%s%u%s", i > 0 ? "," : "", before, i * 2, after),
                         0);
    assert_int_equal(buffer_append(&value, "", 1), 0);
    add_record(&records, key, (const char *)buffer_bytes(&value));
    buffer_fini(&value);
    put_special(t, 'x', &records);
}

/* --- What does not end --------------------------------------------------------------------------
 */

/* A file whose map of holes is at the head of its content. */
static void begin_map(struct tar *t)
{
    struct buffer records = BUFFER_INIT(LARGEST);

    add_record(&records, "GNU.sparse.major", "1");
    add_record(&records, "GNU.sparse.minor", "0");
    add_record(&records, "GNU.sparse.name", "holes");
    add_record(&records, "GNU.sparse.realsize", "100");
    put_special(t, 'x', &records);
    put(t,
        &(struct header){.name = "GNUSparseFile.0/holes", .type = '0', .size_text = "00777777777"});
}

static void make_map(struct tar *t)
{
    begin_map(t);
    append(&t->bytes, "99999999\n");
    while (t->bytes.size < ENDLESS_BYTES)
        append(&t->bytes, "0\n0\n");
}

static void make_comments_in_a_map(struct tar *t)
{
    begin_map(t);
    while (t->bytes.size < ENDLESS_BYTES)
        append(&t->bytes, "# and so on, and so on\n");
}

static void make_old_map(struct tar *t)
{
    uint8_t block[BLOCK] = {0};

    put(t, &(struct header){.name = "holes", .type = 'S', .is_gnu = true, .has_map = true});
    for (size_t i = 0; i < 21; i++)
        memcpy(block + i * 24, "00000000000\00000000000000", 24);
    block[21 * 24] = 1; /* and another one follows */
    while (t->bytes.size < ENDLESS_BYTES)
        assert_int_equal(buffer_append(&t->bytes, block, sizeof(block)), 0);
}

static void make_map_in_a_record(struct tar *t)
{
    put_list(t, "GNU.sparse.map", "", ",0", LARGEST - 64 * KIB);
}

static void make_map_in_many_records(struct tar *t)
{
    struct buffer records = BUFFER_INIT(2 * LARGEST);

    add_record(&records, "GNU.sparse.numblocks", "99999999");
    while (records.size < LARGEST - 64 * KIB) {
        add_record(&records, "GNU.sparse.offset", "0");
        add_record(&records, "GNU.sparse.numbytes", "0");
    }
    put_special(t, 'x', &records);
}

static void make_holes_of_solaris(struct tar *t)
{
    struct buffer value = BUFFER_INIT(LARGEST), records = BUFFER_INIT(2 * LARGEST);

    for (unsigned i = 1; value.size < LARGEST - 128 * KIB; i++)
        assert_int_equal(buffer_printf(&value, " %u", i), 0);
    assert_int_equal(buffer_append(&value, "", 1), 0);
    add_record(&records, "SUN.holesdata", (const char *)buffer_bytes(&value));
    buffer_fini(&value);
    put_special(t, 'x', &records);
}

static void make_attributes(struct tar *t)
{
    struct buffer records = BUFFER_INIT(2 * LARGEST);

    while (records.size < LARGEST - 64 * KIB) {
        add_record(&records, "SCHILY.xattr.a", "");
        add_record(&records, "LIBARCHIVE.xattr.b", "eHg");
    }
    put_special(t, 'x', &records);
}

/* Each of which is compared with each before it: with LARGEST this would take minutes. */
static void make_rights(struct tar *t)
{
    put_list(t, "SCHILY.acl.access", "u:", ":r", 200 * KIB);
}

static void make_headers(struct tar *t, const char *types, size_t size)
{
    for (size_t i = 0; t->bytes.size < ENDLESS_BYTES; i++)
        put_filled(t, types[i % strlen(types)], size);
}

static void make_names(struct tar *t)
{
    make_headers(t, "LK", LARGEST);
}

static void make_pax(struct tar *t)
{
    make_headers(t, "x", 16 * KIB);
}

static void make_global_pax(struct tar *t)
{
    make_headers(t, "g", 16 * KIB);
}

static void make_all_kinds(struct tar *t)
{
    make_headers(t, "AgxXLK", LARGEST - 64 * KIB);
}

static const struct {
    const char *what;
    void (*make)(struct tar *t);
    const char *named; /* in the refusal */
} endless[] = {
    {"a map of holes", make_map, "\"holes\""},
    {"comments in a map", make_comments_in_a_map, "\"holes\""},
    {"an old map of holes", make_old_map, "\"holes\""},
    {"a map in a record", make_map_in_a_record, "entry 2 "},
    {"a map in many records", make_map_in_many_records, "entry 2 "},
    {"holes of Solaris", make_holes_of_solaris, "entry 2 "},
    {"attributes", make_attributes, "entry 2 "},
    {"rights", make_rights, "entry 2 "},
    {"long names", make_names, "entry 2 "},
    {"pax headers", make_pax, "entry 2 "},
    {"global pax headers", make_global_pax, "entry 2 "},
    {"headers of all kinds", make_all_kinds, "entry 2 "},
};

static void test_endless(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(endless) / sizeof(endless[0]); i++) {
        struct tar t = begin_tar();
        put_plain(&t, "before", '0', NULL);
        endless[i].make(&t);
        put_plain(&t, "behind", '0', NULL);
        while (t.bytes.size < ENDLESS_BYTES)
            put_filled(&t, '0', LARGEST);
        int64_t before = __atomic_load_n(&held, __ATOMIC_RELAXED);
        __atomic_store_n(&peak, before, __ATOMIC_RELAXED);
        struct unpacked u = unpack_tar(&t);
        uint64_t most = (uint64_t)(__atomic_load_n(&peak, __ATOMIC_RELAXED) - before);
        if (most > MEMORY_MAX || u.taken > TAKEN_MAX)
            fail_msg("%s: %zu KiB were held, %zu KiB taken", endless[i].what, (size_t)most / 1024,
                     u.taken / 1024);
        expect_refused(&u, "headers of more than 64 KiB");
        expect_refused(&u, endless[i].named);
        assert_string_equal(u.names, "1:before>;");
        assert_true(u.is_between && u.bytes == 1);
    }
}

/* --- What ends ----------------------------------------------------------------------------------
 */

/* Up to the last byte that may be, and not one block more, wherever it begins in the pieces. */
static void test_edge(void **state)
{
    (void)state;
    for (size_t blocks = 0; blocks < 2; blocks++) {
        for (size_t before = 0; before < 3; before++) {
            struct tar t = begin_tar();
            put_filled(&t, '0', before * 33 * KIB);
            put_filled(&t, 'L', TAR_HEADER_BYTES_MAX - 2 * BLOCK + blocks * BLOCK);
            size_t from = t.bytes.size - (TAR_HEADER_BYTES_MAX - 2 * BLOCK + blocks * BLOCK);
            memset(buffer_bytes(&t.bytes) + from + 6, '\0', 1);
            put_plain(&t, "short", '0', NULL);
            put_plain(&t, "behind", '0', NULL);
            end_tar(&t);
            struct unpacked u = unpack_tar(&t);
            if (blocks == 0)
                assert_string_equal(u.names, "1:special>;1:nnnnnn>;1:behind>;");
            else
                expect_refused(&u, "entry 2 ");
        }
    }
}

/* What is skipped of the entry before is no header: a hard link may have content of any size. */
static void test_content_is_no_header(void **state)
{
    struct tar t = begin_tar();

    (void)state;
    put_pax(&t, "comment", "pax", 3);
    put_plain(&t, "f", '0', NULL);
    uint8_t *content = calloc(1, LARGEST);
    assert_non_null(content);
    put(&t, &(struct header){.name = "h",
                             .type = '1',
                             .link = "f",
                             .content = (const char *)content,
                             .size = LARGEST});
    free(content);
    put_filled(&t, '0', LARGEST);
    put_plain(&t, "._mac", '0', NULL);
    end_tar(&t);
    struct unpacked u = unpack_tar(&t);
    assert_string_equal(u.names, "1:f>;4:h>f;1:special>;1:._mac>;");
    assert_int_equal(u.result, 0);
}

/* Files with holes are taken, in each way to write them. */
static void test_holes(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        struct tar t = begin_tar();
        struct buffer records = BUFFER_INIT(LARGEST);
        char content[2 * BLOCK] = "1\n90\n10\n";
        memcpy(content + BLOCK, "behind it\n", 10);
        if (way == 1) {
            add_record(&records, "GNU.sparse.major", "1");
            add_record(&records, "GNU.sparse.minor", "0");
            add_record(&records, "GNU.sparse.realsize", "100");
        } else if (way > 1) {
            add_record(&records, "GNU.sparse.size", "100");
        }
        if (way == 2)
            add_record(&records, "GNU.sparse.map", "90,10");
        if (way == 3) {
            add_record(&records, "GNU.sparse.numblocks", "1");
            add_record(&records, "GNU.sparse.offset", "90");
            add_record(&records, "GNU.sparse.numbytes", "10");
        }
        if (way > 0)
            put_special(&t, 'x', &records);
        put(&t, &(struct header){.name = "holes",
                                 .type = way == 0 ? 'S' : '0',
                                 .is_gnu = way == 0,
                                 .has_hole = way == 0,
                                 .content = way == 1 ? content : content + BLOCK,
                                 .size = way == 1 ? BLOCK + 10 : 10});
        end_tar(&t);
        struct unpacked u = unpack_tar(&t);
        assert_string_equal(u.names, "1:holes>;");
        assert_int_equal(u.result, 0);
        assert_int_equal(u.bytes, 100);
    }
}

/* Zeros behind the end are read, of any number, and not kept. */
static void test_endless_padding(void **state)
{
    struct tar t = begin_tar();
    uint8_t *zeros = calloc(1, LARGEST);

    (void)state;
    assert_non_null(zeros);
    put_plain(&t, "f", '0', NULL);
    while (t.bytes.size < ENDLESS_BYTES)
        assert_int_equal(buffer_append(&t.bytes, zeros, LARGEST), 0);
    free(zeros);
    int64_t before = __atomic_load_n(&held, __ATOMIC_RELAXED);
    __atomic_store_n(&peak, before, __ATOMIC_RELAXED);
    struct unpacked u = unpack_tar(&t);
    assert_true(__atomic_load_n(&peak, __ATOMIC_RELAXED) - before <= (int64_t)MEMORY_MAX);
    assert_int_equal(u.result, 0);
    assert_string_equal(u.names, "1:f>;");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_endless),
        cmocka_unit_test(test_edge),
        cmocka_unit_test(test_content_is_no_header),
        cmocka_unit_test(test_holes),
        cmocka_unit_test(test_endless_padding),
    };

    if (__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) == 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
