/* Names of signals as the API takes them. */
#pragma once

#include <stdint.h>

#include "base/error.h"

/* "TERM", "SIGTERM", "15", "RTMIN+3" of Linux on x86 (signal(7)), from 1 to 64. Returns 0, or -1
 * with ERR_INVALID_FIELD. */
int signal_name_parse(const char *text, uint32_t *ret_number, struct error *e)
    __attribute__((warn_unused_result));
