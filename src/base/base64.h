/* Base64 (RFC 4648 section 4), padded; the decoder takes the canonical form only. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Characters that `size` bytes become. */
static inline size_t base64_encoded_size(size_t size)
{
    return (size + 2) / 3 * 4;
}

/* Bytes that `size` characters become at most. */
static inline size_t base64_decoded_max(size_t size)
{
    return size / 4 * 3;
}

/* Writes base64_encoded_size(size) characters to `ret_text`, without a NUL. */
void base64_encode(const void *data, size_t size, char *ret_text);

/* Decodes to `ret_data`, which has room for base64_decoded_max(size). Returns 0, or -1 for a length
 * that is no multiple of 4, any other character, wrong padding or unused bits that are set. */
int base64_decode(const char *text, size_t size, uint8_t *ret_data, size_t *ret_size)
    __attribute__((warn_unused_result));
