#include "http/range.h"

#include <string.h>
#include <strings.h>

#define POSITION_MAX ((uint64_t)INT64_MAX)

/* Takes the digits at the front, at least one. */
static bool take_number(struct http_span *s, uint64_t *ret_number)
{
    uint64_t number = 0;
    size_t i = 0;

    for (; i < s->size && s->data[i] >= '0' && s->data[i] <= '9'; i++) {
        uint64_t digit = (uint64_t)(s->data[i] - '0');
        number = number > (POSITION_MAX - digit) / 10 ? POSITION_MAX : number * 10 + digit;
    }
    s->data += i;
    s->size -= i;
    *ret_number = number;
    return i > 0;
}

static bool take_dash(struct http_span *s)
{
    if (s->size == 0 || s->data[0] != '-')
        return false;
    s->data++;
    s->size--;
    return true;
}

bool http_range_parse(struct http_span value, struct http_range *ret_range)
{
    static const char unit[] = "bytes=";
    struct http_range r = {.length = UINT64_MAX};
    struct http_span spec, other;
    uint64_t last;

    if (value.size < sizeof(unit) - 1 || strncasecmp(value.data, unit, sizeof(unit) - 1) != 0)
        return false;
    value.data += sizeof(unit) - 1;
    value.size -= sizeof(unit) - 1;
    if (!http_list_next(&value, &spec) || http_list_next(&value, &other))
        return false;
    if (take_dash(&spec)) {
        r.is_suffix = true;
        if (!take_number(&spec, &r.length) || spec.size > 0)
            return false;
    } else {
        if (!take_number(&spec, &r.first) || !take_dash(&spec))
            return false;
        if (spec.size > 0) {
            if (!take_number(&spec, &last) || spec.size > 0 || last < r.first)
                return false;
            r.length = last - r.first + 1;
        }
    }
    *ret_range = r;
    return true;
}

bool http_range_resolve(const struct http_range *r, uint64_t size, uint64_t *ret_first,
                        uint64_t *ret_length)
{
    uint64_t first = r->first;

    if (r->is_suffix)
        first = size - (r->length < size ? r->length : size);
    if (first >= size)
        return false;
    *ret_first = first;
    *ret_length = r->length < size - first ? r->length : size - first;
    return true;
}
