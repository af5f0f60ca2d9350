#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "guest/channel/service.h"
#include "guest/files/file_ops.h"
#include "guest/files/file_path.h"
#include "guest/files/staging.h"

#define MODE_DEFAULT   0644
#define MODE_MASK      07777u
#define TEMP_TRIES_MAX 16u

/* The content goes into a temporary file beside the target; the rename at EOF shows it whole. */
struct file_write {
    int dir_fd;
    int fd;
    uint64_t written; /* what came */
    uint8_t *staging; /* NULL: none was free */
    size_t staged;    /* of it that is not in the file yet */
    bool is_direct;   /* O_DIRECT is on */
    mode_t mode;
    bool keep_owner; /* of the file that is replaced */
    uid_t uid;
    gid_t gid;
    char name[FILE_NAME_BYTES];
    char temp_name[FILE_NAME_BYTES]; /* empty: there is none */
};

_Static_assert(sizeof(struct file_write) <= STREAM_STATE_BYTES, "a write allocates nothing");

static void remove_temp(struct file_write *f)
{
    if (f->temp_name[0] != '\0')
        (void)unlinkat(f->dir_fd, f->temp_name, 0);
    f->temp_name[0] = '\0';
}

static int make_temp(struct stream *s)
{
    struct file_write *f = s->state;

    for (unsigned i = 0;; i++) {
        (void)snprintf(f->temp_name, sizeof(f->temp_name), ".cloche-%u.%u.part", s->id, i);
        f->fd = openat(f->dir_fd, f->temp_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, f->mode);
        if (f->fd >= 0)
            break;
        int error = errno;
        f->temp_name[0] = '\0';
        errno = error;
        if (error != EEXIST || i >= TEMP_TRIES_MAX)
            return -1;
    }
    /* The owner first: a change of owner clears the set-user-id bit. */
    if (f->keep_owner && fchown(f->fd, f->uid, f->gid) < 0)
        return -1;
    if (f->keep_owner || (f->mode & (SERVICE_UMASK | 07000u)) != 0)
        return fchmod(f->fd, f->mode);
    return 0;
}

/* Mode 0 keeps that of the file that is replaced, or makes MODE_DEFAULT. */
static int handle_start(struct stream *s, struct wire_reader *reader)
{
    struct file_write *f = s->state;
    char path[CHANNEL_PATH_MAX];
    const char *name;
    struct stat st;

    f->dir_fd = f->fd = -1;
    f->mode = (mode_t)wire_get_u32(reader);
    if (file_path_get(reader, path) < 0 || reader->left != 0 || (f->mode & ~MODE_MASK) != 0)
        return -1;
    if (file_path_follow(path) < 0 || (f->dir_fd = file_path_open_parent(path, true, &name)) < 0) {
        stream_fail(s, errno, "%s: %s", path, strerror(errno));
        return 0;
    }
    if (strlen(name) >= sizeof(f->name)) {
        stream_fail(s, ENAMETOOLONG, "%s: %s", path, strerror(ENAMETOOLONG));
        return 0;
    }
    memcpy(f->name, name, strlen(name) + 1);
    int error = fstatat(f->dir_fd, f->name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
    if (error == 0 ? !S_ISREG(st.st_mode) : error != ENOENT) {
        file_path_refuse(s, path, &st, error);
        return 0;
    }
    if (error == 0) {
        f->keep_owner = st.st_uid != 0 || st.st_gid != 0;
        f->uid = st.st_uid;
        f->gid = st.st_gid;
    }
    if (f->mode == 0)
        f->mode = error == 0 ? st.st_mode & MODE_MASK : MODE_DEFAULT;
    if (make_temp(s) < 0) {
        stream_fail(s, errno, "%s: %s", path, strerror(errno));
        return 0;
    }
    f->staging = staging_take(s->shared);
    return 0;
}

/* A piece that is not the last goes past the page cache, and so do the whole pages of the last one
 * of a large file. Small content is cached: it is likely to be read soon. */
static int write_staged(struct file_write *f, bool is_last)
{
    size_t done = 0;

    if (!is_last && !f->is_direct)
        f->is_direct = staging_set_direct(f->fd, true) == 0;
    if (f->is_direct) {
        size_t pages = f->staged - f->staged % STAGING_ALIGN;

        if (fd_write_full(f->fd, f->staging, pages) == 0)
            done = pages;
        else if (errno != EINVAL) /* which says that it cannot be done here this way */
            return -1;
    }
    size_t rest = f->staged - done;
    f->staged = 0;
    if (rest == 0)
        return 0;
    if (f->is_direct && staging_set_direct(f->fd, false) < 0)
        return -1;
    f->is_direct = false;
    return fd_write_full(f->fd, f->staging + done, rest);
}

static int stage(struct file_write *f, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        size_t room = STAGING_BYTES - f->staged;
        size_t part = size < room ? size : room;

        memcpy(f->staging + f->staged, bytes, part);
        f->staged += part;
        bytes += part;
        size -= part;
        if (f->staged == STAGING_BYTES && write_staged(f, false) < 0)
            return -1;
    }
    return 0;
}

static int handle_data(struct stream *s, const uint8_t *bytes, size_t size)
{
    struct file_write *f = s->state;

    int result = f->staging != NULL ? stage(f, bytes, size) : fd_write_full(f->fd, bytes, size);
    if (result < 0) {
        stream_fail(s, errno, "writing %s: %s", f->name, strerror(errno));
        return 0;
    }
    f->written += size;
    stream_receive_done(s, size);
    return 0;
}

static int handle_eof(struct stream *s)
{
    struct file_write *f = s->state;
    uint8_t bytes[8];
    struct wire_writer w;

    if (f->staged > 0 && write_staged(f, true) < 0) {
        stream_fail(s, errno, "writing %s: %s", f->name, strerror(errno));
        return 0;
    }
    int result = close(fd_take(&f->fd));
    if (result == 0)
        result = renameat(f->dir_fd, f->temp_name, f->dir_fd, f->name);
    if (result < 0) {
        stream_fail(s, errno, "%s: %s", f->name, strerror(errno));
        return 0;
    }
    f->temp_name[0] = '\0';
    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u64(&w, f->written);
    stream_end(s, bytes, sizeof(bytes));
    return 0;
}

static void handle_fini(struct stream *s)
{
    struct file_write *f = s->state;

    staging_give(s->shared, f->staging);
    remove_temp(f);
    fd_close(&f->fd);
    fd_close(&f->dir_fd);
}

const struct stream_op file_write_op = {
    .op = CHANNEL_OP_WRITE,
    .state_bytes = sizeof(struct file_write),
    .start = handle_start,
    .data = handle_data,
    .eof = handle_eof,
    .fini = handle_fini,
};
