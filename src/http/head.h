/*
 * The one parser of HTTP/1.x message heads (RFC 9110, RFC 9112), for requests and responses. It is
 * strict on purpose: a message that two parsers could take for different things (two lengths, a
 * length beside a transfer coding, bare LF, folded lines, a space before the colon, ...) is refused
 * with a typed error, never repaired. It takes (pointer, length), does no I/O and allocates
 * nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cloche/limits.h"
#include "http/span.h"

/* How far an incremental parser is. */
enum http_result {
    HTTP_MORE, /* all bytes so far are good, the message goes on */
    HTTP_DONE,
    HTTP_BAD /* refused; the error is set and no later byte can change that */
};

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_PATCH,
    HTTP_DELETE,
    HTTP_OPTIONS,
    HTTP_CONNECT,
    HTTP_TRACE,
    HTTP_OTHER /* a well-formed token that is none of these */
};

/* RFC 9112 3.2. */
enum http_form {
    HTTP_FORM_ORIGIN,    /* /path?query */
    HTTP_FORM_ABSOLUTE,  /* scheme://host/path */
    HTTP_FORM_AUTHORITY, /* host:port, with CONNECT only */
    HTTP_FORM_ASTERISK   /* *, with OPTIONS only */
};

/* How the body that follows the head ends. */
enum http_framing {
    HTTP_BODY_NONE,
    HTTP_BODY_LENGTH, /* content_length bytes, which may be 0 */
    HTTP_BODY_CHUNKED,
    HTTP_BODY_UNTIL_CLOSE /* responses only */
};

struct http_header {
    struct http_span name;  /* a token, as it came (names compare without case) */
    struct http_span value; /* without the white space around it; may be empty */
};

/* A parsed head. All spans point into the bytes that were parsed. */
struct http_head {
    size_t size;       /* bytes of the head, its empty line included: the body starts there */
    bool is_response;  /* which of the two groups below is set */
    int minor_version; /* HTTP/1.0 or HTTP/1.1 */

    enum http_method method;
    enum http_form form;
    struct http_span method_name;
    struct http_span target;
    struct http_span host; /* value of Host; empty in HTTP/1.0 without one */

    int status; /* 100..599 */

    enum http_framing framing;
    uint64_t content_length; /* with HTTP_BODY_LENGTH; at most INT64_MAX */
    bool keep_alive;         /* the connection can carry another message after this one */
    bool expect_continue;    /* the client waits for 100 before it sends the body */
    bool upgrade;            /* Connection names upgrade */
    size_t header_count;
    struct http_header headers[HTTP_HEADERS_MAX];
};

/*
 * Parses the head of a request that begins at `data`, given all `size` bytes that have come so far.
 * `*scanned` is 0 for a new message and is kept by the caller between calls for the same one, so
 * that bytes are not looked at again. HTTP_DONE fills `*ret_head`. Bytes behind the head are not
 * looked at.
 *
 * Errors: ERR_BAD_REQUEST, ERR_HEADER_TOO_LARGE (more than HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX
 * or HTTP_TARGET_BYTES_MAX), ERR_HTTP_VERSION (not 1.0 or 1.1), ERR_NOT_IMPLEMENTED (a transfer
 * coding other than chunked).
 */
enum http_result http_request_parse(const char *data, size_t size, size_t *scanned,
                                    struct http_head *ret_head, struct error *e)
    __attribute__((nonnull, warn_unused_result));

/*
 * The same for the response to a request whose method was `method` (a response to HEAD has no body
 * whatever its headers say). Interim responses (1xx) are returned like any other.
 */
enum http_result http_response_parse(const char *data, size_t size, size_t *scanned,
                                     enum http_method method, struct http_head *ret_head,
                                     struct error *e) __attribute__((nonnull, warn_unused_result));

/* Moves the spans of a head to a copy of its bytes at `to` (they were parsed at `from`). */
void http_head_rebase(struct http_head *h, const char *from, const char *to);

/* The first header of that name (lower or upper case), or NULL. */
const struct http_header *http_head_find(const struct http_head *h, const char *name)
    __attribute__((nonnull));
