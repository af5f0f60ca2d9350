/* Fields out of an object, by a table. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "json/json.h"

#define FIELDS_MAX 64u

/* Where an error text says what is wrong with which field. */
struct place {
    const char *where;
    const struct json_field *field;
    const cJSON *item;
    struct error *e;
};

static int wrong_type(const struct place *p, const char *allowed)
{
    return error_set(p->e, ERR_INVALID_FIELD, "the field \"%s%s\" must be %s, not %s", p->where,
                     p->field->name, allowed, json_type_text(p->item));
}

static int check_string(const struct place *p)
{
    if (!cJSON_IsString(p->item))
        return wrong_type(p, "a string");
    size_t size = strlen(p->item->valuestring);
    if (size >= (uint64_t)p->field->min && size <= (uint64_t)p->field->max)
        return 0;
    return error_set(p->e, ERR_INVALID_FIELD,
                     "the field \"%s%s\" must be a string of %" PRId64 " to %" PRId64
                     " bytes, not of %zu",
                     p->where, p->field->name, p->field->min, p->field->max, size);
}

static int check_integer(const struct place *p)
{
    if (!cJSON_IsNumber(p->item))
        return wrong_type(p, "an integer");
    double value = p->item->valuedouble;
    if (value >= (double)p->field->min && value <= (double)p->field->max &&
        value == (double)(int64_t)value)
        return 0;
    return error_set(p->e, ERR_INVALID_FIELD,
                     "the field \"%s%s\" must be an integer from %" PRId64 " to %" PRId64
                     ", not %.15g",
                     p->where, p->field->name, p->field->min, p->field->max, value);
}

static int check_number(const struct place *p)
{
    if (!cJSON_IsNumber(p->item))
        return wrong_type(p, "a number");
    double value = p->item->valuedouble;
    if (value >= (double)p->field->min && value <= (double)p->field->max)
        return 0;
    return error_set(p->e, ERR_INVALID_FIELD,
                     "the field \"%s%s\" must be a number from %" PRId64 " to %" PRId64
                     ", not %.15g",
                     p->where, p->field->name, p->field->min, p->field->max, value);
}

static int check_count(const struct place *p, const char *of_what)
{
    uint64_t count = (uint64_t)cJSON_GetArraySize(p->item);

    if (count >= (uint64_t)p->field->min && count <= (uint64_t)p->field->max)
        return 0;
    return error_set(p->e, ERR_INVALID_FIELD,
                     "the field \"%s%s\" must have %" PRId64 " to %" PRId64 " %s, not %" PRIu64,
                     p->where, p->field->name, p->field->min, p->field->max, of_what, count);
}

/* The strings of a JSON_STRINGS or JSON_MAP. */
static int check_items(const struct place *p)
{
    const cJSON *item;
    size_t index = 0;

    cJSON_ArrayForEach (item, p->item) {
        size_t item_max = (size_t)p->field->item_max;

        if (!cJSON_IsString(item) && item->string != NULL)
            return error_set(p->e, ERR_INVALID_FIELD,
                             "the field \"%s%s\" must hold strings only, but \"%.64s\" is %s",
                             p->where, p->field->name, item->string, json_type_text(item));
        if (!cJSON_IsString(item))
            return error_set(p->e, ERR_INVALID_FIELD,
                             "the field \"%s%s\" must hold strings only, but element %zu is %s",
                             p->where, p->field->name, index, json_type_text(item));
        if (strlen(item->valuestring) > item_max ||
            (item->string != NULL && strlen(item->string) > item_max))
            return error_set(p->e, ERR_INVALID_FIELD,
                             "the field \"%s%s\" holds a string of more than %zu bytes", p->where,
                             p->field->name, item_max);
        index++;
    }
    return 0;
}

static int check_field(const struct place *p)
{
    switch (p->field->type) {
    case JSON_STRING:
        return check_string(p);
    case JSON_BOOL:
        return cJSON_IsBool(p->item) ? 0 : wrong_type(p, "true or false");
    case JSON_INTEGER:
        return check_integer(p);
    case JSON_NUMBER:
        return check_number(p);
    case JSON_OBJECT:
        return cJSON_IsObject(p->item) ? 0 : wrong_type(p, "an object");
    case JSON_ARRAY:
        return cJSON_IsArray(p->item) ? check_count(p, "elements") : wrong_type(p, "an array");
    case JSON_STRINGS:
        if (!cJSON_IsArray(p->item))
            return wrong_type(p, "an array of strings");
        return check_count(p, "elements") != 0 ? -1 : check_items(p);
    case JSON_MAP:
        if (!cJSON_IsObject(p->item))
            return wrong_type(p, "an object of strings");
        return check_count(p, "members") != 0 ? -1 : check_items(p);
    }
    assert(!"unknown type in a table of fields");
    return -1;
}

static void store(const struct json_field *field, const cJSON *item, void *ret_struct)
{
    void *to = (char *)ret_struct + field->offset;

    switch (field->type) {
    case JSON_STRING:
        *(const char **)to = item->valuestring;
        break;
    case JSON_BOOL:
        *(bool *)to = cJSON_IsTrue(item);
        break;
    case JSON_INTEGER:
        *(int64_t *)to = (int64_t)item->valuedouble;
        break;
    case JSON_NUMBER:
        *(double *)to = item->valuedouble;
        break;
    case JSON_OBJECT:
    case JSON_ARRAY:
    case JSON_STRINGS:
    case JSON_MAP:
        *(const cJSON **)to = item;
        break;
    }
}

/* A bound that is missing in a table is a mistake of ours, not "no limit". */
static void check_table(const struct json_field *fields, size_t count)
{
    assert(count <= FIELDS_MAX);
    for (size_t i = 0; i < count; i++) {
        const struct json_field *f = &fields[i];
        bool is_strings = f->type == JSON_STRINGS || f->type == JSON_MAP;

        assert(f->min <= f->max && f->max <= JSON_INTEGER_MAX && f->min >= -JSON_INTEGER_MAX);
        assert(f->type == JSON_BOOL || f->type == JSON_OBJECT || f->type == JSON_INTEGER ||
               f->type == JSON_NUMBER || (f->min >= 0 && f->max > 0));
        assert(!is_strings || f->item_max > 0);
    }
}

static const struct json_field *find(const struct json_field *fields, size_t count,
                                     const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    }
    return NULL;
}

static int unknown_field(const char *where, const char *name, const struct json_field *fields,
                         size_t count, struct error *e)
{
    char known[sizeof(e->remedy)] = "";
    size_t used = 0;

    for (size_t i = 0; i < count && used < sizeof(known); i++)
        used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i > 0 ? ", " : "",
                                 fields[i].name);
    error_set(e, ERR_UNKNOWN_FIELD, "the field \"%s%.64s\" is not known", where, name);
    return count > 0 ? error_remedy(e, "known here: %s", known)
                     : error_remedy(e, "no fields are known here");
}

int json_read(const cJSON *object, const char *where, const struct json_field *fields, size_t count,
              void *ret_struct, struct error *e)
{
    uint64_t seen = 0;
    const cJSON *item;

    check_table(fields, count);
    assert(cJSON_IsObject(object));
    cJSON_ArrayForEach (item, object) {
        const struct json_field *field = find(fields, count, item->string);
        struct place place = {where, field, item, e};

        if (field == NULL)
            return unknown_field(where, item->string, fields, count, e);
        if (check_field(&place) != 0)
            return -1;
        seen |= UINT64_C(1) << (field - fields);
    }
    for (size_t i = 0; i < count; i++) {
        if (fields[i].required && (seen & UINT64_C(1) << i) == 0)
            return error_set(e, ERR_INVALID_FIELD, "the field \"%s%s\" is missing", where,
                             fields[i].name);
    }
    cJSON_ArrayForEach (item, object)
        store(find(fields, count, item->string), item, ret_struct);
    return 0;
}
