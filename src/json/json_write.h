/*
 * JSON out: written straight into a buffer, so that a large output exists once. A failure (the
 * buffer's maximum, no memory) is kept in `failed` and checked once at the end. Keys are NULL
 * inside arrays and for the outermost value. The result is always valid JSON in valid UTF-8.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "json/json.h"

struct json_writer {
    struct buffer *out;
    bool comma; /* a value came before in this object or array */
    bool failed;
};

void json_writer_init(struct json_writer *w, struct buffer *out);

void json_begin_object(struct json_writer *w, const char *key);
void json_end_object(struct json_writer *w);
void json_begin_array(struct json_writer *w, const char *key);
void json_end_array(struct json_writer *w);

/* Text for people: bytes that are not UTF-8 come out as U+FFFD. NULL is written as null. */
void json_put_text(struct json_writer *w, const char *key, const char *text);
void json_put_int(struct json_writer *w, const char *key, int64_t value);
void json_put_bool(struct json_writer *w, const char *key, bool value);
void json_put_null(struct json_writer *w, const char *key);
/* Nanoseconds as milliseconds with three decimals. */
void json_put_ms(struct json_writer *w, const char *key, uint64_t ns);
/* Nanoseconds since 1970 as a time of RFC 3339, in UTC, with milliseconds. */
void json_put_time(struct json_writer *w, const char *key, uint64_t real_ns);
/* Values of an array that are JSON already, with commas between them. */
void json_put_made(struct json_writer *w, const void *data, size_t size);
/* A tree of cJSON's. */
void json_put_tree(struct json_writer *w, const char *key, const cJSON *tree);

/* Bytes that must survive: member `key` where they are UTF-8 without NUL, else `key`_base64. For
 * objects only. */
void json_put_bytes(struct json_writer *w, const char *key, const void *data, size_t size);
/* Always base64, as `key`_base64. */
void json_put_base64(struct json_writer *w, const char *key, const void *data, size_t size);

/* {"error":{"code","message","cause","remedy","request_id"}}; empty parts are left out. */
void json_put_error(struct json_writer *w, const struct error *e, const char *request_id);
/* Only the member "error" of it, for an object that says more. */
void json_put_error_member(struct json_writer *w, const struct error *e, const char *request_id);

/* The other direction, for clients: an error reply's tree as a struct error. Returns -1 always, and
 * ERR_INTERNAL where the tree is not an error reply. */
int json_error_read(const cJSON *reply, struct error *e) __attribute__((nonnull(2)));
