/*
 * JSON bodies. Properties: what is accepted prints and parses again to an equal tree, holds valid
 * UTF-8 only, keeps the limits; reading it by a table either fills the fields within their bounds
 * or fails with a typed error and fills nothing.
 */
#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "cloche/limits.h"
#include "json/json.h"
#include "json/json_write.h"

struct fields {
    const char *text;
    bool yes;
    int64_t count;
    const cJSON *object;
    const cJSON *array;
    const cJSON *strings;
    const cJSON *map;
};

static const struct json_field table[] = {
    {"a", JSON_STRING, false, 1, 16, 0, offsetof(struct fields, text)},
    {"b", JSON_BOOL, false, 0, 0, 0, offsetof(struct fields, yes)},
    {"c", JSON_INTEGER, false, -100, JSON_INTEGER_MAX, 0, offsetof(struct fields, count)},
    {"d", JSON_OBJECT, false, 0, 0, 0, offsetof(struct fields, object)},
    {"e", JSON_ARRAY, false, 1, 4, 0, offsetof(struct fields, array)},
    {"f", JSON_STRINGS, false, 0, 4, 8, offsetof(struct fields, strings)},
    {"g", JSON_MAP, false, 0, 4, 8, offsetof(struct fields, map)},
};

/* Walks the tree; its depth is what is being checked, so recursion may not be relied on. */
static void check_tree(const cJSON *root)
{
    const cJSON *next[JSON_DEPTH_MAX + 1];
    size_t depth = 0, nodes = 0;

    next[0] = root;
    for (;;) {
        const cJSON *item = next[depth];

        if (item == NULL) {
            if (depth-- == 0)
                break;
            continue;
        }
        nodes++;
        next[depth] = depth > 0 ? item->next : NULL;
        assert(item->string == NULL || utf8_valid(item->string, strlen(item->string)));
        assert(!cJSON_IsString(item) || utf8_valid(item->valuestring, strlen(item->valuestring)));
        assert(!cJSON_IsNumber(item) || isfinite(item->valuedouble));
        if (item->child != NULL) {
            assert(depth < JSON_DEPTH_MAX);
            next[++depth] = item->child;
        }
    }
    assert(nodes <= JSON_NODES_MAX);
}

static void check_fields(const cJSON *tree)
{
    struct fields f = {.count = -1000};
    struct error e = ERROR_INIT;

    if (!cJSON_IsObject(tree))
        return;
    if (json_read(tree, "", table, sizeof(table) / sizeof(table[0]), &f, &e) != 0) {
        assert(e.code == ERR_UNKNOWN_FIELD || e.code == ERR_INVALID_FIELD);
        assert(f.text == NULL && f.count == -1000 && f.map == NULL);
        return;
    }
    assert(f.text == NULL || (f.text[0] != '\0' && strlen(f.text) <= 16));
    assert(f.count == -1000 || (f.count >= -100 && f.count <= JSON_INTEGER_MAX));
    assert(f.array == NULL || cJSON_GetArraySize(f.array) <= 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buffer out = BUFFER_INIT(64 * MIB);
    struct json_writer w;
    cJSON *tree = NULL, *again = NULL;
    struct error e = ERROR_INIT;
    char *copy = malloc(size > 0 ? size : 1);

    assert(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    int result = json_parse(copy, size, &tree, &e);
    free(copy);
    if (result != 0) {
        assert(e.code == ERR_INVALID_JSON && tree == NULL);
        return 0;
    }
    check_tree(tree);
    check_fields(tree);
    json_writer_init(&w, &out);
    json_put_tree(&w, NULL, tree);
    assert(!w.failed);
    result = json_parse(buffer_bytes(&out), out.size, &again, &e);
    assert(result == 0 && cJSON_Compare(tree, again, 1));
    json_free(&tree);
    json_free(&again);
    buffer_fini(&out);
    return 0;
}
