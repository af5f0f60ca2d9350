/*
 * A tree removed in bounded steps and bounded memory, however deep it is and whatever its tenant
 * does to it meanwhile: the walk never leaves the tree, follows no symbolic link and enters no
 * mount point.
 */
#pragma once

#include <stdbool.h>

#include "cloche/channel.h"

struct file_remove;

/*
 * Starts with the directory `name` in `parent_fd` (taken, also on failure). NULL with errno. The
 * `path` is for error texts.
 */
struct file_remove *file_remove_new(int parent_fd, const char *name, const char *path)
    __attribute__((warn_unused_result));
void file_remove_free(struct file_remove *f);

/* One short step; sets *ret_done when nothing is left. Returns 0, or an errno, with the
 * path of what is in the way in *ret_path (good until the next call). */
int file_remove_step(struct file_remove *f, bool *ret_done, const char **ret_path)
    __attribute__((warn_unused_result));
