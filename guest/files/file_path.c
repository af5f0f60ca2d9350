#include "guest/files/file_path.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"

#define LINKS_MAX 40 /* as in the kernel */

int file_path_get(struct wire_reader *reader, char ret_path[CHANNEL_PATH_MAX])
{
    size_t size = 0;
    const char *bytes = wire_get_string(reader, CHANNEL_PATH_MAX - 1, &size);

    if (bytes == NULL || size == 0 || bytes[0] != '/')
        return -1;
    memcpy(ret_path, bytes, size);
    ret_path[size] = '\0';
    return 0;
}

void file_path_refuse(struct stream *s, const char *path, const struct stat *st, int stat_error)
{
    if (stat_error != 0)
        stream_fail(s, stat_error, "%s: %s", path, strerror(stat_error));
    else if (S_ISDIR(st->st_mode))
        stream_fail(s, EISDIR, "%s: Is a directory", path);
    else
        stream_fail(s, EINVAL, "%s: not a regular file, but a %s", path,
                    S_ISFIFO(st->st_mode)   ? "fifo"
                    : S_ISSOCK(st->st_mode) ? "socket"
                                            : "device");
}

int file_path_follow(char path[CHANNEL_PATH_MAX])
{
    char target[CHANNEL_PATH_MAX];

    for (int i = 0; i < LINKS_MAX; i++) {
        ssize_t n = readlink(path, target, sizeof(target));

        /* EINVAL: it is there and no link. ENOENT: it is to be made. */
        if (n < 0)
            return errno == EINVAL || errno == ENOENT ? 0 : -1;
        char *slash = strrchr(path, '/');
        size_t dir_length = target[0] == '/' || slash == NULL ? 0 : (size_t)(slash + 1 - path);
        if (n == 0 || (size_t)n >= CHANNEL_PATH_MAX - dir_length) {
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(path + dir_length, target, (size_t)n);
        path[dir_length + (size_t)n] = '\0';
    }
    errno = ELOOP;
    return -1;
}

/* mkdir -p of `path`, which is restored. */
static int make_directories(char *path)
{
    for (char *at = path + 1;; at++) {
        char end = *at;

        if (end != '/' && end != '\0')
            continue;
        *at = '\0';
        /* What exists and is no directory shows when the next one is made, or opened. */
        int result = mkdir(path, 0755);
        int error = errno;
        *at = end;
        if (result < 0 && error != EEXIST) {
            errno = error;
            return -1;
        }
        if (end == '\0')
            return 0;
    }
}

int file_path_open_made(char path[CHANNEL_PATH_MAX])
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT && make_directories(path) == 0)
        fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd;
}

int file_path_open_parent(char path[CHANNEL_PATH_MAX], bool make, const char **ret_name)
{
    char *slash = strrchr(path, '/');
    const char *name = slash + 1;

    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        errno = EISDIR;
        return -1;
    }
    *ret_name = name;
    if (slash == path)
        return open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    *slash = '\0';
    int fd = make ? file_path_open_made(path) : open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    *slash = '/';
    return fd;
}
