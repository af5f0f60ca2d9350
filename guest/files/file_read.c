#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "guest/channel/service.h"
#include "guest/files/file_path.h"

#define INFO_BYTES 28u

/*
 * INFO tells the size before the content is sent, and the content has the bytes that were asked for
 * of that many: a file that grows meanwhile is cut there, one that shrinks ends with an error. The
 * size that the kernel tells of its own files (/proc, /sys) is wrong, so the first read happens
 * before INFO goes out, and where it meets the end of the file it knows better. Larger files of
 * size 0 are sent up to their end.
 */
static void put_info(struct service *v, const struct stream *s, const struct stat *st)
{
    uint8_t bytes[INFO_BYTES];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u64(&w, s->read.size);
    wire_put_u32(&w, (uint32_t)(st->st_mode & 07777));
    wire_put_u64(&w, (uint64_t)st->st_mtim.tv_sec * NS_PER_S + (uint64_t)st->st_mtim.tv_nsec);
    wire_put_u64(&w, s->read.offset);
    port_put(&v->port, s->id, CHANNEL_INFO, CHANNEL_LANE_IN, bytes, sizeof(bytes));
}

/* In the INFO frame at `offset` of what waits to be sent. */
static void correct_size(struct service *v, size_t offset, uint64_t size)
{
    struct wire_writer w;

    wire_writer_init(&w, buffer_bytes(&v->port.out) + offset + CHANNEL_HEADER_BYTES, INFO_BYTES);
    wire_put_u64(&w, size);
}

/* Files without a size may not be ones to seek in. */
static ssize_t read_some(struct service *v, struct file_read *f, uint64_t sent, uint8_t *to,
                         size_t size)
{
    for (;;) {
        ssize_t n = f->has_size ? direct_read_at(&f->direct, &v->stagings, f->fd, to, size,
                                                 f->offset + sent)
                                : read(f->fd, to, size);

        if (n >= 0 || errno != EINTR)
            return n;
    }
}

static void end_read(struct service *v, struct stream *s)
{
    uint8_t bytes[8];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u64(&w, s->read.sent);
    port_put(&v->port, s->id, CHANNEL_EOF, CHANNEL_LANE_IN, NULL, 0);
    stream_end(v, s, bytes, sizeof(bytes));
}

/* The first frame: reads on until it is full, the file is complete, or at its end. */
static void send_first(struct service *v, struct stream *s, const struct stat *st)
{
    struct file_read *f = &s->read;
    size_t info_offset = v->port.out.size;
    size_t used = 0;
    bool at_end = false;

    put_info(v, s, st);
    uint8_t *to = port_data_begin(&v->port, CHANNEL_PAYLOAD_MAX);
    while (used < CHANNEL_PAYLOAD_MAX && !at_end && !(f->has_size && used >= f->due)) {
        size_t want = CHANNEL_PAYLOAD_MAX - used;
        if (f->has_size && f->due - used < want)
            want = (size_t)(f->due - used);
        ssize_t n = read_some(v, f, used, to + used, want);
        if (n < 0) {
            stream_fail(v, s, errno, "reading the file: %s", strerror(errno));
            return;
        }
        at_end = n == 0;
        used += (size_t)n;
    }
    if (used > 0) {
        port_data_end(&v->port, s->id, CHANNEL_LANE_IN, used);
        s->send_credit[CHANNEL_LANE_IN] -= used;
        f->sent = used;
    }
    if (at_end)
        correct_size(v, info_offset, f->offset + used);
    if (at_end || (f->has_size && f->sent == f->due))
        end_read(v, s);
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

static int handle_start(struct service *v, struct stream *s, struct wire_reader *r)
{
    struct file_read *f = &s->read;
    uint64_t offset = wire_get_u64(r);
    uint64_t length = wire_get_u64(r);
    char path[CHANNEL_PATH_MAX];
    struct stat st;

    *f = (struct file_read){.fd = -1};
    if (file_path_get(r, path) < 0 || r->left != 0)
        return -1;
    /* Looked at first: opening a device or a fifo can have effects of its own. */
    int error = stat(path, &st) < 0 ? errno : 0;
    if (error != 0 || !S_ISREG(st.st_mode)) {
        file_path_refuse(v, s, path, &st, error);
        return 0;
    }
    f->fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (f->fd < 0 || fstat(f->fd, &st) < 0) {
        stream_fail(v, s, errno, "%s: %s", path, strerror(errno));
        return 0;
    }
    f->has_size = st.st_size > 0;
    f->size = (uint64_t)st.st_size;
    take_range(f, offset, length);
    direct_read_begin(&f->direct, &v->stagings, f->fd, f->size);
    send_first(v, s, &st);
    return 0;
}

static bool handle_pump(struct service *v, struct stream *s)
{
    struct file_read *f = &s->read;
    size_t size = CHANNEL_PAYLOAD_MAX;

    if (f->has_size && f->due - f->sent < size)
        size = (size_t)(f->due - f->sent);
    size = stream_send_room(s, CHANNEL_LANE_IN, size);
    if (size == 0 || !port_has_room(&v->port))
        return false;
    ssize_t n = read_some(v, f, f->sent, port_data_begin(&v->port, size), size);
    if (n < 0) {
        stream_fail(v, s, errno, "reading the file: %s", strerror(errno));
        return false;
    }
    if (n == 0 && f->has_size) {
        stream_fail(v, s, EIO, "the file became shorter while it was read");
        return false;
    }
    if (n > 0) {
        port_data_end(&v->port, s->id, CHANNEL_LANE_IN, (size_t)n);
        s->send_credit[CHANNEL_LANE_IN] -= (uint64_t)n;
        f->sent += (uint64_t)n;
    }
    if (n == 0 || (f->has_size && f->sent == f->due)) {
        end_read(v, s);
        return false;
    }
    return true;
}

static void handle_reset(struct service *v, struct stream *s)
{
    stream_fail(v, s, ECANCELED, "the host gave up");
}

static void handle_fini(struct service *v, struct stream *s)
{
    direct_read_end(&s->read.direct, &v->stagings);
    fd_close(&s->read.fd);
}

const struct stream_op file_read_op = {
    .op = CHANNEL_OP_READ,
    .start = handle_start,
    .reset = handle_reset,
    .pump = handle_pump,
    .fini = handle_fini,
};
