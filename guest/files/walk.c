#include "guest/files/walk.h"

#include <stdio.h>
#include <string.h>

void walk_init(struct walk *walk)
{
    walk->base_fd = -1;
    walk->pending = (struct buffer)BUFFER_INIT(FILE_SEARCH_PENDING_MAX);
    walk->at[0] = '\0';
    dir_init(&walk->dir);
}

int walk_begin(struct walk *walk, int base_fd)
{
    walk->base_fd = base_fd;
    return walk_push(walk, "");
}

void walk_fini(struct walk *walk)
{
    dir_close(&walk->dir);
    buffer_fini(&walk->pending);
}

int walk_path(const struct walk *walk, const char *name, char ret_path[CHANNEL_PATH_MAX])
{
    int size = snprintf(ret_path, CHANNEL_PATH_MAX, "%s%s%s", walk->at,
                        walk->at[0] != '\0' ? "/" : "", name);

    return size < (int)CHANNEL_PATH_MAX ? 0 : -1;
}

int walk_push(struct walk *walk, const char *path)
{
    return buffer_append(&walk->pending, path, strlen(path) + 1);
}

int walk_enter(struct walk *walk)
{
    const char *bytes = (const char *)buffer_bytes(&walk->pending);

    if (walk->pending.size == 0)
        return 0;
    size_t start = walk->pending.size - 1;
    while (start > 0 && bytes[start - 1] != '\0')
        start--;
    memcpy(walk->at, bytes + start, walk->pending.size - start);
    walk->pending.size = start;
    int fd = dir_open_below(walk->base_fd, walk->at);
    if (fd < 0)
        return -1;
    dir_set(&walk->dir, fd);
    return 1;
}
