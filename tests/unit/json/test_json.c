/* The strict JSON parser, reading fields by table, and the writer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/utf8.h"
#include "cloche/limits.h"
#include "json/json.h"
#include "json/json_write.h"

#define TEXT(t)  (t), sizeof(t) - 1
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Parses from memory of the exact size. */
static int parse(const char *text, size_t size, cJSON **ret_tree, struct error *e)
{
    char *copy = malloc(size > 0 ? size : 1);

    assert_non_null(copy);
    memcpy(copy, text, size);
    int result = json_parse(copy, size, ret_tree, e);
    free(copy);
    return result;
}

static void good_texts_are_taken(void **state)
{
    static const struct {
        const char *text;
        size_t size;
    } cases[] = {
        {TEXT("{}")},
        {TEXT("[]")},
        {TEXT(" \t\r\n{ \"a\" : [ 1 , -2.5e+3 , true , false , null , \"x\" ] } \n")},
        {TEXT("0")},
        {TEXT("-0")},
        {TEXT("1E5")},
        {TEXT("true")},
        {TEXT("null")},
        {TEXT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\uD83D\\ude00\"")},
        {TEXT("\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\x7f\"")},
        {TEXT("[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]")},
        {TEXT("{\"a\":{\"a\":1},\"A\":2,\"b\":[{\"a\":1},{\"a\":1}]}")},
        {TEXT("[9007199254740991,1e308]")},
        {TEXT("{\"\":1}")},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        cJSON *tree = NULL, *half = NULL;
        struct error e = ERROR_INIT;

        if (parse(cases[i].text, cases[i].size, &tree, &e) != 0)
            fail_msg("case %zu: %s", i, e.message);
        json_free(&tree);
        /* No cut text of an object, array or string is JSON. */
        for (size_t size = 0; size < cases[i].size && strchr("[{\"", cases[i].text[0]); size++) {
            struct error cut = ERROR_INIT;
            assert_int_equal(parse(cases[i].text, size, &half, &cut), -1);
            assert_int_equal(cut.code, ERR_INVALID_JSON);
        }
    }
}

/* The first and the last character of each form. */
static void escapes_are_characters(void **state)
{
    cJSON *tree = NULL;
    struct error e = ERROR_INIT;

    (void)state;
    assert_int_equal(parse(TEXT("\"\\u0001\\u007F\\u0080\\u07ff\\u0800\\ud7ff\\ue000\\uffff"
                                "\\ud800\\udc00\\uDBFF\\uDFFF\""),
                           &tree, &e),
                     0);
    assert_string_equal(tree->valuestring, "\x01\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf"
                                           "\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80"
                                           "\xf4\x8f\xbf\xbf");
    json_free(&tree);
}

static const struct {
    const char *text;
    size_t size;
} hostile_texts[] = {
    {TEXT("")},
    {TEXT(" ")},
    {TEXT("{")},
    {TEXT("{} {}")},
    {TEXT("{}\0")},
    {TEXT("\0{}")},
    {TEXT("\xef\xbb\xbf{}")},
    {TEXT("{\"a\":1,}")},
    {TEXT("{,}")},
    {TEXT("{\"a\"}")},
    {TEXT("{\"a\" 1}")},
    {TEXT("{a:1}")},
    {TEXT("{'a':1}")},
    {TEXT("{1:1}")},
    {TEXT("[1,]")},
    {TEXT("[,1]")},
    {TEXT("[1 2]")},
    {TEXT("[1}")},
    {TEXT("{\"a\":1]")},
    {TEXT("]")},
    {TEXT("01")},
    {TEXT("1.")},
    {TEXT(".5")},
    {TEXT("+1")},
    {TEXT("-")},
    {TEXT("1e")},
    {TEXT("1e+")},
    {TEXT("0x10")},
    {TEXT("1e999")},
    {TEXT("1.7976931348623157e308")},
    {TEXT("-1e999")},
    {TEXT("NaN")},
    {TEXT("Infinity")},
    {TEXT("True")},
    {TEXT("nul")},
    {TEXT("truex")},
    {TEXT("12345678901234567890123456789012345678901")},
    {TEXT("\"\\u0000\"")},
    {TEXT("\"a\0b\"")},
    {TEXT("\"\\ud800\"")},
    {TEXT("\"\\udc00\"")},
    {TEXT("\"\\udfff\"")},
    {TEXT("\"\\ud800\\udbff\"")},
    {TEXT("\"\\ud800\\ue000\"")},
    {TEXT("\"\\ud800\\ud800\"")},
    {TEXT("\"\\ud800x\"")},
    {TEXT("\"\\ud800\\n\"")},
    {TEXT("\"\\udc00\\ud800\"")},
    {TEXT("\"\\u12g4\"")},
    {TEXT("\"\\u12\"")},
    {TEXT("\"\\x41\"")},
    {TEXT("\"\\\0\"")},
    {TEXT("\"\\")},
    {TEXT("\"\n\"")},
    {TEXT("\"\t\"")},
    {TEXT("\"\x01\"")},
    {TEXT("\"\xff\"")},
    {TEXT("\"\xc0\x80\"")},
    {TEXT("\"\xed\xa0\x80\"")},
    {TEXT("\"\xf4\x90\x80\x80\"")},
    {TEXT("\"\xe2\x82\"")},
    {TEXT("{\"\xff\":1}")},
    {TEXT("[1] // comment")},
    {TEXT("[1\x0b]")},
    {TEXT("[1\xc2\xa0]")},
    {TEXT("[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]")},
    {TEXT("{\"a\":1,\"a\":1}")},
    {TEXT("{\"a\":1,\"b\":2,\"\\u0061\":3}")},
    {TEXT("[{\"x\":{\"k\":1,\"j\":{},\"k\":2}}]")},
};

static void hostile_texts_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(hostile_texts); i++) {
        cJSON *tree = NULL;
        struct error e = ERROR_INIT;

        if (parse(hostile_texts[i].text, hostile_texts[i].size, &tree, &e) == 0)
            fail_msg("case %zu was taken: %s", i, hostile_texts[i].text);
        assert_int_equal(e.code, ERR_INVALID_JSON);
        assert_null(tree);
    }
}

static void node_count_is_bounded(void **state)
{
    static char text[2 * JSON_NODES_MAX + 16];
    cJSON *tree = NULL;
    struct error e = ERROR_INIT;

    (void)state;
    for (size_t values = JSON_NODES_MAX - 1; values <= JSON_NODES_MAX; values++) {
        size_t at = 0;
        text[at++] = '[';
        for (size_t i = 0; i < values; i++) {
            text[at++] = '1';
            text[at++] = i + 1 < values ? ',' : ']';
        }
        bool fits = values < JSON_NODES_MAX; /* the array is one, too */
        assert_int_equal(parse(text, at, &tree, &e), fits ? 0 : -1);
        json_free(&tree);
    }
    /* As many keys as there can be, all different, do not take long. */
    static char keys[JSON_NODES_MAX * 12];
    size_t at = 0;
    for (size_t i = 0; i < JSON_NODES_MAX - 1; i++)
        at += (size_t)snprintf(keys + at, sizeof(keys) - at, "%c\"%05x\":1", i ? ',' : '{',
                               (unsigned)i);
    keys[at++] = '}';
    assert_int_equal(parse(keys, at, &tree, &e), 0);
    json_free(&tree);
}

struct request {
    const char *name;
    bool warm;
    int64_t count;
    double factor;
    const cJSON *network;
    const cJSON *files;
    const cJSON *argv;
    const cJSON *env;
};

static const struct json_field fields[] = {
    {"name", JSON_STRING, true, 1, 8, 0, offsetof(struct request, name)},
    {"warm", JSON_BOOL, false, 0, 0, 0, offsetof(struct request, warm)},
    {"count", JSON_INTEGER, false, -5, JSON_INTEGER_MAX, 0, offsetof(struct request, count)},
    {"factor", JSON_NUMBER, false, 1, 64, 0, offsetof(struct request, factor)},
    {"network", JSON_OBJECT, false, 0, 0, 0, offsetof(struct request, network)},
    {"files", JSON_ARRAY, false, 0, 2, 0, offsetof(struct request, files)},
    {"argv", JSON_STRINGS, false, 1, 3, 4, offsetof(struct request, argv)},
    {"env", JSON_MAP, false, 0, 2, 4, offsetof(struct request, env)},
};

static int read_fields(const char *text, struct request *r, cJSON **ret_tree, struct error *e)
{
    assert_int_equal(json_parse_object(text, strlen(text), ret_tree, e), 0);
    return json_read(*ret_tree, "", fields, COUNT(fields), r, e);
}

static void fields_are_read(void **state)
{
    struct request r = {.count = 7};
    cJSON *tree = NULL;
    struct error e = ERROR_INIT;

    (void)state;
    if (read_fields("{\"name\":\"abc\",\"warm\":true,\"network\":{},\"files\":[1,2],"
                    "\"argv\":[\"ls\",\"\"],\"env\":{\"A\":\"b\"}}",
                    &r, &tree, &e) != 0)
        fail_msg("%s", e.message);
    assert_string_equal(r.name, "abc");
    assert_true(r.warm);
    assert_int_equal(r.count, 7);
    assert_true(cJSON_IsObject(r.network));
    assert_int_equal(cJSON_GetArraySize(r.files), 2);
    assert_string_equal(r.argv->child->valuestring, "ls");
    assert_string_equal(r.env->child->string, "A");
    json_free(&tree);
    assert_int_equal(read_fields("{\"name\":\"a\",\"count\":9007199254740991}", &r, &tree, &e), 0);
    assert_int_equal(r.count, JSON_INTEGER_MAX);
    json_free(&tree);
    assert_int_equal(read_fields("{\"name\":\"a\",\"count\":-5.0e0}", &r, &tree, &e), 0);
    assert_int_equal(r.count, -5);
    json_free(&tree);
    assert_int_equal(read_fields("{\"name\":\"a\",\"factor\":1.25}", &r, &tree, &e), 0);
    assert_true(r.factor == 1.25);
    json_free(&tree);
    assert_int_equal(read_fields("{\"name\":\"a\",\"factor\":64}", &r, &tree, &e), 0);
    assert_true(r.factor == 64);
    json_free(&tree);
}

static void bad_fields_are_refused(void **state)
{
    static const struct {
        const char *text;
        enum error_code code;
        const char *message; /* a part of it */
    } cases[] = {
        {"{}", ERR_INVALID_FIELD, "\"name\" is missing"},
        {"{\"Name\":\"x\"}", ERR_UNKNOWN_FIELD, "\"Name\""},
        {"{\"name\":\"x\",\"nam\":1}", ERR_UNKNOWN_FIELD, "\"nam\""},
        {"{\"name\":1}", ERR_INVALID_FIELD, "must be a string, not a number"},
        {"{\"name\":null}", ERR_INVALID_FIELD, "not null"},
        {"{\"name\":\"\"}", ERR_INVALID_FIELD, "1 to 8 bytes, not of 0"},
        {"{\"name\":\"123456789\"}", ERR_INVALID_FIELD, "not of 9"},
        {"{\"name\":\"x\",\"warm\":1}", ERR_INVALID_FIELD, "must be true or false"},
        {"{\"name\":\"x\",\"warm\":\"true\"}", ERR_INVALID_FIELD, "not a string"},
        {"{\"name\":\"x\",\"count\":\"1\"}", ERR_INVALID_FIELD, "an integer, not a string"},
        {"{\"name\":\"x\",\"count\":1.5}", ERR_INVALID_FIELD, "not 1.5"},
        {"{\"name\":\"x\",\"count\":-6}", ERR_INVALID_FIELD, "from -5 to 9007199254740991, not -6"},
        {"{\"name\":\"x\",\"count\":9007199254740992}", ERR_INVALID_FIELD, "count"},
        {"{\"name\":\"x\",\"count\":9007199254740993}", ERR_INVALID_FIELD, "count"},
        {"{\"name\":\"x\",\"count\":1e300}", ERR_INVALID_FIELD, "1e+300"},
        {"{\"name\":\"x\",\"count\":-1e300}", ERR_INVALID_FIELD, "-1e+300"},
        {"{\"name\":\"x\",\"factor\":true}", ERR_INVALID_FIELD, "a number, not"},
        {"{\"name\":\"x\",\"factor\":0.9}", ERR_INVALID_FIELD, "from 1 to 64, not 0.9"},
        {"{\"name\":\"x\",\"factor\":64.5}", ERR_INVALID_FIELD, "not 64.5"},
        {"{\"name\":\"x\",\"network\":[]}", ERR_INVALID_FIELD, "an object, not an array"},
        {"{\"name\":\"x\",\"files\":{}}", ERR_INVALID_FIELD, "an array, not an object"},
        {"{\"name\":\"x\",\"files\":[1,2,3]}", ERR_INVALID_FIELD, "0 to 2 elements, not 3"},
        {"{\"name\":\"x\",\"argv\":[]}", ERR_INVALID_FIELD, "1 to 3 elements, not 0"},
        {"{\"name\":\"x\",\"argv\":\"ls\"}", ERR_INVALID_FIELD, "an array of strings"},
        {"{\"name\":\"x\",\"argv\":[\"a\",1]}", ERR_INVALID_FIELD, "element 1 is a number"},
        {"{\"name\":\"x\",\"argv\":[\"12345\"]}", ERR_INVALID_FIELD, "more than 4 bytes"},
        {"{\"name\":\"x\",\"env\":[]}", ERR_INVALID_FIELD, "an object of strings"},
        {"{\"name\":\"x\",\"env\":{\"A\":1}}", ERR_INVALID_FIELD, "\"A\" is a number"},
        {"{\"name\":\"x\",\"env\":{\"ABCDE\":\"\"}}", ERR_INVALID_FIELD, "more than 4 bytes"},
        {"{\"name\":\"x\",\"env\":{\"a\":\"\",\"b\":\"\",\"c\":\"\"}}", ERR_INVALID_FIELD,
         "0 to 2 members, not 3"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct request r = {.count = 7};
        cJSON *tree = NULL;
        struct error e = ERROR_INIT;

        assert_int_equal(read_fields(cases[i].text, &r, &tree, &e), -1);
        if (e.code != cases[i].code || strstr(e.message, cases[i].message) == NULL)
            fail_msg("%s: %s, %s", cases[i].text, error_name(e.code), e.message);
        if (e.code == ERR_UNKNOWN_FIELD)
            assert_non_null(strstr(e.remedy, "name, warm, count"));
        assert_null(r.name);
        assert_int_equal(r.count, 7);
        json_free(&tree);
    }
}

static void only_objects_are_bodies(void **state)
{
    cJSON *tree = NULL;
    struct error e = ERROR_INIT;

    (void)state;
    assert_int_equal(json_parse_object("", 0, &tree, &e), 0);
    assert_true(cJSON_IsObject(tree));
    json_free(&tree);
    assert_int_equal(json_parse_object("[]", 2, &tree, &e), -1);
    assert_int_equal(e.code, ERR_INVALID_JSON);
    assert_non_null(strstr(e.message, "not an array"));
}

static void written_json_is_json(void **state)
{
    struct buffer b = BUFFER_INIT(1 << 16);
    struct json_writer w;
    cJSON *tree = NULL;
    struct error e = ERROR_INIT;
    char all[256];

    (void)state;
    for (int i = 1; i < 128; i++)
        all[i - 1] = (char)i;
    all[127] = '\0';
    cJSON *inner = cJSON_CreateObject();
    (void)cJSON_AddStringToObject(inner, "bad", "a\xff\xc3(");
    json_writer_init(&w, &b);
    json_begin_object(&w, NULL);
    json_put_text(&w, "ascii", all);
    json_put_text(&w, "text", "\xc3\xa4 \xff \xe2\x82");
    json_put_text(&w, "none", NULL);
    json_put_int(&w, "int", INT64_C(-42));
    json_put_bool(&w, "yes", true);
    json_put_ms(&w, "ms", UINT64_C(1234567890));
    json_put_bytes(&w, "plain", "a\xc3\xa4", 3);
    json_put_bytes(&w, "empty", NULL, 0);
    json_put_bytes(&w, "binary", "\xff\x00", 2);
    json_put_bytes(&w, "nul", "a\0b", 3);
    json_put_base64(&w, "forced", "abc", 3);
    json_put_tree(&w, "tree", inner);
    json_begin_array(&w, "array");
    json_put_int(&w, NULL, 1);
    json_begin_object(&w, NULL);
    json_end_object(&w);
    json_begin_array(&w, NULL);
    json_end_array(&w);
    json_put_null(&w, NULL);
    json_end_array(&w);
    json_end_object(&w);
    assert_false(w.failed);
    if (json_parse(buffer_bytes(&b), b.size, &tree, &e) != 0)
        fail_msg("%s: %.*s", e.message, (int)b.size, (char *)buffer_bytes(&b));
#define GET(name) cJSON_GetObjectItemCaseSensitive(tree, name)
    assert_string_equal(GET("ascii")->valuestring, all);
    assert_string_equal(GET("text")->valuestring, "\xc3\xa4 \xef\xbf\xbd \xef\xbf\xbd\xef\xbf\xbd");
    assert_true(cJSON_IsNull(GET("none")));
    assert_true(GET("ms")->valuedouble == 1234.568);
    assert_string_equal(GET("plain")->valuestring, "a\xc3\xa4");
    assert_string_equal(GET("empty")->valuestring, "");
    assert_string_equal(GET("binary_base64")->valuestring, "/wA=");
    assert_string_equal(GET("nul_base64")->valuestring, "YQBi");
    assert_string_equal(GET("forced_base64")->valuestring, "YWJj");
    assert_string_equal(GET("tree")->child->valuestring, "a\xef\xbf\xbd\xef\xbf\xbd(");
    assert_int_equal(cJSON_GetArraySize(GET("array")), 4);
#undef GET
    json_free(&tree);
    cJSON_Delete(inner);
    buffer_fini(&b);
}

static void errors_go_there_and_back(void **state)
{
    struct buffer b = BUFFER_INIT(4096);
    struct json_writer w;
    cJSON *tree = NULL;
    struct error e = ERROR_INIT, back = ERROR_INIT;

    (void)state;
    error_set(&e, ERR_NO_CAPACITY, "full \"%s\"", "\x01\xff");
    error_cause(&e, "many");
    json_writer_init(&w, &b);
    json_put_error(&w, &e, "req_1");
    assert_false(w.failed);
    assert_int_equal(json_parse(buffer_bytes(&b), b.size, &tree, &e), 0);
    assert_int_equal(json_error_read(tree, &back), -1);
    assert_int_equal(back.code, ERR_NO_CAPACITY);
    assert_string_equal(back.message, "full \"\x01\xef\xbf\xbd\"");
    assert_string_equal(back.cause, "many");
    assert_string_equal(back.remedy, "");
    json_free(&tree);
    assert_int_equal(json_error_read(NULL, &back), -1);
    assert_int_equal(back.code, ERR_INTERNAL);
    buffer_fini(&b);
    /* What does not fit is a failure, kept. */
    struct buffer small = BUFFER_INIT(600);
    json_writer_init(&w, &small);
    for (int i = 0; i < 100; i++)
        json_put_text(&w, NULL, "0123456789");
    assert_true(w.failed);
    buffer_fini(&small);
}

static void base64_is_canonical(void **state)
{
    static const char *const bad[] = {
        "A",    "AA",   "AAA",  "=AAA",  "A===", "====",     "AA=A",    "AAA=A",
        "AB==", "AAB=", "AA A", "AAA\n", "AA-_", "AA==AA==", "AAA=AAAA"};
    uint8_t data[64];
    size_t size;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        if (base64_decode(bad[i], strlen(bad[i]), data, &size) == 0)
            fail_msg("taken: %s", bad[i]);
    }
    for (size_t length = 0; length <= 32; length++) {
        uint8_t in[32], *out = malloc(length > 0 ? length : 1); /* the exact size */
        char text[64];

        for (size_t i = 0; i < length; i++)
            in[i] = (uint8_t)(i * 73 + length * 31);
        base64_encode(in, length, text);
        assert_int_equal(base64_decode(text, base64_encoded_size(length), out, &size), 0);
        assert_int_equal(size, length);
        assert_memory_equal(in, out, length);
        free(out);
    }
}

/* All sequences of up to two bytes, and the corners of the longer ones. */
static void utf8_is_strict(void **state)
{
    static const struct {
        const char *bytes;
        size_t length;
    } cases[] = {
        {"\xe0\xa0\x80", 3},     {"\xe0\x9f\xbf", 0},     {"\xed\x9f\xbf", 3},
        {"\xed\xa0\x80", 0},     {"\xee\x80\x80", 3},     {"\xef\xbf\xbf", 3},
        {"\xf0\x90\x80\x80", 4}, {"\xf0\x8f\xbf\xbf", 0}, {"\xf4\x8f\xbf\xbf", 4},
        {"\xf4\x90\x80\x80", 0}, {"\xf5\x80\x80\x80", 0}, {"\xe2\x82\x41", 0},
        {"\xf0\x9f\x98\x41", 0}, {"\xe2\x82", 0},         {"\xf0\x9f\x98", 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_int_equal(utf8_sequence(cases[i].bytes, strlen(cases[i].bytes)), cases[i].length);
    for (unsigned first = 0; first < 256; first++) {
        for (unsigned second = 0; second < 256; second++) {
            unsigned char bytes[2] = {(unsigned char)first, (unsigned char)second};
            bool two = first >= 0xc2 && first <= 0xdf && second >= 0x80 && second <= 0xbf;
            assert_int_equal(utf8_sequence(bytes, 2), first < 0x80 ? 1 : two ? 2 : 0);
            assert_int_equal(utf8_valid(bytes, 2), two || (first < 0x80 && second < 0x80));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escapes_are_characters),
        cmocka_unit_test(good_texts_are_taken),
        cmocka_unit_test(hostile_texts_are_refused),
        cmocka_unit_test(node_count_is_bounded),
        cmocka_unit_test(fields_are_read),
        cmocka_unit_test(bad_fields_are_refused),
        cmocka_unit_test(only_objects_are_bodies),
        cmocka_unit_test(written_json_is_json),
        cmocka_unit_test(errors_go_there_and_back),
        cmocka_unit_test(base64_is_canonical),
        cmocka_unit_test(utf8_is_strict),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
