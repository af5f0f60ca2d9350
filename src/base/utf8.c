#include "base/utf8.h"

#include <stdint.h>

/* Table 3-7 of the Unicode standard: the first byte fixes the length and the second byte's range;
 * all later ones are 80..BF. */
static const struct {
    uint8_t first_min, first_max, second_min, second_max, size;
} forms[] = {
    {0x00, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
    {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
    {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
};

size_t utf8_sequence(const void *data, size_t size)
{
    const uint8_t *p = data;

    if (size == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    for (size_t i = 1; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (p[0] < forms[i].first_min || p[0] > forms[i].first_max)
            continue;
        if (size < forms[i].size || p[1] < forms[i].second_min || p[1] > forms[i].second_max)
            return 0;
        for (size_t k = 2; k < forms[i].size; k++) {
            if ((p[k] & 0xc0) != 0x80)
                return 0;
        }
        return forms[i].size;
    }
    return 0;
}

bool utf8_valid(const void *data, size_t size)
{
    const uint8_t *p = data;

    for (size_t at = 0; at < size;) {
        size_t step = p[at] < 0x80 ? 1 : utf8_sequence(p + at, size - at);

        if (step == 0)
            return false;
        at += step;
    }
    return true;
}
