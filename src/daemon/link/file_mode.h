/* Permission bits of a file as the API takes them. */
#pragma once

#include <stdint.h>

#include "base/error.h"

#define FILE_MODE_DEFAULT 0644u

/* Octal text, at most "7777"; NULL is the default. Returns 0, or -1 with ERR_INVALID_FIELD. */
int file_mode_parse(const char *text, uint32_t *ret_mode, struct error *e)
    __attribute__((warn_unused_result));
