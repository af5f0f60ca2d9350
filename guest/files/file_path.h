/* Paths of file requests. Everything in the guest's tree is the tenant's, so a path may lead
 * through symbolic links to anywhere in it; what matters is that nothing blocks and only files are
 * touched. */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

#include "base/wire.h"
#include "cloche/channel.h"
#include "guest/channel/stream.h"

/* Reads an absolute path; -1 where the request is malformed. */
int file_path_get(struct wire_reader *reader, char ret_path[CHANNEL_PATH_MAX])
    __attribute__((warn_unused_result));

/*
 * Ends the stream where `path` is no regular file: `stat_error` is errno of the failed stat(2), or
 * 0 with what `st` says.
 */
void file_path_refuse(struct stream *s, const char *path, const struct stat *st, int stat_error);

/*
 * Follows symbolic links in the last component, also one that leads to nothing, so that writing
 * through a link writes to where it points. Returns 0, or -1 with errno.
 */
int file_path_follow(char path[CHANNEL_PATH_MAX]) __attribute__((warn_unused_result));

/*
 * Opens the directory that holds `path` and sets *ret_name to the last component, inside `path`.
 * `make`: it is made with its parents (0755) where it is missing. -1 with errno; EISDIR where
 * `path` ends in a slash, "." or "..".
 */
int file_path_open_parent(char path[CHANNEL_PATH_MAX], bool make, const char **ret_name)
    __attribute__((warn_unused_result));

/* Opens (O_PATH) the directory `path`, made with its parents (0755) where it is missing, behind
 * symbolic links. -1 with errno. */
int file_path_open_made(char path[CHANNEL_PATH_MAX]) __attribute__((warn_unused_result));
