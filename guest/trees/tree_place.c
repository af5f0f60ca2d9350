#include "guest/trees/tree_place.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

#define TEMP_TRIES_MAX   16u
#define DIRECTORY_MODE   0755 /* of one that no entry speaks of */
#define FLAGS_DIRECTORY  (O_PATH | O_DIRECTORY | O_CLOEXEC)
#define FLAGS_ATTRIBUTES (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

/* A directory on the way to the last entry, which gets its time when that way is left. */
struct open_directory {
    size_t path_size; /* of tree_place.way */
    struct timespec mtime;
};

struct tree_place {
    int root_fd;
    uint32_t tag;
    int parent_fd;                 /* of the last entry ... */
    char parent[CHANNEL_PATH_MAX]; /* ... and its path; "" is the root */
    struct open_directory directories[TREE_DEPTH_MAX];
    unsigned directory_count;
    char way[CHANNEL_PATH_MAX]; /* the path of the last of them */

    int file_fd; /* the file that is written; -1: none */
    struct tree_entry file;
    char name[FILE_NAME_BYTES];
    char temp_name[FILE_NAME_BYTES]; /* "": there is none */
};

struct tree_place *tree_place_new(int root_fd, uint32_t tag)
{
    struct tree_place *p = calloc(1, sizeof(*p));

    if (p == NULL) {
        fd_close(&root_fd);
        errno = ENOMEM;
        return NULL;
    }
    p->root_fd = root_fd;
    p->tag = tag;
    p->file_fd = p->parent_fd = -1;
    return p;
}

static void remove_temp(struct tree_place *p)
{
    if (p->temp_name[0] != '\0')
        (void)unlinkat(p->parent_fd, p->temp_name, 0);
    p->temp_name[0] = '\0';
}

void tree_place_free(struct tree_place *p)
{
    if (p == NULL)
        return;
    fd_close(&p->file_fd);
    remove_temp(p);
    fd_close(&p->parent_fd);
    fd_close(&p->root_fd);
    free(p);
}

static int open_below(int fd, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};

    return (int)syscall(SYS_openat2, fd, path, &how, sizeof(how));
}

/* The directory `path`, made with all above it where they are missing; -1 with errno. */
static int open_made(int root_fd, const char *path)
{
    char name[FILE_NAME_BYTES];
    int fd = open_below(root_fd, path, FLAGS_DIRECTORY);

    if (fd >= 0 || errno != ENOENT)
        return fd;
    fd = fcntl(root_fd, F_DUPFD_CLOEXEC, 0);
    for (const char *at = path; fd >= 0 && *at != '\0';) {
        size_t length = strcspn(at, "/");
        memcpy(name, at, length);
        name[length] = '\0';
        int below = open_below(fd, name, FLAGS_DIRECTORY);
        if (below < 0 && errno == ENOENT &&
            (mkdirat(fd, name, DIRECTORY_MODE) == 0 || errno == EEXIST))
            below = open_below(fd, name, FLAGS_DIRECTORY);
        fd_close(&fd);
        fd = below;
        at += length + strspn(at + length, "/");
    }
    return fd;
}

/* Splits the entry's path: its directory is open then, and its name set. Returns 0, or an errno. */
static int enter_parent(struct tree_place *p, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    size_t length = slash != NULL ? (size_t)(slash - path) : 0;

    memcpy(p->name, name, strlen(name) + 1);
    if (p->parent_fd >= 0 && strncmp(p->parent, path, length) == 0 && p->parent[length] == '\0')
        return 0;
    fd_close(&p->parent_fd);
    memcpy(p->parent, path, length);
    p->parent[length] = '\0';
    p->parent_fd =
        length > 0 ? open_made(p->root_fd, p->parent) : fcntl(p->root_fd, F_DUPFD_CLOEXEC, 0);
    return p->parent_fd < 0 ? errno : 0;
}

static struct timespec time_of(const struct tree_entry *t)
{
    return (struct timespec){.tv_sec = t->mtime_s, .tv_nsec = t->mtime_ns};
}

/* The owner first: a change of owner clears the set-user-id bit. */
static int set_attributes(int fd, const struct tree_entry *t, bool is_new)
{
    if ((!is_new || t->uid != 0 || t->gid != 0) && fchown(fd, t->uid, t->gid) < 0)
        return errno;
    return fchmod(fd, t->mode) < 0 ? errno : 0;
}

/* --- Times of directories ---------------------------------------------------------------------
 */

/* Leaves all directories that `path` is not below. What has gone meanwhile needs no time. */
static void leave_directories(struct tree_place *p, const char *path)
{
    while (p->directory_count > 0) {
        const struct open_directory *d = &p->directories[p->directory_count - 1];

        if (strncmp(p->way, path, d->path_size) == 0 && path[d->path_size] == '/')
            return;
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, d->mtime};
        p->way[d->path_size] = '\0';
        FD_AUTO int fd = open_below(p->root_fd, p->way, FLAGS_ATTRIBUTES);
        if (fd >= 0)
            (void)futimens(fd, times);
        p->directory_count--;
    }
}

static void remember_directory(struct tree_place *p, const struct tree_entry *t)
{
    size_t size = strlen(t->path);

    if (p->directory_count == TREE_DEPTH_MAX)
        return;
    p->directories[p->directory_count++] =
        (struct open_directory){.path_size = size, .mtime = time_of(t)};
    memcpy(p->way, t->path, size + 1);
}

void tree_place_finish(struct tree_place *p)
{
    leave_directories(p, "");
}

/* --- Entries ------------------------------------------------------------------------------------
 */

static int put_directory(struct tree_place *p, const struct tree_entry *t)
{
    bool is_new = mkdirat(p->parent_fd, p->name, t->mode & 0777) == 0;

    if (!is_new && errno != EEXIST)
        return errno;
    FD_AUTO int fd = open_below(p->parent_fd, p->name, FLAGS_ATTRIBUTES);
    if (fd < 0)
        return errno == ELOOP ? ENOTDIR : errno;
    int error = set_attributes(fd, t, is_new);
    if (error == 0)
        remember_directory(p, t);
    return error;
}

/* A free name beside the entry's, made by `make`, which returns -1 with errno. */
static int make_temp(struct tree_place *p, const struct tree_entry *t,
                     int (*make)(struct tree_place *p, const struct tree_entry *t))
{
    for (unsigned i = 0;; i++) {
        (void)snprintf(p->temp_name, sizeof(p->temp_name), ".cloche-%u.%u.part", p->tag, i);
        if (make(p, t) == 0)
            return 0;
        int error = errno;
        p->temp_name[0] = '\0';
        if (error != EEXIST || i >= TEMP_TRIES_MAX)
            return error;
    }
}

static int make_file(struct tree_place *p, const struct tree_entry *t)
{
    (void)t;
    p->file_fd = openat(p->parent_fd, p->temp_name,
                        O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return p->file_fd < 0 ? -1 : 0;
}

static int make_symlink(struct tree_place *p, const struct tree_entry *t)
{
    return symlinkat(t->target, p->parent_fd, p->temp_name);
}

/* Only to a file below the root; no link on the way to it, or in its place, is followed. */
static int make_link(struct tree_place *p, const struct tree_entry *t)
{
    FD_AUTO int fd = open_below(p->root_fd, t->target, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -1;
    if (!S_ISREG(st.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    return linkat(fd, "", p->parent_fd, p->temp_name, AT_EMPTY_PATH);
}

static int show_temp(struct tree_place *p)
{
    if (renameat(p->parent_fd, p->temp_name, p->parent_fd, p->name) < 0)
        return errno;
    /* Between two links of one file a rename does nothing. */
    remove_temp(p);
    return 0;
}

static int put_symlink(struct tree_place *p, const struct tree_entry *t)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, time_of(t)};
    int error = make_temp(p, t, make_symlink);

    if (error != 0)
        return error;
    if (((t->uid != 0 || t->gid != 0) &&
         fchownat(p->parent_fd, p->temp_name, t->uid, t->gid, AT_SYMLINK_NOFOLLOW) < 0) ||
        utimensat(p->parent_fd, p->temp_name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return errno;
    return show_temp(p);
}

static int put_link(struct tree_place *p, const struct tree_entry *t)
{
    int error = make_temp(p, t, make_link);

    return error != 0 ? error : show_temp(p);
}

int tree_place_entry(struct tree_place *p, const struct tree_entry *t)
{
    remove_temp(p);
    leave_directories(p, t->path);
    int error = enter_parent(p, t->path);
    if (error != 0)
        return error;
    switch (t->type) {
    case TREE_DIRECTORY:
        return put_directory(p, t);
    case TREE_SYMLINK:
        return put_symlink(p, t);
    case TREE_HARDLINK:
        return put_link(p, t);
    default:
        p->file = *t;
        return make_temp(p, t, make_file);
    }
}

int tree_place_content(struct tree_place *p, const void *data, size_t size)
{
    return fd_write_full(p->file_fd, data, size) < 0 ? errno : 0;
}

int tree_place_end_file(struct tree_place *p)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, time_of(&p->file)};
    int error = set_attributes(p->file_fd, &p->file, true);

    if (error == 0 && futimens(p->file_fd, times) < 0)
        error = errno;
    if (close(fd_take(&p->file_fd)) < 0 && error == 0)
        error = errno;
    return error != 0 ? error : show_temp(p);
}
