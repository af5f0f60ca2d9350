/* UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing past U+10FFFF. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Length (1..4) of the well-formed sequence that `data` starts with, or 0 where there is none. */
size_t utf8_sequence(const void *data, size_t size);

/* Whether all `size` bytes are well-formed. */
bool utf8_valid(const void *data, size_t size);
