/*
 * The target of a request in origin form, taken apart: path segments and query parameters, strictly
 * percent-decoded. Refused: a broken escape, an encoded NUL anywhere; in the path also an encoded
 * slash, control characters, empty segments, "." and ".." (plain or encoded), so that a segment is
 * always one name. '+' stands for itself. Values may hold any byte but NUL.
 */
#pragma once

#include <stddef.h>

#include "base/error.h"
#include "cloche/limits.h"

struct buffer;

struct http_query {
    const char *name; /* never empty */
    const char *value;
};

/* All strings are NUL-terminated and live in `text`. */
struct http_target {
    char *text;
    size_t segment_count; /* 0 for "/" */
    const char *segments[HTTP_SEGMENTS_MAX];
    size_t query_count;
    struct http_query query[HTTP_QUERY_MAX]; /* in their order; names may repeat */
};

/* Frees; accepts a zeroed one. */
void http_target_fini(struct http_target *t);

/* Errors: ERR_BAD_REQUEST, or ERR_HEADER_TOO_LARGE for too many segments or parameters. */
int http_target_parse(const char *target, size_t size, struct http_target *ret_target,
                      struct error *e) __attribute__((nonnull, warn_unused_result));

/* Appends `text` with every byte but RFC 3986's unreserved characters percent-encoded, for use as a
 * path segment or a query's name or value; 0, or -1 when it does not fit. */
int http_escape_append(struct buffer *b, const char *text)
    __attribute__((nonnull, warn_unused_result));
