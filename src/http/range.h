/*
 * The Range header of a request (RFC 9110 14.2), as far as one range of bytes is asked for. What is
 * malformed, of another unit or names several ranges is to be ignored, as the RFC allows: the
 * client gets the whole.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "http/head.h"

struct http_range {
    bool is_suffix;  /* the last `length` bytes */
    uint64_t first;  /* otherwise: from this byte on ... */
    uint64_t length; /* ... so many; UINT64_MAX: to the end */
};

/* Whether `value` asks for one range; numbers past INT64_MAX are taken for that. */
bool http_range_parse(struct http_span value, struct http_range *ret_range);

/* Where the range lies in `size` bytes; false where it has none of them, which is an answer of 416.
 * On true *ret_length is at least 1. */
bool http_range_resolve(const struct http_range *r, uint64_t size, uint64_t *ret_first,
                        uint64_t *ret_length);
