/*
 * A command's output as NDJSON records {"type":"stdout","data":"..."}: text where the bytes are
 * UTF-8, else "data_base64". Output comes in pieces that may end inside a character; the start of
 * one is held back until the rest has come, so that text stays text.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

/* What is held back of one output; zero-initialised. */
struct output_tail {
    uint8_t bytes[4];
    size_t size;
};

/* How many bytes at the end of `data` (0 to 3) are the start of a character that is not whole. */
size_t output_incomplete(const uint8_t *data, size_t size);

/*
 * Appends to `lines` the record for the held back bytes and `data`, which becomes a line of at most
 * OUTPUT_RECORD_MAX(size) bytes, or nothing where all is held back. `is_last`: nothing may be held
 * back any more. Returns 0, or -1 when it does not fit.
 */
int output_record_append(struct buffer *lines, const char *type, struct output_tail *tail,
                         const uint8_t *data, size_t size, bool is_last)
    __attribute__((warn_unused_result));

/* A control character takes six bytes of JSON. */
#define OUTPUT_RECORD_MAX(size) (6 * ((size) + 4) + 64)
