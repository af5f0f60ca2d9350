#include "base/buffer.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_START 512u

void buffer_fini(struct buffer *b)
{
    free(b->data);
    *b = (struct buffer){.size_max = b->size_max};
}

uint8_t *buffer_reserve(struct buffer *b, size_t size)
{
    if (size > b->size_max - b->size)
        return NULL;
    if (b->head > 0 && b->capacity - b->head - b->size < size) {
        memmove(b->data, b->data + b->head, b->size);
        b->head = 0;
    }
    if (b->capacity - b->head - b->size < size || b->data == NULL) {
        size_t capacity = b->capacity > 0 ? b->capacity : BUFFER_START;

        while (capacity < b->size + size)
            capacity *= 2;
        uint8_t *data = realloc(b->data, capacity);
        if (data == NULL)
            return NULL;
        b->data = data;
        b->capacity = capacity;
    }
    return b->data + b->head + b->size;
}

void buffer_commit(struct buffer *b, size_t size)
{
    assert(size <= b->capacity - b->head - b->size);
    b->size += size;
}

int buffer_append(struct buffer *b, const void *data, size_t size)
{
    uint8_t *to = buffer_reserve(b, size);

    if (to == NULL)
        return -1;
    if (size > 0)
        memcpy(to, data, size);
    b->size += size;
    return 0;
}

int buffer_append_text(struct buffer *b, const char *text)
{
    return buffer_append(b, text, strlen(text));
}

int buffer_printf(struct buffer *b, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    int length = vsnprintf(NULL, 0, format, ap);
    va_end(ap);
    if (length < 0)
        return -1;
    /* One more for vsnprintf's NUL, which is not part of the content. */
    uint8_t *to = buffer_reserve(b, (size_t)length + 1);
    if (to == NULL)
        return -1;
    va_start(ap, format);
    (void)vsnprintf((char *)to, (size_t)length + 1, format, ap);
    va_end(ap);
    b->size += (size_t)length;
    return 0;
}

void buffer_consume(struct buffer *b, size_t size)
{
    assert(size <= b->size);
    b->head += size;
    b->size -= size;
    if (b->size == 0)
        b->head = 0;
}
