#include "guest/files/walk.h"

#include <stdio.h>
#include <string.h>

#include "base/fd.h"

int walk_init(struct walk *w, int base_fd)
{
    w->base_fd = base_fd;
    w->pending = (struct buffer)BUFFER_INIT(FILE_SEARCH_PENDING_MAX);
    w->at[0] = '\0';
    dir_init(&w->dir);
    return base_fd < 0 ? 0 : walk_push(w, "");
}

void walk_fini(struct walk *w)
{
    dir_close(&w->dir);
    fd_close(&w->base_fd);
    buffer_fini(&w->pending);
}

int walk_path(const struct walk *w, const char *name, char ret_path[CHANNEL_PATH_MAX])
{
    int size =
        snprintf(ret_path, CHANNEL_PATH_MAX, "%s%s%s", w->at, w->at[0] != '\0' ? "/" : "", name);

    return size < (int)CHANNEL_PATH_MAX ? 0 : -1;
}

int walk_push(struct walk *w, const char *path)
{
    return buffer_append(&w->pending, path, strlen(path) + 1);
}

int walk_enter(struct walk *w)
{
    const char *bytes = (const char *)buffer_bytes(&w->pending);

    if (w->pending.size == 0)
        return 0;
    size_t start = w->pending.size - 1;
    while (start > 0 && bytes[start - 1] != '\0')
        start--;
    memcpy(w->at, bytes + start, w->pending.size - start);
    w->pending.size = start;
    int fd = dir_open_below(w->base_fd, w->at);
    if (fd < 0)
        return -1;
    dir_set(&w->dir, fd);
    return 1;
}
