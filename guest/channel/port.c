#include "guest/channel/port.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/frame.h"

/* Two whole frames, so that one can be read while the other waits for its rest. */
#define IN_BYTES_MAX (2 * (CHANNEL_PAYLOAD_MAX + CHANNEL_HEADER_BYTES))
/* Above this no DATA is made and no frame of the host is taken. */
#define OUT_BYTES_SOFT (2 * CHANNEL_PAYLOAD_MAX)
/* What one stream may add on top: INFO, EOF of each lane, CREDIT, END with its text. */
#define OUT_BYTES_PER_STREAM (CHANNEL_TEXT_MAX + 512)
#define OUT_BYTES_MAX                                                                              \
    (OUT_BYTES_SOFT + CHANNEL_PAYLOAD_MAX + CHANNEL_HEADER_BYTES +                                 \
     (CHANNEL_STREAMS_MAX + 1) * OUT_BYTES_PER_STREAM)
#define WARM_BYTES (16 * KIB)
/* The console driver returns at most one buffer of this size at a time. Asked for several in one
 * system call it goes on until one is not full: where the kernel is interpreted, entering it costs
 * a fifth of copying a buffer. */
#define PORT_READ_UNIT  4096u
#define PORT_READ_UNITS (IN_BYTES_MAX / PORT_READ_UNIT + 1)

static int buffer_prepare(struct buffer *b, size_t size_max)
{
    *b = (struct buffer)BUFFER_INIT(size_max);
    uint8_t *bytes = buffer_reserve(b, size_max);

    if (bytes == NULL)
        return -1;
    memset(bytes, 0, WARM_BYTES);
    return 0;
}

int port_init(struct port *p, int fd, struct error *e)
{
    *p = (struct port){.fd = fd};
    if (buffer_prepare(&p->in, IN_BYTES_MAX) < 0 || buffer_prepare(&p->out, OUT_BYTES_MAX) < 0)
        return error_errno(e, ENOMEM, "channel buffers");
    if (fd_set_nonblocking(fd, 1) < 0)
        return error_errno(e, errno, "channel");
    return 0;
}

void port_fini(struct port *p)
{
    buffer_fini(&p->in);
    buffer_fini(&p->out);
}

static ssize_t read_units(int fd, uint8_t *to, size_t size)
{
    struct iovec units[PORT_READ_UNITS];
    int count = 0;

    for (size_t used = 0; used < size; used += PORT_READ_UNIT, count++) {
        size_t left = size - used;

        units[count] = (struct iovec){.iov_base = to + used,
                                      .iov_len = left < PORT_READ_UNIT ? left : PORT_READ_UNIT};
    }
    return readv(fd, units, count);
}

int port_fill(struct port *p, struct error *e)
{
    for (;;) {
        size_t room = buffer_room(&p->in);
        if (room == 0)
            return 0;
        uint8_t *to = buffer_reserve(&p->in, room);
        assert(to != NULL);
        ssize_t n = read_units(p->fd, to, room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0 && errno != ECONNRESET)
            return error_errno(e, errno, "reading the channel");
        if (n <= 0) {
            p->closed = true;
            return 0;
        }
        buffer_commit(&p->in, (size_t)n);
        /* A buffer that was not full was the last one; epoll tells where that guess is wrong. */
        if (n % PORT_READ_UNIT != 0)
            return 0;
    }
}

int port_next(struct port *p, struct channel_header *ret_header, const uint8_t **ret_payload,
              struct error *e)
{
    struct channel_header h;

    if (p->in.size < CHANNEL_HEADER_BYTES)
        return 0;
    const uint8_t *bytes = buffer_bytes(&p->in);
    if (frame_header_get(bytes, &h, e) < 0)
        return -1;
    if (p->in.size - CHANNEL_HEADER_BYTES < h.length)
        return 0;
    *ret_header = h;
    *ret_payload = bytes + CHANNEL_HEADER_BYTES;
    return 1;
}

void port_drop(struct port *p, const struct channel_header *h)
{
    buffer_consume(&p->in, CHANNEL_HEADER_BYTES + h->length);
}

bool port_has_room(const struct port *p)
{
    return p->out.size < OUT_BYTES_SOFT;
}

void port_put(struct port *p, uint32_t stream, enum channel_type type, enum channel_lane lane,
              const void *payload, size_t size)
{
    struct channel_header h = {
        .length = (uint32_t)size, .stream = stream, .type = (uint8_t)type, .lane = (uint8_t)lane};
    uint8_t *to = buffer_reserve(&p->out, CHANNEL_HEADER_BYTES + size);

    assert(size <= CHANNEL_PAYLOAD_MAX && to != NULL);
    frame_header_put(to, &h);
    if (size > 0)
        memcpy(to + CHANNEL_HEADER_BYTES, payload, size);
    buffer_commit(&p->out, CHANNEL_HEADER_BYTES + size);
}

uint8_t *port_data_begin(struct port *p, size_t before, size_t size)
{
    uint8_t *to = buffer_reserve(&p->out, before + CHANNEL_HEADER_BYTES + size);

    assert(size <= CHANNEL_PAYLOAD_MAX && to != NULL);
    return to + before + CHANNEL_HEADER_BYTES;
}

void port_data_end(struct port *p, uint32_t stream, enum channel_lane lane, size_t size)
{
    struct channel_header h = {
        .length = (uint32_t)size, .stream = stream, .type = CHANNEL_DATA, .lane = (uint8_t)lane};
    uint8_t *header = buffer_bytes(&p->out) + p->out.size;

    assert(size > 0 && size <= CHANNEL_PAYLOAD_MAX);
    frame_header_put(header, &h);
    buffer_commit(&p->out, CHANNEL_HEADER_BYTES + size);
}

int port_flush(struct port *p, struct error *e)
{
    p->blocked = false;
    while (p->out.size > 0) {
        ssize_t n = write(p->fd, buffer_bytes(&p->out), p->out.size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            p->blocked = true;
            return 0;
        }
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) {
            p->closed = true;
            return 0;
        }
        if (n < 0)
            return error_errno(e, errno, "writing to the channel");
        buffer_consume(&p->out, (size_t)n);
    }
    return 0;
}
