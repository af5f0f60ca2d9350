/*
 * The walk has one directory open at a time and its path below a base. It removes what it finds,
 * goes down where a directory is not empty, and when one is, back up by its path: opened anew, the
 * one above is read from its start, where what was done is gone. A path that grows past
 * CHANNEL_PATH_MAX is cut: the directory that is open becomes the base for what is below, and the
 * old base waits on a stack.
 */
#include "guest/files/file_remove.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "guest/channel/stream.h"
#include "guest/files/dir.h"

/* How often a directory is read that others fill while it is emptied. */
#define PASSES_MAX 3u

struct base {
    int fd;
    char *path; /* from this base to the next one */
};

struct file_remove {
    int parent_fd;
    char name[FILE_NAME_BYTES];
    char top[CHANNEL_PATH_MAX];
    char where[CHANNEL_TEXT_MAX]; /* of the last error */
    struct base bases[FILE_REMOVE_DEPTH_MAX];
    unsigned base_count;
    int base_fd;
    char at[CHANNEL_PATH_MAX]; /* the open directory, seen from base_fd; "" is the base itself */
    struct dir dir;
    unsigned passes;
};

struct file_remove *file_remove_new(int parent_fd, const char *name, const char *path)
{
    struct file_remove *f = calloc(1, sizeof(*f));

    if (f == NULL) {
        fd_close(&parent_fd);
        errno = ENOMEM;
        return NULL;
    }
    f->parent_fd = parent_fd;
    f->base_fd = -1;
    dir_init(&f->dir);
    (void)snprintf(f->name, sizeof(f->name), "%s", name);
    (void)snprintf(f->top, sizeof(f->top), "%s", path);
    int fd = dir_open_below(parent_fd, name);
    if (fd >= 0)
        f->base_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (f->base_fd < 0) {
        int error = errno;
        fd_close(&fd);
        file_remove_free(f);
        errno = error;
        return NULL;
    }
    dir_set(&f->dir, fd);
    return f;
}

void file_remove_free(struct file_remove *f)
{
    if (f == NULL)
        return;
    while (f->base_count > 0) {
        struct base *b = &f->bases[--f->base_count];
        fd_close(&b->fd);
        free(b->path);
    }
    fd_close(&f->parent_fd);
    fd_close(&f->base_fd);
    dir_close(&f->dir);
    free(f);
}

static int fail(struct file_remove *f, const char *name, int error, const char **ret_path)
{
    (void)snprintf(f->where, sizeof(f->where), "%.150s/%.200s%s%.100s", f->top, f->at,
                   f->at[0] != '\0' && name[0] != '\0' ? "/" : "", name);
    *ret_path = f->where;
    return error;
}

/* The open directory becomes the base. */
static int push_base(struct file_remove *f)
{
    struct base b = {.fd = f->base_fd, .path = strdup(f->at)};
    int fd = f->base_count < FILE_REMOVE_DEPTH_MAX && b.path != NULL
                 ? fcntl(f->dir.fd, F_DUPFD_CLOEXEC, 0)
                 : -1;

    if (fd < 0) {
        int error = b.path == NULL                           ? ENOMEM
                    : f->base_count >= FILE_REMOVE_DEPTH_MAX ? ENAMETOOLONG
                                                             : errno;
        free(b.path);
        return error;
    }
    f->bases[f->base_count++] = b;
    f->base_fd = fd;
    f->at[0] = '\0';
    return 0;
}

/* Into a directory that is not empty; 0, or an errno. */
static int descend(struct file_remove *f, const char *name)
{
    int fd = dir_open_below(f->dir.fd, name);

    if (fd < 0)
        return errno == EXDEV ? EBUSY : errno;
    if (strlen(f->at) + 1 + strlen(name) >= sizeof(f->at)) {
        int error = push_base(f);
        if (error != 0) {
            fd_close(&fd);
            return error;
        }
    }
    size_t used = strlen(f->at);
    (void)snprintf(f->at + used, sizeof(f->at) - used, "%s%s", used > 0 ? "/" : "", name);
    dir_set(&f->dir, fd);
    f->passes = 0;
    return 0;
}

/* The directory is at its end, so it should be empty. 0, ENOTEMPTY or another errno. */
static int ascend(struct file_remove *f, bool *ret_done)
{
    char above[CHANNEL_PATH_MAX];

    if (f->at[0] == '\0' && f->base_count > 0) {
        struct base *b = &f->bases[--f->base_count];
        fd_close(&f->base_fd);
        f->base_fd = b->fd;
        memcpy(f->at, b->path, strlen(b->path) + 1);
        free(b->path);
    }
    if (f->at[0] == '\0') {
        *ret_done = unlinkat(f->parent_fd, f->name, AT_REMOVEDIR) == 0 || errno == ENOENT;
        return *ret_done ? 0 : errno;
    }
    const char *slash = strrchr(f->at, '/');
    size_t length = slash != NULL ? (size_t)(slash - f->at) : 0;
    const char *name = slash != NULL ? slash + 1 : f->at;
    memcpy(above, f->at, length);
    above[length] = '\0';
    int fd = dir_open_below(f->base_fd, above);
    if (fd < 0)
        return errno;
    if (unlinkat(fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT) {
        int error = errno;
        fd_close(&fd);
        return error;
    }
    memcpy(f->at, above, length + 1);
    dir_set(&f->dir, fd);
    f->passes = 0;
    return 0;
}

static int remove_entry(struct file_remove *f, const struct dir_entry *entry)
{
    bool is_directory = entry->type == DT_DIR;

    if (!is_directory) {
        if (unlinkat(f->dir.fd, entry->name, 0) == 0 || errno == ENOENT)
            return 0;
        if (errno != EISDIR)
            return errno;
    }
    if (unlinkat(f->dir.fd, entry->name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    return errno == ENOTEMPTY || errno == EEXIST ? descend(f, entry->name) : errno;
}

int file_remove_step(struct file_remove *f, bool *ret_done, const char **ret_path)
{
    struct dir_entry entry;

    for (uint64_t begin_ns = clock_mono_ns(); !*ret_done && !stream_step_is_over(begin_ns);) {
        if (dir_next(&f->dir, &entry)) {
            int error = remove_entry(f, &entry);
            /* Somebody else has been here: the next pass sees what it is now. */
            if (error != 0 && error != ENOTDIR && error != ELOOP)
                return fail(f, entry.name, error, ret_path);
            continue;
        }
        int filled = dir_fill(&f->dir);
        if (filled < 0)
            return fail(f, "", errno, ret_path);
        if (filled > 0)
            continue;
        int error = ascend(f, ret_done);
        if (error == ENOTEMPTY || error == EEXIST) {
            dir_rewind(&f->dir);
            error = ++f->passes < PASSES_MAX ? 0 : ENOTEMPTY;
        }
        if (error != 0)
            return fail(f, "", error, ret_path);
    }
    return 0;
}
