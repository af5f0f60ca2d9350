/* What the agent says about changes (events, see cloche/channel.h), as lines of JSON. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "cloche/channel.h"

#define FILE_EVENT_BYTES_MAX (4u + 4u + 2 * (4u + CHANNEL_PATH_MAX - 1))
/* A byte of a path takes six of JSON at most. */
#define FILE_EVENT_LINE_MAX (12u * CHANNEL_PATH_MAX + 256u)

/*
 * Takes the first event of `data`, of which more may be on its way, and appends its line to `lines`
 * (no line for a mark of being at work). Returns 1 and how many bytes it had, 0 where its rest has
 * not come, or -1 with ERR_BAD_REQUEST for what is no event, ERR_INTERNAL where memory is short.
 */
int file_event_take(const void *data, size_t size, struct buffer *lines, size_t *ret_used,
                    struct error *e) __attribute__((nonnull(3, 4, 5), warn_unused_result));
