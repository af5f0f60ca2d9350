#include "http/target.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "http/chars.h"
#include "http/span.h"

static int bad(struct error *e, const char *what)
{
    return error_set(e, ERR_BAD_REQUEST, "malformed request target: %s", what);
}

void http_target_fini(struct http_target *t)
{
    free(t->text);
    *t = (struct http_target){0};
}

/* Decodes `s` to `to` with a NUL behind it, which takes at most s.size + 1 bytes; returns the
 * decoded length, or -1. */
static ssize_t decode(struct http_span s, char *to, struct error *e)
{
    size_t used = 0;

    for (size_t i = 0; i < s.size; i++) {
        char c = s.data[i];

        if (c == '%') {
            int high = i + 2 < s.size ? http_hex_digit(s.data[i + 1]) : -1;
            int low = i + 2 < s.size ? http_hex_digit(s.data[i + 2]) : -1;

            if (high < 0 || low < 0)
                return bad(e, "a percent sign without two hexadecimal digits");
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (c == '\0')
            return bad(e, "a NUL byte");
        to[used++] = c;
    }
    to[used] = '\0';
    return (ssize_t)used;
}

/* Takes what is before the next `separator`, or all, off the front. */
static struct http_span take_part(struct http_span *rest, char separator)
{
    const char *end = memchr(rest->data, separator, rest->size);
    struct http_span part = {rest->data, end != NULL ? (size_t)(end - rest->data) : rest->size};
    size_t taken = part.size + (end != NULL ? 1 : 0);

    rest->data += taken;
    rest->size -= taken;
    return part;
}

static int check_segment(const char *segment, size_t size, struct error *e)
{
    if (size == 0)
        return bad(e, "an empty path segment (two slashes, or one at the end)");
    if (strcmp(segment, ".") == 0 || strcmp(segment, "..") == 0)
        return bad(e, "a path segment that is \".\" or \"..\"");
    for (size_t i = 0; i < size; i++) {
        if (segment[i] == '/' || segment[i] == '\t' || http_is_control(segment[i]))
            return bad(e, "an encoded slash or control character in the path");
    }
    return 0;
}

/* `path` is what follows the first slash. */
static int parse_path(struct http_target *t, struct http_span path, char **to, struct error *e)
{
    bool more = path.size > 0;

    while (more) {
        const char *end = memchr(path.data, '/', path.size);
        struct http_span part = take_part(&path, '/');
        ssize_t size = decode(part, *to, e);

        if (size < 0 || check_segment(*to, (size_t)size, e) != 0)
            return -1;
        if (t->segment_count == HTTP_SEGMENTS_MAX)
            return error_set(e, ERR_HEADER_TOO_LARGE, "the path has more than %u segments",
                             HTTP_SEGMENTS_MAX);
        t->segments[t->segment_count++] = *to;
        *to += size + 1;
        more = end != NULL;
    }
    return 0;
}

static int parse_query(struct http_target *t, struct http_span query, char **to, struct error *e)
{
    while (query.size > 0) {
        struct http_span value = take_part(&query, '&');
        struct http_span name = take_part(&value, '=');
        struct http_query *q = &t->query[t->query_count];

        if (t->query_count == HTTP_QUERY_MAX)
            return error_set(e, ERR_HEADER_TOO_LARGE, "more than %u query parameters",
                             HTTP_QUERY_MAX);
        ssize_t size = decode(name, *to, e);
        if (size < 0)
            return -1;
        if (size == 0)
            return bad(e, "a query parameter without a name");
        q->name = *to;
        *to += size + 1;
        size = decode(value, *to, e);
        if (size < 0)
            return -1;
        q->value = *to;
        *to += size + 1;
        t->query_count++;
    }
    return 0;
}

int http_target_parse(const char *target, size_t size, struct http_target *ret_target,
                      struct error *e)
{
    struct http_target t = {0};
    struct http_span query = {target, size};

    if (size == 0 || target[0] != '/')
        return bad(e, "not a path that begins with a slash");
    if (size > HTTP_TARGET_BYTES_MAX)
        return error_set(e, ERR_HEADER_TOO_LARGE, "the request target is longer than %u bytes",
                         (unsigned)HTTP_TARGET_BYTES_MAX);
    struct http_span path = take_part(&query, '?');
    path.data++;
    path.size--;
    /* Each part loses the separator in front of it and gains a NUL; a value may lack its '='. */
    t.text = malloc(size + HTTP_QUERY_MAX + 2);
    if (t.text == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    char *to = t.text;
    if (parse_path(&t, path, &to, e) != 0 || parse_query(&t, query, &to, e) != 0) {
        http_target_fini(&t);
        return -1;
    }
    *ret_target = t;
    return 0;
}

int http_escape_append(struct buffer *b, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t size = strlen(text);

    if (size > SIZE_MAX / 3)
        return -1;
    uint8_t *start = buffer_reserve(b, size * 3);
    if (start == NULL)
        return -1;
    uint8_t *to = start;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];

        if (http_is_unreserved((char)c)) {
            *to++ = c;
        } else {
            *to++ = '%';
            *to++ = (uint8_t)digits[c >> 4];
            *to++ = (uint8_t)digits[c & 15];
        }
    }
    buffer_commit(b, (size_t)(to - start));
    return 0;
}
