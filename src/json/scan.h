/* The check in front of cJSON: is this text JSON as json.h defines it? */
#pragma once

#include <stddef.h>

#include "base/error.h"

/* Returns 0, or -1 with ERR_INVALID_JSON. Duplicate keys are not looked for here. */
int json_scan(const char *text, size_t size, struct error *e) __attribute__((warn_unused_result));
