/*
 * The Range header, and where a range lies in content of any size (the first 8 bytes). Properties:
 * a range that is taken lies within the content and is not empty; written anew it is the same
 * range; where the whole content is asked for, that is what is given.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/range.h"

static bool parse(const char *text, size_t size, struct http_range *ret_range)
{
    return http_range_parse((struct http_span){.data = text, .size = size}, ret_range);
}

/* Content of `size` bytes. */
static void check(const struct http_range *r, uint64_t size)
{
    uint64_t first = 0, length = 0;

    if (!http_range_resolve(r, size, &first, &length)) {
        /* None of it is there. */
        assert(r->is_suffix ? size == 0 || r->length == 0 : r->first >= size);
        return;
    }
    assert(length >= 1 && first < size && length <= size - first && length <= r->length);
    if (r->is_suffix)
        assert(first + length == size);
    else
        assert(first == r->first && (length == r->length || first + length == size));
}

static void check_again(const struct http_range *r)
{
    struct http_range again;
    char text[80];

    if (r->is_suffix)
        (void)snprintf(text, sizeof(text), "bytes=-%" PRIu64, r->length);
    else if (r->length == UINT64_MAX)
        (void)snprintf(text, sizeof(text), "Bytes=%" PRIu64 "-", r->first);
    else
        (void)snprintf(text, sizeof(text), "bytes=%" PRIu64 "-%" PRIu64 " , ,", r->first,
                       r->first + (r->length - 1));
    bool is_taken = parse(text, strlen(text), &again);
    assert(is_taken && again.is_suffix == r->is_suffix);
    assert(again.first == r->first && again.length == r->length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_range r = {.first = 1, .length = 77}, before = r;
    uint64_t content;

    if (size < sizeof(content))
        return 0;
    memcpy(&content, data, sizeof(content));
    size -= sizeof(content);
    char *text = malloc(size > 0 ? size : 1);
    assert(text != NULL);
    memcpy(text, data + sizeof(content), size);
    if (parse(text, size, &r)) {
        assert(r.is_suffix ? r.first == 0 : r.first <= INT64_MAX && r.length >= 1);
        check(&r, content);
        check(&r, 0);
        check(&r, INT64_MAX);
        check_again(&r);
    } else {
        assert(memcmp(&r, &before, sizeof(r)) == 0);
    }
    free(text);
    return 0;
}
