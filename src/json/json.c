#include "json/json.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cloche/limits.h"
#include "json/scan.h"

void json_free(cJSON **tree)
{
    cJSON_Delete(*tree);
    *tree = NULL;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_keys(const cJSON *object, struct error *e)
{
    size_t count = 0;
    const cJSON *member;

    cJSON_ArrayForEach (member, object)
        count++;
    if (count < 2)
        return 0;
    const char **keys = malloc(count * sizeof(*keys));
    if (keys == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    count = 0;
    cJSON_ArrayForEach (member, object)
        keys[count++] = member->string;
    qsort(keys, count, sizeof(*keys), compare_keys);
    int result = 0;
    for (size_t i = 1; i < count && result == 0; i++) {
        if (strcmp(keys[i - 1], keys[i]) == 0)
            result = error_set(e, ERR_INVALID_JSON, "the key \"%.64s\" is there twice", keys[i]);
    }
    free(keys);
    return result;
}

/* Goes over the tree without recursion; the scan has bounded its depth. */
static int check_tree(const cJSON *root, struct error *e)
{
    const cJSON *next[JSON_DEPTH_MAX + 1]; /* per level, what is still to be looked at */
    size_t depth = 0;

    next[0] = root;
    for (;;) {
        const cJSON *item = next[depth];

        if (item == NULL) {
            if (depth == 0)
                return 0;
            depth--;
            continue;
        }
        next[depth] = depth > 0 ? item->next : NULL;
        if (cJSON_IsObject(item) && check_keys(item, e) != 0)
            return -1;
        if (item->child != NULL) {
            assert(depth < JSON_DEPTH_MAX);
            next[++depth] = item->child;
        }
    }
}

int json_parse(const void *text, size_t size, cJSON **ret_tree, struct error *e)
{
    const char *end = NULL;

    if (json_scan(text, size, e) != 0)
        return -1;
    JSON_AUTO cJSON *tree = cJSON_ParseWithLengthOpts(text, size, &end, 0);
    if (tree == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    if (check_tree(tree, e) != 0)
        return -1;
    *ret_tree = tree;
    tree = NULL;
    return 0;
}

int json_parse_object(const void *text, size_t size, cJSON **ret_object, struct error *e)
{
    JSON_AUTO cJSON *tree = NULL;

    if (json_parse(size > 0 ? text : "{}", size > 0 ? size : 2, &tree, e) != 0)
        return -1;
    if (!cJSON_IsObject(tree))
        return error_set(e, ERR_INVALID_JSON, "the JSON text must be an object, not %s",
                         json_type_text(tree));
    *ret_object = tree;
    tree = NULL;
    return 0;
}

const char *json_type_text(const cJSON *item)
{
    static const struct {
        int type;
        const char *text;
    } names[] = {
        {cJSON_False, "false"},      {cJSON_True, "true"},       {cJSON_NULL, "null"},
        {cJSON_Number, "a number"},  {cJSON_String, "a string"}, {cJSON_Array, "an array"},
        {cJSON_Object, "an object"},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if ((item->type & 0xff) == names[i].type)
            return names[i].text;
    }
    return "nothing";
}
