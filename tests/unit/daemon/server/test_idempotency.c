/* What is remembered of idempotency keys: replies, refusals, how long and how many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cloche/limits.h"
#include "daemon/server/idempotency.h"

static int set_up(void **state)
{
    struct idempotency_table *t = NULL;
    struct error e = ERROR_INIT;

    assert_int_equal(idempotency_table_new(&t, &e), 0);
    *state = t;
    return 0;
}

static int tear_down(void **state)
{
    idempotency_table_free(*state);
    return 0;
}

static struct idempotency_request request_of(const char *key, const char *body)
{
    struct idempotency_request r = {.method = "POST", .target = "/a", .key = key};

    assert_true(strlen(body) <= sizeof(r.print));
    memcpy(r.print, body, strlen(body));
    return r;
}

/* A claim that must be the first one. */
static struct idempotency_entry *claim(struct idempotency_table *t,
                                       const struct idempotency_request *r, uint64_t now_ms)
{
    struct idempotency_entry *entry = NULL;
    const struct idempotency_reply *reply = NULL;
    struct error e = ERROR_INIT;

    if (idempotency_claim(t, r, now_ms, &entry, &reply, &e) != 0)
        fail_msg("%s", e.message);
    assert_non_null(entry);
    assert_null(reply);
    return entry;
}

static const struct idempotency_reply *replay(struct idempotency_table *t,
                                              const struct idempotency_request *r, uint64_t now_ms)
{
    struct idempotency_entry *entry = NULL;
    const struct idempotency_reply *reply = NULL;
    struct error e = ERROR_INIT;

    if (idempotency_claim(t, r, now_ms, &entry, &reply, &e) != 0)
        fail_msg("%s", e.message);
    assert_null(entry);
    assert_non_null(reply);
    return reply;
}

static void expect_refused(struct idempotency_table *t, const struct idempotency_request *r,
                           enum error_code code, const char *words)
{
    struct idempotency_entry *entry = NULL;
    const struct idempotency_reply *reply = NULL;
    struct error e = ERROR_INIT;

    assert_int_equal(idempotency_claim(t, r, 0, &entry, &reply, &e), -1);
    assert_int_equal(e.code, code);
    if (strstr(e.message, words) == NULL && strstr(e.cause, words) == NULL)
        fail_msg("%s (%s)", e.message, e.cause);
    assert_string_not_equal(e.remedy, "");
}

static void test_a_reply_comes_again(void **state)
{
    struct idempotency_table *t = *state;
    struct idempotency_request r = request_of("k", "body");
    struct idempotency_entry *entry = claim(t, &r, 0);

    expect_refused(t, &r, ERR_CONFLICT, "still running");
    idempotency_keep(t, entry, 0, 201, "text/plain", "made\0it", 7);
    for (unsigned i = 0; i < 3; i++) {
        const struct idempotency_reply *reply = replay(t, &r, 1);
        assert_int_equal(reply->status, 201);
        assert_string_equal(reply->content_type, "text/plain");
        assert_int_equal(reply->size, 7);
        assert_memory_equal(reply->data, "made\0it", 7);
    }
}

static void test_an_empty_reply_is_one(void **state)
{
    struct idempotency_table *t = *state;
    struct idempotency_request r = request_of("k", "");

    idempotency_keep(t, claim(t, &r, 0), 0, 204, NULL, NULL, 0);
    const struct idempotency_reply *reply = replay(t, &r, 0);
    assert_int_equal(reply->status, 204);
    assert_string_equal(reply->content_type, "");
    assert_non_null(reply->data);
    assert_int_equal(reply->size, 0);
}

/* Whatever differs in the name is another key; whatever differs in the request is a mistake. */
static void test_what_tells_requests_apart(void **state)
{
    struct idempotency_table *t = *state;
    const struct idempotency_request r = request_of("k", "body");
    struct idempotency_request names[] = {r, r, r, r};

    names[1].method = "PUT";
    names[2].target = "/b";
    names[3].key = "K";
    for (unsigned i = 0; i < 4; i++) {
        char text[8];
        (void)snprintf(text, sizeof(text), "%u", i);
        idempotency_keep(t, claim(t, &names[i], 0), 0, 200, NULL, text, 1);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(*(const char *)replay(t, &names[i], 0)->data, '0' + i);

    struct idempotency_request other = request_of("k", "bodY");
    expect_refused(t, &other, ERR_IDEMPOTENCY_MISMATCH, "another body");
    other = r;
    other.print[sizeof(other.print) - 1]++;
    expect_refused(t, &other, ERR_IDEMPOTENCY_MISMATCH, "Accept");
}

/* Also while the first one runs: to wait for it would be of no use. */
static void test_another_body_while_it_runs(void **state)
{
    struct idempotency_table *t = *state;
    struct idempotency_request r = request_of("k", "1"), other = request_of("k", "2");
    struct idempotency_entry *entry = claim(t, &r, 0);

    expect_refused(t, &other, ERR_IDEMPOTENCY_MISMATCH, "another body");
    idempotency_forget(t, entry);
    idempotency_forget(t, claim(t, &other, 0));
}

static void test_forgotten_is_new(void **state)
{
    struct idempotency_table *t = *state;
    struct idempotency_request r = request_of("k", "body");

    for (unsigned i = 0; i < 3; i++)
        idempotency_forget(t, claim(t, &r, 0));
}

static void test_spent_keys_are_refused(void **state)
{
    static const struct {
        enum idempotency_waste why;
        const char *words;
    } cases[] = {{IDEMPOTENCY_STREAMED, "stream"},
                 {IDEMPOTENCY_UNKEPT, "too large"},
                 {IDEMPOTENCY_BROKEN_OFF, "broken off"}};
    struct idempotency_table *t = *state;

    for (unsigned i = 0; i < 3; i++) {
        char key[8];
        (void)snprintf(key, sizeof(key), "k%u", i);
        struct idempotency_request r = request_of(key, "body");
        idempotency_spend(t, claim(t, &r, 0), 0, cases[i].why);
        expect_refused(t, &r, ERR_CONFLICT, cases[i].words);
    }
}

static void test_time_is_up(void **state)
{
    struct idempotency_table *t = *state;
    struct idempotency_request first = request_of("1", ""), second = request_of("2", ""),
                               third = request_of("3", "");
    struct idempotency_entry *running = claim(t, &third, 0);

    assert_int_equal(idempotency_expire(t, 0), 0);
    idempotency_keep(t, claim(t, &first, 0), 1000, 200, NULL, "1", 1);
    idempotency_spend(t, claim(t, &second, 0), 2000, IDEMPOTENCY_STREAMED);
    assert_int_equal(idempotency_expire(t, 2000), 1000 + IDEMPOTENCY_KEEP_MS);
    (void)replay(t, &first, 999 + IDEMPOTENCY_KEEP_MS);
    idempotency_forget(t, claim(t, &first, 1000 + IDEMPOTENCY_KEEP_MS));
    expect_refused(t, &second, ERR_CONFLICT, "stream");
    assert_int_equal(idempotency_expire(t, 2000 + IDEMPOTENCY_KEEP_MS), 0);
    idempotency_forget(t, claim(t, &second, 2000 + IDEMPOTENCY_KEEP_MS));
    expect_refused(t, &third, ERR_CONFLICT, "still running"); /* it does not age */
    idempotency_keep(t, running, 10 * IDEMPOTENCY_KEEP_MS, 200, NULL, "3", 1);
    (void)replay(t, &third, 11 * IDEMPOTENCY_KEEP_MS - 1);
}

static void test_too_large_to_keep(void **state)
{
    struct idempotency_table *t = *state;
    struct idempotency_request r = request_of("k", ""), type = request_of("type", "");
    char *large = calloc(1, IDEMPOTENCY_REPLY_MAX + 1);
    char long_type[IDEMPOTENCY_TYPE_BYTES + 1];

    assert_non_null(large);
    idempotency_keep(t, claim(t, &r, 0), 0, 200, NULL, large, IDEMPOTENCY_REPLY_MAX + 1);
    expect_refused(t, &r, ERR_CONFLICT, "too large");
    memset(long_type, 'x', sizeof(long_type));
    long_type[IDEMPOTENCY_TYPE_BYTES] = '\0';
    idempotency_keep(t, claim(t, &type, 0), 0, 200, long_type, "", 0);
    expect_refused(t, &type, ERR_CONFLICT, "too large");
    free(large);
}

static void test_bytes_are_bounded(void **state)
{
    struct idempotency_table *t = *state;
    const unsigned fit = (unsigned)(IDEMPOTENCY_BYTES_MAX / IDEMPOTENCY_REPLY_MAX);
    struct idempotency_request keep_me = request_of("running", "");
    struct idempotency_entry *running = claim(t, &keep_me, 0);
    char *large = calloc(1, IDEMPOTENCY_REPLY_MAX);
    char key[16];

    assert_non_null(large);
    for (unsigned i = 0; i < fit + 2; i++) {
        (void)snprintf(key, sizeof(key), "k%u", i);
        struct idempotency_request r = request_of(key, "");
        idempotency_keep(t, claim(t, &r, 0), 0, 200, NULL, large, IDEMPOTENCY_REPLY_MAX);
    }
    for (unsigned i = 0; i < fit + 2; i++) {
        (void)snprintf(key, sizeof(key), "k%u", i);
        struct idempotency_request r = request_of(key, "");
        if (i < 2)
            idempotency_forget(t, claim(t, &r, 0));
        else
            assert_int_equal(replay(t, &r, 0)->size, IDEMPOTENCY_REPLY_MAX);
    }
    expect_refused(t, &keep_me, ERR_CONFLICT, "still running");
    idempotency_forget(t, running);
    free(large);
}

static void test_entries_are_bounded(void **state)
{
    struct idempotency_table *t = *state;
    struct idempotency_entry **entries = calloc(IDEMPOTENCY_ENTRIES_MAX, sizeof(*entries));
    struct idempotency_request over = request_of("over", ""), first = request_of("k0", "");
    char key[16];

    assert_non_null(entries);
    for (unsigned i = 0; i < IDEMPOTENCY_ENTRIES_MAX; i++) {
        (void)snprintf(key, sizeof(key), "k%u", i);
        struct idempotency_request r = request_of(key, "");
        entries[i] = claim(t, &r, 0);
    }
    /* What runs is never forgotten for another one. */
    expect_refused(t, &over, ERR_NO_CAPACITY, "too many");
    for (unsigned i = 0; i < IDEMPOTENCY_ENTRIES_MAX; i++)
        idempotency_keep(t, entries[i], 0, 200, NULL, "x", 1);
    (void)replay(t, &first, 0);
    idempotency_keep(t, claim(t, &over, 0), 0, 200, NULL, "x", 1);
    idempotency_forget(t, claim(t, &first, 0)); /* the oldest had to go, and now the next */
    (void)replay(t, &over, 0);
    free(entries);
}

static void test_keys_are_judged(void **state)
{
    static const char *const good[] = {
        "a", "8e03978e-40d5-43dd-bc93-6894a57f9324", "A.b_c-9",
        "0123456789012345678901234567890123456789012345678901234567890123"};
    static const char *const bad[] = {
        "",
        "a b",
        "\"a\"",
        "a\xc3\xa4",
        "a,b",
        "a/b",
        "01234567890123456789012345678901234567890123456789012345678901234"};
    struct error e = ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_int_equal(idempotency_check_key(good[i], &e), 0);
    assert_int_equal(e.code, ERR_NONE);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(idempotency_check_key(bad[i], &e), -1);
        assert_int_equal(e.code, ERR_INVALID_FIELD);
        assert_non_null(strstr(e.message, "Idempotency-Key"));
        assert_non_null(strstr(e.remedy, "64"));
    }
}

#define TABLE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TABLE_TEST(test_a_reply_comes_again),
        TABLE_TEST(test_an_empty_reply_is_one),
        TABLE_TEST(test_what_tells_requests_apart),
        TABLE_TEST(test_another_body_while_it_runs),
        TABLE_TEST(test_forgotten_is_new),
        TABLE_TEST(test_spent_keys_are_refused),
        TABLE_TEST(test_time_is_up),
        TABLE_TEST(test_too_large_to_keep),
        TABLE_TEST(test_bytes_are_bounded),
        TABLE_TEST(test_entries_are_bounded),
        cmocka_unit_test(test_keys_are_judged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
