/* Pieces of somebody else's text, as the parsers hand them out. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Bytes inside somebody else's buffer; not NUL-terminated. */
struct http_span {
    const char *data;
    size_t size;
};

/* Without the spaces and tabs at both ends. */
struct http_span http_span_trim(struct http_span s);

/* Whether a span is that text, case being ignored for ASCII letters. */
bool http_span_is(struct http_span s, const char *text);

/* Whether all of a span (at least one byte) are characters of a token (RFC 9110 5.6.2). */
bool http_is_token(struct http_span s);

/* Takes the next element from the front of a comma-separated list; false when there is none left.
 * Empty elements are skipped (RFC 9110 5.6.1.2). */
bool http_list_next(struct http_span *list, struct http_span *ret_element);
