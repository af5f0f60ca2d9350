/* CHANGE: what is done to files as a whole. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "guest/channel/records.h"
#include "guest/channel/service.h"
#include "guest/files/file_ops.h"
#include "guest/files/file_path.h"
#include "guest/files/file_remove.h"

#define MODE_MASK 07777u

struct file_change {
    struct records records;
    struct file_remove *remove; /* NULL: nothing is left for later */
};

_Static_assert(sizeof(struct file_change) <= STREAM_STATE_BYTES, "a change allocates little");

/* What is asked for. */
struct change {
    uint32_t flags;
    mode_t mode;
    char path[CHANNEL_PATH_MAX];
    char other[CHANNEL_PATH_MAX];
};

static bool is_directory(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The mask and the kernel keep bits from a new directory. */
static int set_mode(int parent_fd, const char *name, mode_t mode)
{
    if ((mode & (SERVICE_UMASK | 07000u)) == 0)
        return 0;
    FD_AUTO int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -1 : fchmod(fd, mode);
}

/* Each does its change and returns 0, or -1 with errno. */
static int do_mkdir(struct file_change *f, struct change *c)
{
    bool with_parents = (c->flags & CHANNEL_CHANGE_PARENTS) != 0;
    const char *name;

    if (with_parents && is_directory(c->path)) {
        f->records.flags = CHANNEL_END_EXISTED;
        return 0;
    }
    FD_AUTO int parent_fd = file_path_open_parent(c->path, with_parents, &name);
    if (parent_fd < 0)
        return -1;
    if (mkdirat(parent_fd, name, c->mode) == 0)
        return set_mode(parent_fd, name, c->mode);
    return -1;
}

static int do_rename(struct file_change *f, struct change *c)
{
    unsigned flags = (c->flags & CHANNEL_CHANGE_OVERWRITE) != 0 ? 0 : RENAME_NOREPLACE;

    (void)f;
    return (int)syscall(SYS_renameat2, AT_FDCWD, c->path, AT_FDCWD, c->other, flags);
}

static int do_chmod(struct file_change *f, struct change *c)
{
    (void)f;
    return chmod(c->path, c->mode);
}

static int do_symlink(struct file_change *f, struct change *c)
{
    (void)f;
    return symlink(c->other, c->path);
}

/* A tree is left to the steps of handle_pump(). */
static int do_remove(struct file_change *f, struct change *c)
{
    const char *name;

    if (strspn(c->path, "/") == strlen(c->path)) {
        errno = EBUSY;
        return -1;
    }
    FD_AUTO int parent_fd = file_path_open_parent(c->path, false, &name);
    if (parent_fd < 0)
        return -1;
    if (unlinkat(parent_fd, name, 0) == 0)
        return 0;
    if (errno != EISDIR || unlinkat(parent_fd, name, AT_REMOVEDIR) == 0)
        return errno != EISDIR ? -1 : 0;
    if ((errno != ENOTEMPTY && errno != EEXIST) || (c->flags & CHANNEL_CHANGE_TREE) == 0)
        return -1;
    f->remove = file_remove_new(fd_take(&parent_fd), name, c->path);
    return f->remove != NULL ? 0 : -1;
}

static const struct {
    uint32_t change;
    uint32_t flags; /* that it may have */
    bool has_other;
    int (*run)(struct file_change *f, struct change *c);
} changes[] = {
    {CHANNEL_CHANGE_MKDIR, CHANNEL_CHANGE_PARENTS, false, do_mkdir},
    {CHANNEL_CHANGE_RENAME, CHANNEL_CHANGE_OVERWRITE, true, do_rename},
    {CHANNEL_CHANGE_REMOVE, CHANNEL_CHANGE_TREE, false, do_remove},
    {CHANNEL_CHANGE_CHMOD, 0, false, do_chmod},
    {CHANNEL_CHANGE_SYMLINK, 0, true, do_symlink},
};

static void run(struct stream *s, size_t row, struct change *c)
{
    struct file_change *f = s->state;

    if (changes[row].run(f, c) == 0) {
        f->records.is_done = f->remove == NULL;
        return;
    }
    int error = errno;
    if (changes[row].has_other)
        stream_fail(s, error, "%.200s, %.200s: %s", c->path, c->other, strerror(error));
    else
        stream_fail(s, error, "%.400s: %s", c->path, strerror(error));
}

static int handle_start(struct stream *s, struct wire_reader *reader)
{
    struct file_change *f = s->state;
    uint32_t change = wire_get_u32(reader);
    struct change c = {.flags = wire_get_u32(reader), .mode = (mode_t)wire_get_u32(reader)};
    int path_result = file_path_get(reader, c.path);
    size_t other_size = 0;
    const char *other = wire_get_string(reader, CHANNEL_PATH_MAX - 1, &other_size);

    if (path_result < 0 || other == NULL || reader->left != 0 || (c.mode & ~MODE_MASK) != 0)
        return -1;
    memcpy(c.other, other, other_size);
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        if (changes[i].change != change)
            continue;
        if ((c.flags & ~changes[i].flags) != 0 || changes[i].has_other != (other_size > 0))
            return -1;
        records_init(&f->records);
        stream_info(s, NULL, 0);
        run(s, i, &c);
        return 0;
    }
    return -1;
}

static bool handle_pump(struct stream *s)
{
    struct file_change *f = s->state;
    const char *where = "";

    if (!f->records.is_done) {
        int error = file_remove_step(f->remove, &f->records.is_done, &where);
        if (error != 0) {
            stream_fail(s, error, "%.400s: %s", where, strerror(error));
            return false;
        }
    }
    return records_pump(s, &f->records);
}

static void handle_fini(struct stream *s)
{
    struct file_change *f = s->state;

    records_fini(&f->records);
    file_remove_free(f->remove);
}

const struct stream_op file_change_op = {
    .op = CHANNEL_OP_CHANGE,
    .state_bytes = sizeof(struct file_change),
    .start = handle_start,
    .pump = handle_pump,
    .fini = handle_fini,
};
