/* The API's calls about files but for their content, against an agent that may say anything. */
#include "api_fixture.h"

#include <sys/stat.h>

#define FILES "/v1/sandboxes/sb_1/files"

/* --- the agent's side ---------------------------------------------------------------------------
 */

static struct wire_reader take_request(struct fixture *f, uint16_t op, uint32_t *ret_stream)
{
    struct wire_reader r;

    *ret_stream = take_open(f);
    wire_reader_init(&r, f->frame.payload, f->frame.h.length);
    assert_int_equal(wire_get_u16(&r), op);
    return r;
}

static uint32_t take_change(struct fixture *f, uint32_t change, uint32_t flags, uint32_t mode,
                            const char *path, const char *other)
{
    uint32_t s;
    struct wire_reader r = take_request(f, CHANNEL_OP_CHANGE, &s);

    assert_int_equal(wire_get_u32(&r), change);
    assert_int_equal(wire_get_u32(&r), flags);
    assert_int_equal(wire_get_u32(&r), mode);
    assert_string_equal(next_string(&r), path);
    assert_string_equal(next_string(&r), other);
    assert_true(!r.bad && r.left == 0);
    return s;
}

static void put_record(struct wire_writer *w, uint32_t mode, const char *name, const char *target)
{
    wire_put_u32(w, mode);
    wire_put_u64(w, 7);
    wire_put_u32(w, 0);
    wire_put_u32(w, 0);
    wire_put_u64(w, 1700000000);
    wire_put_u32(w, 5);
    wire_put_string(w, name, strlen(name));
    wire_put_string(w, target, strlen(target));
}

static void send_end(struct fixture *f, uint32_t s, uint64_t bytes, uint32_t flags)
{
    uint8_t payload[32];
    struct wire_writer w;

    wire_writer_init(&w, payload, sizeof(payload));
    wire_put_u32(&w, 0);
    wire_put_string(&w, "", 0);
    wire_put_u64(&w, bytes);
    wire_put_u32(&w, flags);
    fake_send(&f->agent, CHANNEL_EOF, s, CHANNEL_LANE_IN, NULL, 0);
    fake_send(&f->agent, CHANNEL_END, s, 0, payload, w.used);
}

/* INFO, the bytes in two frames cut in the middle, EOF and END. */
static void serve(struct fixture *f, uint32_t s, const uint8_t *bytes, size_t size, uint32_t flags)
{
    size_t half = size / 2;

    fake_send(&f->agent, CHANNEL_INFO, s, 0, NULL, 0);
    if (half > 0)
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, bytes, half);
    if (size > 0)
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, bytes + half, size - half);
    send_end(f, s, size, flags);
}

static void serve_names(struct fixture *f, uint32_t s, const char *const *names, uint32_t flags)
{
    static uint8_t bytes[16384];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    for (; *names != NULL; names++)
        put_record(&w, S_IFREG | 0644, *names, "");
    serve(f, s, bytes, w.used, flags);
}

static void get(struct fixture *f, const char *target)
{
    request(f, "GET", target, NULL, "", 0);
}

/* --- stat, list, search -------------------------------------------------------------------------
 */

static void test_stat(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[256];
    struct wire_writer w;
    uint32_t s;

    get(f, FILES "/stat?path=/a%20b/");
    struct wire_reader r = take_request(f, CHANNEL_OP_STAT, &s);
    assert_int_equal(wire_get_u32(&r), 0);
    assert_string_equal(next_string(&r), "/a b");
    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u32(&w, 0); /* at work */
    put_record(&w, S_IFLNK | 0777, "", "there");
    serve(f, s, bytes, w.used, 0);
    cJSON *tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "path"), "/a b");
    assert_string_equal(json_text(tree, "type"), "symlink");
    assert_string_equal(json_text(tree, "target"), "there");
    assert_string_equal(json_text(tree, "mtime"), "2023-11-14T22:13:20.000000005Z");
    assert_int_equal(json_number(tree, "size"), 7);
    cJSON_Delete(tree);

    get(f, FILES "/stat?path=/%ff&follow=true");
    r = take_request(f, CHANNEL_OP_STAT, &s);
    assert_int_equal(wire_get_u32(&r), CHANNEL_STAT_FOLLOW);
    assert_string_equal(next_string(&r), "/\xff");
    fake_failed(&f->agent, s, ENOENT, "");
    expect_error(f, 404, "file_not_found", "look at");

    get(f, FILES "/stat?path=/");
    r = take_request(f, CHANNEL_OP_STAT, &s);
    (void)wire_get_u32(&r);
    assert_string_equal(next_string(&r), "/");
}

static void test_list(void **state)
{
    static const char *const names[] = {"b", "c\xff", NULL};
    static const char *const none[] = {NULL};
    struct fixture *f = *state;
    uint32_t s;

    get(f, FILES "/list?path=/d&limit=2&after=a%ff");
    struct wire_reader r = take_request(f, CHANNEL_OP_LIST, &s);
    assert_int_equal(wire_get_u32(&r), 2);
    assert_string_equal(next_string(&r), "a\xff");
    assert_string_equal(next_string(&r), "/d");
    serve_names(f, s, names, CHANNEL_END_MORE);
    cJSON *tree = reply_json(f, 200);
    const cJSON *entries = cJSON_GetObjectItemCaseSensitive(tree, "entries");
    assert_int_equal(cJSON_GetArraySize(entries), 2);
    assert_string_equal(json_text(cJSON_GetArrayItem(entries, 0), "name"), "b");
    assert_string_equal(json_text(cJSON_GetArrayItem(entries, 1), "name_base64"), "Y/8=");
    assert_string_equal(json_text(tree, "next_base64"), "Y/8=");
    cJSON_Delete(tree);

    get(f, FILES "/list?path=/d");
    r = take_request(f, CHANNEL_OP_LIST, &s);
    assert_int_equal(wire_get_u32(&r), FILE_LIST_LIMIT_MAX);
    serve_names(f, s, none, 0);
    tree = reply_json(f, 200);
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(tree, "next")));
    cJSON_Delete(tree);
}

static void test_search(void **state)
{
    static const char *const names[] = {"/d/x.py", "/d/a/y.py", NULL};
    struct fixture *f = *state;
    uint32_t s;

    get(f, FILES "/search?path=/d&pattern=**/*.py");
    struct wire_reader r = take_request(f, CHANNEL_OP_SEARCH, &s);
    assert_int_equal(wire_get_u32(&r), FILE_SEARCH_LIMIT);
    assert_string_equal(next_string(&r), "/d");
    assert_string_equal(next_string(&r), "**/*.py");
    serve_names(f, s, names, CHANNEL_END_MORE);
    cJSON *tree = reply_json(f, 200);
    const cJSON *entries = cJSON_GetObjectItemCaseSensitive(tree, "entries");
    assert_int_equal(cJSON_GetArraySize(entries), 2);
    assert_string_equal(json_text(cJSON_GetArrayItem(entries, 1), "path"), "/d/a/y.py");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(tree, "truncated")));
    cJSON_Delete(tree);
}

/* Records that are none, or not what was asked for: the sandbox is at fault and ends. */
static void test_hostile_records(void **state)
{
    static const struct {
        const char *target;
        const char *names[4];
        uint32_t flags;
    } cases[] = {
        {FILES "/stat?path=/a", {NULL}, 0},
        {FILES "/stat?path=/a", {"x", NULL}, 0},
        {FILES "/stat?path=/a", {"", "", NULL}, 0},
        {FILES "/list?path=/a&limit=2", {"a", "b", "c", NULL}, 0},
        {FILES "/list?path=/a", {"b", "a", NULL}, 0},
        {FILES "/list?path=/a", {"../x", NULL}, 0},
        {FILES "/list?path=/a&after=k", {"k", NULL}, 0},
        {FILES "/list?path=/a", {NULL}, CHANNEL_END_MORE},
        {FILES "/search?path=/a&pattern=*", {"x", NULL}, 0},
        {FILES "/search?path=/a&pattern=*&limit=1", {"/x", "/y", NULL}, 0},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        get(f, cases[i].target);
        serve_names(f, take_open(f), cases[i].names, cases[i].flags);
        expect_error(f, 410, "sandbox_gone", "protocol");
        turn(f);
        assert_false(f->sandbox.alive);
        give_agent(f);
    }
    /* Cut in the middle of a record. */
    get(f, FILES "/list?path=/a");
    serve(f, take_open(f), (const uint8_t *)"\0\x80\0\0more", 8, 0);
    expect_error(f, 410, "sandbox_gone", "protocol");
    give_agent(f);
    /* Flags that nobody knows break the link in END itself. */
    get(f, FILES "/list?path=/a");
    serve(f, take_open(f), NULL, 0, 0x80);
    expect_error(f, 410, "sandbox_gone", "/a");
}

/* A guest that never stops talking is cut off, whatever credit it has. */
static void test_endless_records(void **state)
{
    static const uint8_t marks[32 * KIB];
    struct fixture *f = *state;
    uint64_t credit = CHANNEL_WINDOW_BYTES, sent = 0;

    get(f, FILES "/list?path=/a");
    uint32_t s = take_open(f);
    fake_send(&f->agent, CHANNEL_INFO, s, 0, NULL, 0);
    while (reply_status(f) == 0) {
        while (fake_recv(&f->agent, &f->frame))
            if (f->frame.h.type == CHANNEL_CREDIT)
                credit += credit_of(&f->frame);
        if (credit < sizeof(marks))
            continue;
        fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, marks, sizeof(marks));
        credit -= sizeof(marks);
        sent += sizeof(marks);
        assert_true(sent <= FILE_RECORDS_BYTES_MAX + CHANNEL_WINDOW_BYTES + sizeof(marks));
    }
    expect_error(f, 410, "sandbox_gone", "protocol");
    assert_true(sent > FILE_RECORDS_BYTES_MAX);
}

/* What comes and what is made of it count among the bytes of all replies. */
static void test_replies_are_bounded(void **state)
{
    static const char *const names[] = {"a", "b", NULL};
    static const uint64_t lefts[] = {0, 100, 250};
    struct fixture *f = *state;
    uint32_t s;

    for (size_t i = 0; i < sizeof(lefts) / sizeof(lefts[0]); i++) {
        const uint64_t others = HTTP_REPLIES_BYTES_MAX - lefts[i];

        f->budget.replies.bytes = others;
        get(f, FILES "/list?path=/d");
        (void)take_request(f, CHANNEL_OP_LIST, &s);
        serve_names(f, s, names, 0);
        expect_error(f, 503, "no_capacity", "replies");
        fd_close(&f->client_fd);
        fake_spin(&f->agent);
        assert_int_equal(f->budget.replies.bytes, others);
        while (fake_recv(&f->agent, &f->frame))
            continue;
    }
    f->budget.replies.bytes = HTTP_REPLIES_BYTES_MAX - 1000;
    get(f, FILES "/list?path=/d");
    (void)take_request(f, CHANNEL_OP_LIST, &s);
    serve_names(f, s, names, 0);
    cJSON_Delete(reply_json(f, 200));
    fd_close(&f->client_fd);
    fake_spin(&f->agent);
    f->budget.replies.bytes -= HTTP_REPLIES_BYTES_MAX - 1000;
    assert_int_equal(f->budget.replies.bytes, 0);
}

static void test_bad_queries(void **state)
{
    static const struct {
        const char *method, *target;
        const char *code;
    } cases[] = {
        {"GET", FILES "/stat", "invalid_path"},
        {"GET", FILES "/stat?path=", "invalid_path"},
        {"GET", FILES "/stat?path=a", "invalid_path"},
        {"GET", FILES "/stat?path=/a/../b", "invalid_path"},
        {"GET", FILES "/stat?path=/a%00", "bad_request"},
        {"GET", FILES "/stat?path=/a&follow=1", "invalid_field"},
        {"GET", FILES "/stat?path=/a&folow=true", "unknown_field"},
        {"GET", FILES "/list?path=/a&limit=0", "invalid_field"},
        {"GET", FILES "/list?path=/a&limit=1001", "invalid_field"},
        {"GET", FILES "/list?path=/a&limit=-1", "invalid_field"},
        {"GET", FILES "/list?path=/a&limit=4294967297", "invalid_field"},
        {"GET", FILES "/list?path=/a&limit=", "invalid_field"},
        {"GET", FILES "/list?path=/a&limit=5x", "invalid_field"},
        {"GET", FILES "/search?path=/a", "invalid_field"},
        {"GET", FILES "/search?path=/a&pattern=", "invalid_field"},
        {"GET", FILES "/search?path=/a&pattern=/x", "invalid_field"},
        {"GET", FILES "/search?path=/a&pattern=*&limit=10001", "invalid_field"},
        {"DELETE", FILES, "invalid_path"},
        {"DELETE", FILES "?path=/a&recursive=yes", "invalid_field"},
        {"DELETE", FILES "?path=/a&force=true", "unknown_field"},
        {"POST", FILES "/mkdir?path=/a", "unknown_field"},
    };
    struct fixture *f = *state;
    char target[5000];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        request(f, cases[i].method, cases[i].target, NULL, "", 0);
        expect_error(f, 400, cases[i].code, "");
        assert_false(fake_recv(&f->agent, &f->frame));
    }
    (void)snprintf(target, sizeof(target), FILES "/list?path=/a&after=%0256d", 1);
    get(f, target);
    expect_error(f, 400, "invalid_field", "after");
    get(f, "/v1/sandboxes/sb_9/files/stat?path=/a");
    expect_error(f, 404, "sandbox_not_found", "sb_9");
}

/* --- changes ------------------------------------------------------------------------------------
 */

/* Whatever a call does with its path: it begins as all do, and the guest hears nothing. */
static void test_every_call_begins_alike(void **state)
{
    static const char *const calls[][2] = {
        {"PUT", "files"},        {"GET", "files"},      {"DELETE", "files"},
        {"GET", "files/stat"},   {"GET", "files/list"}, {"GET", "files/watch"},
        {"GET", "files/search"}, {"GET", "files/tar"},  {"PUT", "files/tar"},
    };
    static const struct {
        const char *sandbox, *query;
        int status;
        const char *code, *words;
    } cases[] = {
        {"sb_1", "", 400, "invalid_path", "no path"},
        {"sb_1", "?path=", 400, "invalid_path", "empty"},
        {"sb_1", "?path=a", 400, "invalid_path", "not absolute"},
        {"sb_1", "?path=/a/../b", 400, "invalid_path", "'..'"},
        {"sb_1", "?path=/a&nonsense=1", 400, "unknown_field", "nonsense"},
        {"sb_1", "?path=/a&path=/a", 400, "invalid_field", "path"},
        {"sb_2", "?path=/a", 404, "sandbox_not_found", "sb_2"},
    };
    struct fixture *f = *state;
    char target[128];

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
            (void)snprintf(target, sizeof(target), "/v1/sandboxes/%s/%s%s", cases[k].sandbox,
                           calls[i][1], cases[k].query);
            request(f, calls[i][0], target, NULL, "", 0);
            expect_error(f, cases[k].status, cases[k].code, cases[k].words);
        }
    }
    assert_false(fake_recv(&f->agent, &f->frame));
}

static void test_changes(void **state)
{
    struct fixture *f = *state;

    request_json(f, FILES "/mkdir", NULL, "{\"path\":\"/d/e/\"}");
    serve(f, take_change(f, CHANNEL_CHANGE_MKDIR, CHANNEL_CHANGE_PARENTS, 0755, "/d/e", ""), NULL,
          0, 0);
    cJSON *tree = reply_json(f, 201);
    assert_string_equal(json_text(tree, "path"), "/d/e");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(tree, "created")));
    cJSON_Delete(tree);

    request_json(f, FILES "/mkdir", NULL, "{\"path\":\"/d\",\"mode\":\"0700\"}");
    serve(f, take_change(f, CHANNEL_CHANGE_MKDIR, CHANNEL_CHANGE_PARENTS, 0700, "/d", ""), NULL, 0,
          CHANNEL_END_EXISTED);
    tree = reply_json(f, 200);
    assert_true(cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(tree, "created")));
    cJSON_Delete(tree);

    request_json(f, FILES "/mkdir", NULL, "{\"path\":\"/d\",\"parents\":false}");
    fake_failed(&f->agent, take_change(f, CHANNEL_CHANGE_MKDIR, 0, 0755, "/d", ""), EEXIST, "x");
    expect_error(f, 409, "file_exists", "make the directory \"/d\"");

    request_json(f, FILES "/rename", NULL, "{\"from\":\"/a\",\"to_base64\":\"L/8=\"}");
    serve(f, take_change(f, CHANNEL_CHANGE_RENAME, 0, 0, "/a", "/\xff"), NULL, 0, 0);
    tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "from"), "/a");
    assert_string_equal(json_text(tree, "to_base64"), "L/8=");
    cJSON_Delete(tree);

    request_json(f, FILES "/rename", NULL, "{\"from\":\"/a\",\"to\":\"/b\",\"overwrite\":true}");
    fake_failed(&f->agent,
                take_change(f, CHANNEL_CHANGE_RENAME, CHANNEL_CHANGE_OVERWRITE, 0, "/a", "/b"),
                EXDEV, "");
    expect_error(f, 422, "file_refused", "rename \"/a\"");

    request_json(f, FILES "/chmod", NULL, "{\"path\":\"/a\",\"mode\":\"4711\"}");
    serve(f, take_change(f, CHANNEL_CHANGE_CHMOD, 0, 04711, "/a", ""), NULL, 0, 0);
    tree = reply_json(f, 200);
    assert_string_equal(json_text(tree, "mode"), "4711");
    cJSON_Delete(tree);

    request_json(f, FILES "/symlink", NULL, "{\"path\":\"/l\",\"target\":\"../x\"}");
    serve(f, take_change(f, CHANNEL_CHANGE_SYMLINK, 0, 0, "/l", "../x"), NULL, 0, 0);
    cJSON_Delete(reply_json(f, 201));
}

static void test_remove(void **state)
{
    struct fixture *f = *state;

    request(f, "DELETE", FILES "?path=/a%ff", NULL, "", 0);
    serve(f, take_change(f, CHANNEL_CHANGE_REMOVE, 0, 0, "/a\xff", ""), NULL, 0, 0);
    assert_int_equal(reply_status(f), 204);
    request(f, "DELETE", FILES "?path=/d", NULL, "", 0);
    fake_failed(&f->agent, take_change(f, CHANNEL_CHANGE_REMOVE, 0, 0, "/d", ""), ENOTEMPTY, "");
    expect_error(f, 409, "directory_not_empty", "/d");
    assert_non_null(strstr(reply_body(f), "recursive=true"));
    request(f, "DELETE", FILES "?path=/d&recursive=true", NULL, "", 0);
    uint32_t s = take_change(f, CHANNEL_CHANGE_REMOVE, CHANNEL_CHANGE_TREE, 0, "/d", "");
    fake_send(&f->agent, CHANNEL_INFO, s, 0, NULL, 0);
    fake_send(&f->agent, CHANNEL_DATA, s, CHANNEL_LANE_IN, "\0\0\0", 4);
    /* A client that leaves stops it. */
    fd_close(&f->client_fd);
    turn(f);
    assert_true(fake_expect(&f->agent, CHANNEL_RESET, &f->frame));
    assert_true(f->sandbox.alive);
}

static void test_bad_bodies(void **state)
{
    static const struct {
        const char *call, *body;
        const char *code;
    } cases[] = {
        {"mkdir", "{}", "invalid_field"},
        {"mkdir", "[]", "invalid_json"},
        {"mkdir", "{\"path\":7}", "invalid_field"},
        {"mkdir", "{\"path\":\"a\"}", "invalid_path"},
        {"mkdir", "{\"path\":\"/a/../b\"}", "invalid_path"},
        {"mkdir", "{\"path\":\"/a\",\"mode\":\"0999\"}", "invalid_field"},
        {"mkdir", "{\"path\":\"/a\",\"mode\":493}", "invalid_field"},
        {"mkdir", "{\"path\":\"/a\",\"recursive\":true}", "unknown_field"},
        {"mkdir", "{\"path\":\"/a\",\"path_base64\":\"L2E=\"}", "invalid_field"},
        {"mkdir", "{\"path_base64\":\"L2E\"}", "invalid_field"},
        {"mkdir", "{\"path_base64\":\"L2EAYg==\"}", "invalid_path"}, /* "/a\0b" */
        {"rename", "{\"from\":\"/a\"}", "invalid_field"},
        {"rename", "{\"from\":\"/a\",\"to\":\"b\"}", "invalid_path"},
        {"chmod", "{\"path\":\"/a\"}", "invalid_field"},
        {"chmod", "{\"path\":\"/a\",\"mode\":\"rwx\"}", "invalid_field"},
        {"chmod", "{\"path\":\"/a\",\"mode\":\"10000\"}", "invalid_field"},
        {"symlink", "{\"path\":\"/a\",\"target\":\"\"}", "invalid_field"},
        {"symlink", "{\"path\":\"/a\",\"target_base64\":\"AA==\"}", "invalid_field"},
        {"symlink", "{\"target\":\"/a\"}", "invalid_field"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char target[128];

        (void)snprintf(target, sizeof(target), FILES "/%s", cases[i].call);
        request_json(f, target, NULL, cases[i].body);
        expect_error(f, 400, cases[i].code, "");
        assert_false(fake_recv(&f->agent, &f->frame));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        API_TEST(test_stat),
        API_TEST(test_list),
        API_TEST(test_search),
        API_TEST(test_hostile_records),
        API_TEST(test_endless_records),
        API_TEST(test_replies_are_bounded),
        API_TEST(test_bad_queries),
        API_TEST(test_every_call_begins_alike),
        API_TEST(test_changes),
        API_TEST(test_remove),
        API_TEST(test_bad_bodies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
