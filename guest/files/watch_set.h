/* The directories that one inotify instance watches: their paths by the number it gave. */
#pragma once

#include <stdbool.h>

struct watch_item {
    int wd;
    char *path; /* as events tell it */
};

/* Sorted by wd. Zero-initialised. */
struct watch_set {
    struct watch_item *items;
    unsigned count;
    unsigned capacity;
};

void watch_set_fini(struct watch_set *w);

/* The path, or NULL for a number that is not known (any more). */
const char *watch_set_find(const struct watch_set *w, int wd);

/* Adds, or gives a number another path; -1: no memory. */
int watch_set_put(struct watch_set *w, int wd, const char *path)
    __attribute__((warn_unused_result));

void watch_set_remove(struct watch_set *w, int wd);

/* A directory has moved: its path and those below change. -1: no memory, or a path too long. */
int watch_set_rename(struct watch_set *w, const char *from, const char *to)
    __attribute__((warn_unused_result));

/* The first number at or behind `wd` whose directory is `path` or below it; -1: none is left. */
int watch_set_next_below(const struct watch_set *w, int wd, const char *path);
