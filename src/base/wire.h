/*
 * Little-endian integers and length-prefixed strings in a bounded span of bytes. The reader never
 * passes its end: a read that would sets `bad` and yields zeroes, so a parser may read all its
 * fields and check once. The writer likewise sets `bad` when its space is used up.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct wire_reader {
    const uint8_t *at;
    size_t left;
    bool bad;
};

struct wire_writer {
    uint8_t *at;
    size_t left;
    size_t used;
    bool bad;
};

static inline void wire_reader_init(struct wire_reader *r, const void *data, size_t size)
{
    *r = (struct wire_reader){.at = data, .left = size};
}

static inline void wire_writer_init(struct wire_writer *w, void *data, size_t size)
{
    *w = (struct wire_writer){.at = data, .left = size};
}

/* `size` bytes, valid as long as the span is; NULL when fewer are left. */
const uint8_t *wire_get_bytes(struct wire_reader *r, size_t size);
uint8_t wire_get_u8(struct wire_reader *r);
uint16_t wire_get_u16(struct wire_reader *r);
uint32_t wire_get_u32(struct wire_reader *r);
uint64_t wire_get_u64(struct wire_reader *r);

/* u32 length and the bytes, which are not NUL-terminated; longer than `size_max` is bad, as is a
 * NUL inside. Returns NULL when bad. */
const char *wire_get_string(struct wire_reader *r, size_t size_max, size_t *ret_size);

void wire_put_bytes(struct wire_writer *w, const void *data, size_t size);
void wire_put_u8(struct wire_writer *w, uint8_t value);
void wire_put_u16(struct wire_writer *w, uint16_t value);
void wire_put_u32(struct wire_writer *w, uint32_t value);
void wire_put_u64(struct wire_writer *w, uint64_t value);
void wire_put_string(struct wire_writer *w, const char *text, size_t size);
