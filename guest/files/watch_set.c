#include "guest/files/watch_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cloche/channel.h"

/* Index of the first item at or behind `wd`. */
static unsigned position(const struct watch_set *w, int wd)
{
    unsigned low = 0, high = w->count;

    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (w->items[middle].wd < wd)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool has(const struct watch_set *w, unsigned at, int wd)
{
    return at < w->count && w->items[at].wd == wd;
}

void watch_set_fini(struct watch_set *w)
{
    while (w->count > 0)
        free(w->items[--w->count].path);
    free(w->items);
    *w = (struct watch_set){0};
}

const char *watch_set_find(const struct watch_set *w, int wd)
{
    unsigned at = position(w, wd);

    return has(w, at, wd) ? w->items[at].path : NULL;
}

int watch_set_put(struct watch_set *w, int wd, const char *path)
{
    unsigned at = position(w, wd);
    char *copy = strdup(path);

    if (copy == NULL)
        return -1;
    if (has(w, at, wd)) {
        free(w->items[at].path);
        w->items[at].path = copy;
        return 0;
    }
    if (w->count == w->capacity) {
        unsigned capacity = w->capacity > 0 ? 2 * w->capacity : 16;
        struct watch_item *items = realloc(w->items, capacity * sizeof(*items));
        if (items == NULL) {
            free(copy);
            return -1;
        }
        w->items = items;
        w->capacity = capacity;
    }
    memmove(&w->items[at + 1], &w->items[at], (w->count - at) * sizeof(w->items[0]));
    w->items[at] = (struct watch_item){.wd = wd, .path = copy};
    w->count++;
    return 0;
}

void watch_set_remove(struct watch_set *w, int wd)
{
    unsigned at = position(w, wd);

    if (!has(w, at, wd))
        return;
    free(w->items[at].path);
    w->count--;
    memmove(&w->items[at], &w->items[at + 1], (w->count - at) * sizeof(w->items[0]));
}

static bool is_below(const char *path, const char *top)
{
    size_t size = strlen(top);

    return strncmp(path, top, size) == 0 && (path[size] == '/' || path[size] == '\0');
}

int watch_set_rename(struct watch_set *w, const char *from, const char *to)
{
    for (unsigned i = 0; i < w->count; i++) {
        char path[CHANNEL_PATH_MAX];

        if (!is_below(w->items[i].path, from))
            continue;
        if (snprintf(path, sizeof(path), "%s%s", to, w->items[i].path + strlen(from)) >=
            (int)sizeof(path))
            return -1;
        char *copy = strdup(path);
        if (copy == NULL)
            return -1;
        free(w->items[i].path);
        w->items[i].path = copy;
    }
    return 0;
}

int watch_set_next_below(const struct watch_set *w, int wd, const char *path)
{
    for (unsigned at = position(w, wd); at < w->count; at++) {
        if (is_below(w->items[at].path, path))
            return w->items[at].wd;
    }
    return -1;
}
