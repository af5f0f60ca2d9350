#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "guest/files/direct_read.h"
#include "guest/files/file_ops.h"
#include "guest/files/file_path.h"

#define INFO_BYTES 28u

struct file_read {
    int fd;
    bool has_size;   /* send `due` bytes; otherwise as much as comes */
    uint64_t size;   /* of the file */
    uint64_t offset; /* where what is asked for begins */
    uint64_t due;
    uint64_t sent;
    struct direct_read direct;
};

_Static_assert(sizeof(struct file_read) <= STREAM_STATE_BYTES, "a read allocates nothing");

/*
 * INFO tells the size before the content is sent, and the content has the bytes that were asked for
 * of that many: a file that grows meanwhile is cut there, one that shrinks ends with an error. The
 * size that the kernel tells of its own files (/proc, /sys) is wrong, so the first read happens
 * before INFO is made, and where it meets the end of the file it knows better. Larger files of
 * size 0 are sent up to their end.
 */
static void put_info(struct stream *s, const struct stat *st)
{
    const struct file_read *f = s->state;
    uint8_t bytes[INFO_BYTES];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u64(&w, f->size);
    wire_put_u32(&w, (uint32_t)(st->st_mode & 07777));
    wire_put_u64(&w, (uint64_t)st->st_mtim.tv_sec * NS_PER_S + (uint64_t)st->st_mtim.tv_nsec);
    wire_put_u64(&w, f->offset);
    stream_info(s, bytes, sizeof(bytes));
}

/* Files without a size may not be ones to seek in. */
static ssize_t read_some(struct stream *s, uint64_t sent, uint8_t *to, size_t size)
{
    struct file_read *f = s->state;

    for (;;) {
        ssize_t n = f->has_size
                        ? direct_read_at(&f->direct, s->shared, f->fd, to, size, f->offset + sent)
                        : read(f->fd, to, size);

        if (n >= 0 || errno != EINTR)
            return n;
    }
}

static void end_read(struct stream *s)
{
    const struct file_read *f = s->state;
    uint8_t bytes[8];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u64(&w, f->sent);
    stream_eof(s, CHANNEL_LANE_IN);
    stream_end(s, bytes, sizeof(bytes));
}

/* The first frame: reads on until it is full, the file is complete, or at its end. */
static void send_first(struct stream *s, const struct stat *st)
{
    struct file_read *f = s->state;
    uint8_t *to = stream_data_begin_first(s, INFO_BYTES, CHANNEL_PAYLOAD_MAX);
    size_t used = 0;
    ssize_t n = 1;

    while (used < CHANNEL_PAYLOAD_MAX && n > 0 && !(f->has_size && used >= f->due)) {
        size_t want = CHANNEL_PAYLOAD_MAX - used;
        if (f->has_size && f->due - used < want)
            want = (size_t)(f->due - used);
        n = read_some(s, used, to + used, want);
        used += n > 0 ? (size_t)n : 0;
    }
    int error = errno;
    if (n == 0)
        f->size = f->offset + used;
    put_info(s, st);
    if (n < 0) {
        stream_fail(s, error, "reading the file: %s", strerror(error));
        return;
    }
    if (used > 0)
        stream_data_end(s, CHANNEL_LANE_IN, used);
    f->sent = used;
    if (n == 0 || (f->has_size && f->sent == f->due))
        end_read(s);
}

/* What of the file was asked for: all of it begins at 0. */
static void take_range(struct file_read *f, uint64_t offset, uint64_t length)
{
    if (!f->has_size)
        return;
    if (offset == CHANNEL_READ_TAIL)
        f->offset = f->size - (length < f->size ? length : f->size);
    else
        f->offset = offset < f->size ? offset : f->size;
    f->due = f->size - f->offset < length ? f->size - f->offset : length;
}

static int handle_start(struct stream *s, struct wire_reader *reader)
{
    struct file_read *f = s->state;
    uint64_t offset = wire_get_u64(reader);
    uint64_t length = wire_get_u64(reader);
    char path[CHANNEL_PATH_MAX];
    struct stat st;

    f->fd = -1;
    if (file_path_get(reader, path) < 0 || reader->left != 0)
        return -1;
    /* Looked at first: opening a device or a fifo can have effects of its own. */
    int error = stat(path, &st) < 0 ? errno : 0;
    if (error != 0 || !S_ISREG(st.st_mode)) {
        file_path_refuse(s, path, &st, error);
        return 0;
    }
    f->fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (f->fd < 0 || fstat(f->fd, &st) < 0) {
        stream_fail(s, errno, "%s: %s", path, strerror(errno));
        return 0;
    }
    f->has_size = st.st_size > 0;
    f->size = (uint64_t)st.st_size;
    take_range(f, offset, length);
    direct_read_begin(&f->direct, s->shared, f->fd, f->size);
    send_first(s, &st);
    return 0;
}

static bool handle_pump(struct stream *s)
{
    struct file_read *f = s->state;
    size_t wanted = CHANNEL_PAYLOAD_MAX, size;

    if (f->has_size && f->due - f->sent < wanted)
        wanted = (size_t)(f->due - f->sent);
    uint8_t *to = stream_data_begin(s, CHANNEL_LANE_IN, wanted, &size);
    if (to == NULL)
        return false;
    ssize_t n = read_some(s, f->sent, to, size);
    if (n < 0) {
        stream_fail(s, errno, "reading the file: %s", strerror(errno));
        return false;
    }
    if (n == 0 && f->has_size) {
        stream_fail(s, EIO, "the file became shorter while it was read");
        return false;
    }
    if (n > 0) {
        stream_data_end(s, CHANNEL_LANE_IN, (size_t)n);
        f->sent += (uint64_t)n;
    }
    if (n == 0 || (f->has_size && f->sent == f->due)) {
        end_read(s);
        return false;
    }
    return true;
}

static void handle_fini(struct stream *s)
{
    struct file_read *f = s->state;

    direct_read_end(&f->direct, s->shared);
    fd_close(&f->fd);
}

const struct stream_op file_read_op = {
    .op = CHANNEL_OP_READ,
    .state_bytes = sizeof(struct file_read),
    .start = handle_start,
    .pump = handle_pump,
    .fini = handle_fini,
};
