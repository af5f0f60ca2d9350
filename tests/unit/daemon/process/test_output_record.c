/* Output as NDJSON records: text stays text across pieces, bytes survive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/process/output_record.h"

#define TEXT(t) (const uint8_t *)(t), sizeof(t) - 1

/* What a follower of a process gets; the process is made by hand. */
struct fixture {
    struct process process;
    struct process_follower follower;
    struct buffer lines;
};

static void set_up(struct fixture *f)
{
    *f = (struct fixture){.lines = BUFFER_INIT(2 * OUTPUT_RECORD_MAX)};
    f->process.state = PROCESS_RUNNING;
    f->process.references = 1;
    LIST_INIT(&f->process.followers);
    output_ring_init(&f->process.ring, PROCESS_RING_BYTES_MIN);
    process_follow(&f->process, &f->follower, 0);
}

static void tear_down(struct fixture *f)
{
    process_unfollow(&f->follower);
    output_ring_fini(&f->process.ring);
    buffer_fini(&f->lines);
}

static void write_bytes(struct fixture *f, enum exec_output which, const uint8_t *data, size_t size)
{
    assert_int_equal(output_ring_append(&f->process.ring, which, data, size), 0);
}

/* All records that there are now. */
static void expect(struct fixture *f, const char *wanted)
{
    int result;

    while ((result = output_record_append(&f->lines, &f->follower)) == 1)
        continue;
    assert_int_equal(result, 0);
    assert_int_equal(buffer_append(&f->lines, "", 1), 0);
    assert_string_equal((const char *)buffer_bytes(&f->lines), wanted);
    buffer_consume(&f->lines, f->lines.size);
}

static void test_text_and_bytes(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f);
    expect(&f, "");
    write_bytes(&f, EXEC_STDOUT, TEXT("a\"\n"));
    write_bytes(&f, EXEC_STDERR, TEXT("a\0b"));
    write_bytes(&f, EXEC_STDOUT, TEXT("\xff\xfe"));
    expect(&f, "{\"type\":\"stdout\",\"offset\":0,\"data\":\"a\\\"\\n\"}\n"
               "{\"type\":\"stderr\",\"offset\":3,\"data_base64\":\"YQBi\"}\n"
               "{\"type\":\"stdout\",\"offset\":6,\"data_base64\":\"//4=\"}\n");
    tear_down(&f);
}

/* Every way to cut a text of one- to four-byte characters in two gives text, and all of it. */
static void test_characters_across_pieces(void **state)
{
    static const uint8_t text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";
    size_t size = sizeof(text) - 1;

    (void)state;
    for (size_t cut = 1; cut < size; cut++) {
        struct fixture f;

        set_up(&f);
        write_bytes(&f, EXEC_STDOUT, text, cut);
        while (output_record_append(&f.lines, &f.follower) == 1)
            continue;
        write_bytes(&f, EXEC_STDOUT, text + cut, size - cut);
        while (output_record_append(&f.lines, &f.follower) == 1)
            continue;
        assert_int_equal(buffer_append(&f.lines, "", 1), 0);
        assert_null(strstr((const char *)buffer_bytes(&f.lines), "base64"));
        assert_int_equal(f.follower.offset, size);
        tear_down(&f);
    }
}

static void test_half_a_character(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f);
    write_bytes(&f, EXEC_STDOUT, TEXT("ok\xe2\x82"));
    expect(&f, "{\"type\":\"stdout\",\"offset\":0,\"data\":\"ok\"}\n");
    /* The other output goes on behind it: its rest is not to come at this place. */
    write_bytes(&f, EXEC_STDERR, TEXT("x\xe2"));
    expect(&f, "{\"type\":\"stdout\",\"offset\":2,\"data_base64\":\"4oI=\"}\n"
               "{\"type\":\"stderr\",\"offset\":4,\"data\":\"x\"}\n");
    f.process.state = PROCESS_ENDED;
    expect(&f, "{\"type\":\"stderr\",\"offset\":5,\"data_base64\":\"4g==\"}\n");
    tear_down(&f);
}

/* What cannot become a character is not held back; what can is, up to three bytes of it. */
static void test_what_is_held_back(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f);
    write_bytes(&f, EXEC_STDOUT, TEXT("\xff"));
    expect(&f, "{\"type\":\"stdout\",\"offset\":0,\"data_base64\":\"/w==\"}\n");
    write_bytes(&f, EXEC_STDOUT, TEXT("\x80\x80\x80\x80"));
    expect(&f, "{\"type\":\"stdout\",\"offset\":1,\"data_base64\":\"gICAgA==\"}\n");
    write_bytes(&f, EXEC_STDOUT, TEXT("\xf0\x9f\x98"));
    expect(&f, "");
    write_bytes(&f, EXEC_STDOUT, TEXT("\x80"));
    expect(&f, "{\"type\":\"stdout\",\"offset\":5,\"data\":\"\xf0\x9f\x98\x80\"}\n");
    tear_down(&f);
}

static void test_missed(void **state)
{
    static uint8_t block[PROCESS_RING_BYTES_MIN];
    struct fixture f;

    (void)state;
    set_up(&f);
    f.process.is_background = true;
    memset(block, 'x', sizeof(block));
    write_bytes(&f, EXEC_STDOUT, TEXT("gone"));
    write_bytes(&f, EXEC_STDOUT, block, sizeof(block));
    assert_int_equal(output_record_append(&f.lines, &f.follower), 1);
    assert_int_equal(buffer_append(&f.lines, "", 1), 0);
    assert_string_equal((const char *)buffer_bytes(&f.lines),
                        "{\"type\":\"missed\",\"offset\":0,\"bytes\":4}\n");
    assert_int_equal(f.follower.offset, 4);
    tear_down(&f);
}

static void test_a_piece_of_control_characters_fits(void **state)
{
    static uint8_t ones[OUTPUT_PIECE_BYTES + 1];
    struct fixture f;

    (void)state;
    set_up(&f);
    f.lines.size_max = OUTPUT_RECORD_MAX;
    memset(ones, 1, sizeof(ones));
    write_bytes(&f, EXEC_STDERR, ones, sizeof(ones));
    f.follower.offset = 0;
    assert_int_equal(output_record_append(&f.lines, &f.follower), 1);
    assert_int_equal(f.follower.offset, OUTPUT_PIECE_BYTES);
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_and_bytes),
        cmocka_unit_test(test_characters_across_pieces),
        cmocka_unit_test(test_half_a_character),
        cmocka_unit_test(test_what_is_held_back),
        cmocka_unit_test(test_missed),
        cmocka_unit_test(test_a_piece_of_control_characters_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
