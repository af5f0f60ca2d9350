/* One side of a `cloche cp`: a path here, or in a sandbox. */
#pragma once

#include <stdbool.h>

#include "base/buffer.h"
#include "base/error.h"
#include "cli/common/command.h"
#include "cloche/limits.h"

struct cp_place {
    char id[SANDBOX_ID_BYTES_MAX]; /* empty: here */
    char path[CHANNEL_PATH_MAX];   /* "-" here: standard input or output */
};

/* From "ID:/path" or "path"; ERR_USAGE of the command's. */
int cp_place_parse(const struct command *command, const char *text, struct cp_place *ret_place,
                   struct error *e) __attribute__((warn_unused_result));

/* Is it a directory here? One of the name "-" is not meant by "-", but by "./-". */
bool cp_place_is_directory(const struct cp_place *place);

/* Appends the request's target for a call ("/files", "/files/tar") with the path of a place in a
 * sandbox, and `query` as it is; with a NUL. */
int cp_place_target(const struct cp_place *place, const char *call, const char *query,
                    struct buffer *ret_target, struct error *e) __attribute__((warn_unused_result));
