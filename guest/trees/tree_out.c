/*
 * TREE_OUT: a tree as entries. The walk goes over it twice: the first time it counts what will have
 * to be left out, so that the host can say so before it begins, and finds what makes the whole
 * impossible. What a tenant changes meanwhile may be missed; what has been begun is sent as it was
 * announced, or the operation fails.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/tree.h"
#include "guest/channel/records.h"
#include "guest/files/file_path.h"
#include "guest/files/walk.h"
#include "guest/trees/tree_ops.h"

#define OPEN_FLAGS (O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

_Static_assert(TREE_RECORD_BYTES_MAX <= 2 * RECORD_BYTES_MAX, "records_have_room() is for either");

struct tree_out {
    struct records records;
    int base_fd; /* -1: a file alone */
    struct walk walk;
    bool is_counting;
    uint32_t count;   /* entries */
    uint64_t skipped; /* of those: fifos, sockets, devices */
    int file_fd;      /* the file that is being sent; -1: none */
    uint64_t file_left;
    char at[CHANNEL_PATH_MAX]; /* what was looked at last, for error texts */
    const char *why;           /* what is wrong, where errno has no good word; or NULL */
};

/* All that follow return 0, or an errno. */

static int fail(struct tree_out *o, int error, const char *why)
{
    o->why = why;
    return error;
}

static int put(struct tree_out *o, const struct tree_entry *entry)
{
    uint8_t *to = buffer_reserve(&o->records.out, TREE_RECORD_BYTES_MAX);

    if (to == NULL)
        return ENOMEM;
    buffer_commit(&o->records.out, tree_entry_put(entry, to, TREE_RECORD_BYTES_MAX));
    return 0;
}

static struct tree_entry entry_of(enum tree_type type, const struct stat *st, const char *path)
{
    return (struct tree_entry){.type = type,
                               .mode = st->st_mode & 07777,
                               .size = type == TREE_FILE ? (uint64_t)st->st_size : 0,
                               .uid = st->st_uid,
                               .gid = st->st_gid,
                               .mtime_s = st->st_mtim.tv_sec,
                               .mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
                               .path = path,
                               .target = ""};
}

/* Announces a file and lets its content follow; `fd` is taken. */
static int begin_file(struct tree_out *o, int fd, const char *path)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        fd_close(&fd); /* not what it was when it was looked at */
        return 0;
    }
    struct tree_entry entry = entry_of(TREE_FILE, &st, path);
    int error = put(o, &entry);
    if (error != 0 || entry.size == 0) {
        fd_close(&fd);
        return error;
    }
    o->file_fd = fd;
    o->file_left = entry.size;
    return 0;
}

static int send_content(struct tree_out *o)
{
    size_t room = buffer_room(&o->records.out);
    size_t size = o->file_left < room ? (size_t)o->file_left : room;
    uint8_t *to = buffer_reserve(&o->records.out, size);

    if (to == NULL)
        return ENOMEM;
    ssize_t n = read(o->file_fd, to, size);
    if (n < 0)
        return errno == EINTR ? 0 : errno;
    if (n == 0)
        return fail(o, EIO, "became shorter while it was read");
    buffer_commit(&o->records.out, (size_t)n);
    o->file_left -= (uint64_t)n;
    if (o->file_left == 0)
        fd_close(&o->file_fd);
    return 0;
}

/* What is not there any more, or is something else by now, is as if it had gone before. */
static bool has_changed(int error)
{
    return error == ENOENT || error == ELOOP || error == ENOTDIR || error == EINVAL;
}

static int send_symlink(struct tree_out *o, const char *name, const struct stat *st)
{
    char target[CHANNEL_PATH_MAX];
    ssize_t n = readlinkat(o->walk.dir.fd, name, target, sizeof(target));

    if (n < 0)
        return has_changed(errno) ? 0 : errno;
    if ((size_t)n >= sizeof(target))
        return ENAMETOOLONG;
    target[n] = '\0';
    struct tree_entry entry = entry_of(TREE_SYMLINK, st, o->at);
    entry.target = target;
    return put(o, &entry);
}

static int send_entry(struct tree_out *o, const char *name)
{
    struct stat st;
    int fd;

    if (fstatat(o->walk.dir.fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return has_changed(errno) ? 0 : errno;
    struct tree_entry entry = entry_of(TREE_DIRECTORY, &st, o->at);
    switch (st.st_mode & S_IFMT) {
    case S_IFREG:
        fd = openat(o->walk.dir.fd, name, OPEN_FLAGS | O_NOFOLLOW);
        if (fd < 0)
            return has_changed(errno) ? 0 : errno;
        return begin_file(o, fd, o->at);
    case S_IFLNK:
        return send_symlink(o, name, &st);
    case S_IFDIR:
        if (walk_push(&o->walk, o->at) < 0)
            return fail(o, EMLINK, "too many directories wait to be read");
        return put(o, &entry);
    default:
        return 0;
    }
}

static int count_entry(struct tree_out *o, const struct dir_entry *entry)
{
    unsigned char type = entry->type;
    struct stat st;

    if (type == DT_UNKNOWN) {
        if (fstatat(o->walk.dir.fd, entry->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return has_changed(errno) ? 0 : errno;
        type = IFTODT(st.st_mode);
    }
    if (type == DT_DIR && walk_push(&o->walk, o->at) < 0)
        return fail(o, EMLINK, "too many directories wait to be read");
    if (type != DT_DIR && type != DT_REG && type != DT_LNK)
        o->skipped++;
    return 0;
}

static int take_entry(struct tree_out *o, const struct dir_entry *entry)
{
    if (walk_path(&o->walk, entry->name, o->at) < 0) {
        (void)snprintf(o->at, sizeof(o->at), "%s", o->walk.at);
        return fail(o, ENAMETOOLONG, "holds a path that is too long");
    }
    if (++o->count >= TREE_ENTRIES_MAX)
        return fail(o, EMLINK, "the tree has too many entries");
    return o->is_counting ? count_entry(o, entry) : send_entry(o, entry->name);
}

/* All has been counted: the host hears of it, and the second walk begins. */
static int end_count(struct tree_out *o)
{
    const struct tree_entry entry = {
        .type = TREE_SKIPPED, .size = o->skipped, .path = "", .target = ""};

    o->is_counting = false;
    o->count = 0;
    if (o->base_fd >= 0 && walk_begin(&o->walk, o->base_fd) < 0)
        return ENOMEM;
    return put(o, &entry);
}

static int enter_next(struct tree_out *o)
{
    int entered = walk_enter(&o->walk);

    if (entered < 0) {
        (void)snprintf(o->at, sizeof(o->at), "%s", o->walk.at);
        /* EXDEV: a mount point. */
        return errno == EXDEV || has_changed(errno) ? 0 : errno;
    }
    if (entered == 0 && o->is_counting)
        return end_count(o);
    o->records.is_done = entered == 0;
    return 0;
}

static int tree_step(struct tree_out *o)
{
    uint64_t begin_ns = clock_mono_ns();
    struct dir_entry entry;
    int error = 0;

    while (error == 0 && !o->records.is_done && records_have_room(&o->records) &&
           !stream_step_is_over(begin_ns)) {
        if (o->file_fd >= 0) {
            error = send_content(o);
        } else if (o->walk.dir.fd < 0) {
            error = enter_next(o);
        } else if (dir_next(&o->walk.dir, &entry)) {
            error = take_entry(o, &entry);
        } else {
            int filled = dir_fill(&o->walk.dir);
            if (filled < 0)
                error = errno;
            if (filled == 0)
                dir_close(&o->walk.dir);
        }
    }
    return error;
}

static bool handle_pump(struct stream *s)
{
    struct tree_out *o = s->state;
    int error = o->records.is_done ? 0 : tree_step(o);

    if (error != 0) {
        stream_fail(s, error, "%.400s: %s", o->at, o->why != NULL ? o->why : strerror(error));
        return false;
    }
    return records_pump(s, &o->records);
}

/* A file alone: the stream has its name, and nothing is walked over. */
static int start_file(struct tree_out *o, const char *path)
{
    int fd = open(path, OPEN_FLAGS);

    if (fd < 0)
        return errno;
    int error = end_count(o);
    if (error != 0) {
        fd_close(&fd);
        return error;
    }
    return begin_file(o, fd, strrchr(path, '/') + 1);
}

static int start(struct tree_out *o, const char *path, bool is_directory)
{
    (void)snprintf(o->at, sizeof(o->at), "%s", path);
    if (!is_directory)
        return start_file(o, path);
    o->base_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (o->base_fd < 0)
        return errno;
    return walk_begin(&o->walk, o->base_fd) < 0 ? ENOMEM : 0;
}

static int handle_start(struct stream *s, struct wire_reader *reader)
{
    struct tree_out *o = s->state;
    char path[CHANNEL_PATH_MAX];
    struct stat st;

    o->is_counting = true;
    o->file_fd = o->base_fd = -1;
    walk_init(&o->walk);
    if (file_path_get(reader, path) < 0 || reader->left != 0)
        return -1;
    int error = stat(path, &st) < 0 ? errno : 0;
    if (error != 0 || (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))) {
        file_path_refuse(s, path, &st, error);
        return 0;
    }
    records_init(&o->records);
    stream_info(s, NULL, 0);
    error = start(o, path, S_ISDIR(st.st_mode));
    if (error != 0)
        stream_fail(s, error, "%s: %s", path, strerror(error));
    return 0;
}

static void handle_fini(struct stream *s)
{
    struct tree_out *o = s->state;

    records_fini(&o->records);
    walk_fini(&o->walk);
    fd_close(&o->base_fd);
    fd_close(&o->file_fd);
}

const struct stream_op tree_out_op = {
    .op = CHANNEL_OP_TREE_OUT,
    .state_bytes = sizeof(struct tree_out),
    .start = handle_start,
    .pump = handle_pump,
    .fini = handle_fini,
};
