/* A growable byte buffer that is born with a maximum. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * `data + head` to `data + head + size` is the content; consuming moves `head`, appending compacts
 * or grows. Never larger than `size_max`. Zero-initialised with BUFFER_INIT(max).
 */
struct buffer {
    uint8_t *data;
    size_t head;
    size_t size;
    size_t capacity;
    size_t size_max;
};

#define BUFFER_INIT(max)                                                                           \
    {                                                                                              \
        .size_max = (max)                                                                          \
    }

/* Frees the content; the maximum stays, so the buffer can be used again. Accepts an empty one. */
void buffer_fini(struct buffer *b);

/* Room for `size` more bytes at the end: returns where to write, or NULL when the maximum would be
 * passed or memory is short (the content is untouched then). buffer_commit counts what was written.
 */
uint8_t *buffer_reserve(struct buffer *b, size_t size) __attribute__((warn_unused_result));
void buffer_commit(struct buffer *b, size_t size);

/* Append; return 0, or -1 when it does not fit (nothing is appended then). */
int buffer_append(struct buffer *b, const void *data, size_t size)
    __attribute__((warn_unused_result));
int buffer_append_text(struct buffer *b, const char *text) __attribute__((warn_unused_result));
int buffer_printf(struct buffer *b, const char *format, ...)
    __attribute__((format(printf, 2, 3), warn_unused_result));

/* Drops `size` bytes (at most the content) from the front. */
void buffer_consume(struct buffer *b, size_t size);

/* The content; NULL, perhaps, where there is none. */
static inline uint8_t *buffer_bytes(const struct buffer *b)
{
    return b->head > 0 ? b->data + b->head : b->data;
}

static inline size_t buffer_room(const struct buffer *b)
{
    return b->size_max - b->size;
}
