/* cloche cp: a file at a time (cp.c), or a tree (cp_tree.c). */
#pragma once

#include "base/buffer.h"
#include "base/error.h"
#include "cloche/limits.h"

/* One side of the copy. */
struct cp_place {
    char id[SANDBOX_ID_BYTES_MAX]; /* empty: here */
    char path[CHANNEL_PATH_MAX];   /* "-" here: standard input or output */
};

/* The request's target for a call ("/files", "/files/tar") with the place's path. */
int cp_make_target(const struct cp_place *p, const char *call, const char *query,
                   struct buffer *ret_target, struct error *e) __attribute__((warn_unused_result));

/*
 * Copy what a directory holds to another, which is made where it is missing. What comes out of a
 * sandbox is not trusted: it stays in its directory, and special permission bits are not kept.
 * What cannot be copied is told on stderr.
 */
int cp_put_tree(const char *socket_path, const struct cp_place *from, const struct cp_place *to,
                struct error *e) __attribute__((warn_unused_result));
int cp_get_tree(const char *socket_path, const struct cp_place *from, const struct cp_place *to,
                struct error *e) __attribute__((warn_unused_result));
