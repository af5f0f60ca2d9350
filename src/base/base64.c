#include "base/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(const void *data, size_t size, char *ret_text)
{
    const uint8_t *p = data;

    for (; size >= 3; size -= 3, p += 3) {
        uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];

        *ret_text++ = alphabet[bits >> 18];
        *ret_text++ = alphabet[bits >> 12 & 63];
        *ret_text++ = alphabet[bits >> 6 & 63];
        *ret_text++ = alphabet[bits & 63];
    }
    if (size == 0)
        return;
    uint32_t bits = (uint32_t)p[0] << 16 | (size == 2 ? (uint32_t)p[1] << 8 : 0);
    *ret_text++ = alphabet[bits >> 18];
    *ret_text++ = alphabet[bits >> 12 & 63];
    *ret_text++ = size == 2 ? alphabet[bits >> 6 & 63] : '=';
    *ret_text++ = '=';
}

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Four characters, of which the last `padding` are '='. */
static int decode_group(const char *text, size_t padding, uint8_t *ret_data)
{
    uint32_t bits = 0;

    for (size_t i = 0; i < 4; i++) {
        int value = i < 4 - padding ? digit(text[i]) : 0;

        if (value < 0)
            return -1;
        bits = bits << 6 | (uint32_t)value;
    }
    /* Bits that fall into the padding must be 0, or one text would have several spellings. */
    if ((padding == 1 && (bits & 0xff) != 0) || (padding == 2 && (bits & 0xffff) != 0))
        return -1;
    ret_data[0] = (uint8_t)(bits >> 16);
    if (padding < 2)
        ret_data[1] = (uint8_t)(bits >> 8);
    if (padding < 1)
        ret_data[2] = (uint8_t)bits;
    return 0;
}

int base64_decode(const char *text, size_t size, uint8_t *ret_data, size_t *ret_size)
{
    size_t padding = 0;

    if (size % 4 != 0)
        return -1;
    if (size > 0 && text[size - 1] == '=')
        padding = text[size - 2] == '=' ? 2 : 1;
    for (size_t at = 0; at < size; at += 4) {
        if (decode_group(text + at, at + 4 == size ? padding : 0, ret_data + at / 4 * 3) != 0)
            return -1;
    }
    *ret_size = size / 4 * 3 - padding;
    return 0;
}
