/*
 * Entries of a tree put below a directory. Nothing outside of it is touched, whatever the entries
 * say and whatever the tenant does meanwhile: every path is resolved anew beneath the directory, no
 * symbolic link on it is followed. A file, link or symbolic link appears whole, by rename. A
 * directory gets its time when the entries below it are over.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/tree.h"

struct tree_place;

/* Takes `root_fd`, also on failure. `tag` tells temporary names apart. NULL with errno. */
struct tree_place *tree_place_new(int root_fd, uint32_t tag) __attribute__((warn_unused_result));
/* A file that is not finished is gone then. Accepts NULL. */
void tree_place_free(struct tree_place *p);

/*
 * Puts an entry in its place; a file only begins, and is finished (an empty one, too) by
 * tree_place_end_file(), after its content. Return 0, or an errno.
 */
int tree_place_entry(struct tree_place *p, const struct tree_entry *entry)
    __attribute__((warn_unused_result));
int tree_place_content(struct tree_place *p, const void *data, size_t size)
    __attribute__((warn_unused_result));
int tree_place_end_file(struct tree_place *p) __attribute__((warn_unused_result));

/* No more entries come: directories get their times. */
void tree_place_finish(struct tree_place *p);
