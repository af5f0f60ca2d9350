/* Targets of requests: the paths of the API with what a user typed in them. */
#pragma once

#include "base/buffer.h"
#include "base/error.h"

/*
 * "/v1/sandboxes/" ID, then, where `pid` is not NULL, "/processes/" PID, then `rest` as it is. The
 * result is NUL-terminated in `ret_target`, a buffer of HTTP_TARGET_BYTES_MAX, which the caller
 * frees. 0, or -1 with ERR_USAGE.
 */
int target_make(struct buffer *ret_target, const char *id, const char *pid, const char *rest,
                struct error *e) __attribute__((warn_unused_result));
