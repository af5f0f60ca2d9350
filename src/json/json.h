/*
 * JSON in: a strict parser in front of cJSON. It accepts RFC 8259 and nothing else: valid UTF-8
 * without NUL (also not as \u0000) and without lone surrogates, at most JSON_DEPTH_MAX levels and
 * JSON_NODES_MAX values, no key twice in an object, nothing behind the value. So every string of a
 * tree is a C string and valid UTF-8, every number finite.
 *
 * Fields out of an object: a handler declares them once as a table; unknown keys, wrong types and
 * values out of range become errors that name the field, what is allowed and what came.
 *
 * Other files include this header, not cJSON's. Note that cJSON_GetObjectItem ignores case: use the
 * table, or cJSON_GetObjectItemCaseSensitive.
 */
#pragma once

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Parses one JSON text; cJSON_Delete frees `*ret_tree`. Errors: ERR_INVALID_JSON (with the offset),
 * ERR_INTERNAL when memory is short. */
int json_parse(const void *text, size_t size, cJSON **ret_tree, struct error *e)
    __attribute__((nonnull(3, 4), warn_unused_result));

/* As json_parse, for a text that must be an object; an empty body is one without fields. */
int json_parse_object(const void *text, size_t size, cJSON **ret_object, struct error *e)
    __attribute__((nonnull(3, 4), warn_unused_result));

/* `JSON_AUTO cJSON *tree = NULL;` is freed at the end of the scope. */
void json_free(cJSON **tree);
#define JSON_AUTO __attribute__((cleanup(json_free)))

/* Types of fields, and what json_read stores at the field's offset. min and max bound: */
enum json_type {
    JSON_STRING,  /* const char *, inside the tree. Its bytes */
    JSON_BOOL,    /* bool */
    JSON_INTEGER, /* int64_t. The value; within +-JSON_INTEGER_MAX */
    JSON_NUMBER,  /* double, with or without a fraction. The value */
    JSON_OBJECT,  /* const cJSON *, any object */
    JSON_ARRAY,   /* const cJSON *, any array. The number of its elements */
    JSON_STRINGS, /* const cJSON *, an array of strings. The number of its elements */
    JSON_MAP      /* const cJSON *, an object of strings. The number of its members */
};

#define JSON_INTEGER_MAX INT64_C(9007199254740991) /* what a double holds exactly */

struct json_field {
    const char *name;
    enum json_type type;
    bool required;
    int64_t min;
    int64_t max;
    int64_t item_max; /* JSON_STRINGS, JSON_MAP: bytes of a string (a name, too) at most */
    size_t offset;    /* in the struct that json_read fills */
};

/*
 * Reads `object` by a table of `count` fields. Fields that are absent leave what the caller put
 * there (its defaults); what is stored points into the tree. On failure nothing is stored. `where`
 * goes in front of names in errors ("" for a body, "files[2]." for an element). null is not a
 * value of any type.
 * Errors: ERR_UNKNOWN_FIELD, ERR_INVALID_FIELD (also for a required field that is missing).
 */
int json_read(const cJSON *object, const char *where, const struct json_field *fields, size_t count,
              void *ret_struct, struct error *e) __attribute__((nonnull, warn_unused_result));

/* What an item is, for an error text: "a string", "an object", ... */
const char *json_type_text(const cJSON *item);
