/*
 * The chunked transfer coding (RFC 9112 7.1): an incremental, strict decoder and the encoder.
 * Refused: anything but hexadecimal digits in a size, sizes past INT64_MAX, lines that end in
 * anything but CR LF, trailers. Extensions are skipped, within HTTP_CHUNK_LINE_MAX for the line.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "http/head.h"

struct buffer;

struct http_chunked {
    uint8_t state;
    uint8_t digits;
    uint16_t line_bytes;
    uint64_t left; /* data bytes of the chunk that are still to come */
};

void http_chunked_init(struct http_chunked *c);

/*
 * Decodes from the front of `data` up to the end of one run of body bytes. `*ret_used` is how many
 * bytes were taken and `*ret_body` the body bytes among them (inside `data`; may be empty). Call
 * again with what is left: HTTP_MORE with nothing left means that more must be received, HTTP_DONE
 * that the body is complete (bytes behind it are not touched).
 * Errors: ERR_BAD_REQUEST.
 */
enum http_result http_chunked_decode(struct http_chunked *c, const char *data, size_t size,
                                     size_t *ret_used, struct http_span *ret_body, struct error *e)
    __attribute__((nonnull, warn_unused_result));

/* Appends one chunk with `size` (> 0) bytes of body; 0, or -1 when it does not fit. */
int http_chunk_append(struct buffer *b, const void *data, size_t size)
    __attribute__((nonnull, warn_unused_result));

/* Bytes that http_chunk_append adds at most to the data. */
#define HTTP_CHUNK_OVERHEAD 20u

/* What ends a chunked body. */
#define HTTP_CHUNK_LAST "0\r\n\r\n"
