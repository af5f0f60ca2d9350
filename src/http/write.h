/*
 * Writes heads of requests and responses. Names and values are checked here once for all: a control
 * character in a value (a line break that would forge a header) is a mistake of ours and asserts.
 */
#pragma once

#include <stddef.h>

struct buffer;

/* The status and request line; 0, or -1 when it does not fit into the buffer. */
int http_response_start(struct buffer *b, int status) __attribute__((warn_unused_result));
int http_request_start(struct buffer *b, const char *method, const char *target)
    __attribute__((nonnull, warn_unused_result));

/* One header line. */
int http_header_put(struct buffer *b, const char *name, const char *value_format, ...)
    __attribute__((format(printf, 3, 4), nonnull, warn_unused_result));

/* The empty line. */
int http_head_end(struct buffer *b) __attribute__((nonnull, warn_unused_result));

/* "Not Found" for 404; "Status" for a number that is not in the list. */
const char *http_status_text(int status);
