#include "base/wire.h"

const uint8_t *wire_get_bytes(struct wire_reader *r, size_t size)
{
    const uint8_t *at = r->at;

    if (r->bad || size > r->left) {
        r->bad = true;
        return NULL;
    }
    r->at += size;
    r->left -= size;
    return at;
}

static uint64_t get_le(struct wire_reader *r, size_t size)
{
    const uint8_t *p = wire_get_bytes(r, size);
    uint64_t value = 0;

    for (size_t i = 0; p != NULL && i < size; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

uint8_t wire_get_u8(struct wire_reader *r)
{
    return (uint8_t)get_le(r, 1);
}

uint16_t wire_get_u16(struct wire_reader *r)
{
    return (uint16_t)get_le(r, 2);
}

uint32_t wire_get_u32(struct wire_reader *r)
{
    return (uint32_t)get_le(r, 4);
}

uint64_t wire_get_u64(struct wire_reader *r)
{
    return get_le(r, 8);
}

const char *wire_get_string(struct wire_reader *r, size_t size_max, size_t *ret_size)
{
    uint32_t size = wire_get_u32(r);

    if (size > size_max)
        r->bad = true;
    const uint8_t *p = wire_get_bytes(r, size);
    if (p == NULL || memchr(p, '\0', size) != NULL) {
        r->bad = true;
        return NULL;
    }
    *ret_size = size;
    return (const char *)p;
}

void wire_put_bytes(struct wire_writer *w, const void *data, size_t size)
{
    if (w->bad || size > w->left) {
        w->bad = true;
        return;
    }
    if (size > 0)
        memcpy(w->at, data, size);
    w->at += size;
    w->left -= size;
    w->used += size;
}

static void put_le(struct wire_writer *w, uint64_t value, size_t size)
{
    uint8_t bytes[8];

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    wire_put_bytes(w, bytes, size);
}

void wire_put_u8(struct wire_writer *w, uint8_t value)
{
    put_le(w, value, 1);
}

void wire_put_u16(struct wire_writer *w, uint16_t value)
{
    put_le(w, value, 2);
}

void wire_put_u32(struct wire_writer *w, uint32_t value)
{
    put_le(w, value, 4);
}

void wire_put_u64(struct wire_writer *w, uint64_t value)
{
    put_le(w, value, 8);
}

void wire_put_string(struct wire_writer *w, const char *text, size_t size)
{
    if (size > UINT32_MAX) {
        w->bad = true;
        return;
    }
    wire_put_u32(w, (uint32_t)size);
    wire_put_bytes(w, text, size);
}
