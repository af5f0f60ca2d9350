/* System calls: preadv, pwritev, fdatasync, fallocate; lseek in blk_init only. */
#include "vmm/virtio/blk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR_BYTES UINT64_C(512)

/*
 * What a request can be at most follows from what is advertised, so that no driver that keeps to it
 * is refused: a queue of 256 holds a header, 254 segments and a status byte. Large segments let a
 * guest whose own copying is slow leave it to the host.
 */
#define QUEUE_SIZE        256u
#define SEGMENTS_MAX      (QUEUE_SIZE - 2u)
#define SEGMENT_BYTES_MAX (64u * 1024u)
#define REQUEST_BYTES_MAX ((uint64_t)SEGMENTS_MAX * SEGMENT_BYTES_MAX)
#define RANGES_MAX        16u        /* of one DISCARD or WRITE_ZEROES ... */
#define RANGE_SECTORS_MAX (1u << 21) /* ... each at most 1 GiB */
#define FEATURE(bit)      (UINT64_C(1) << (bit))

/* Up to where the fields of features begin that newer headers know. */
#define CONFIG_BYTES (offsetof(struct virtio_blk_config, write_zeroes_may_unmap) + 4)

_Static_assert(QUEUE_SIZE <= VIRTQ_SIZE_MAX, "a chain must fit");
_Static_assert(CONFIG_BYTES <= VIRTIO_CONFIG_MAX, "the config space must fit");

static const uint16_t queue_sizes[] = {QUEUE_SIZE};

/* The request that is being served, out of its chain. */
struct request {
    struct virtq_chain chain; /* what is left: data, without header and status */
    struct virtio_blk_outhdr header;
    uint32_t written; /* into the data buffers */
};

typedef uint8_t (*request_handler)(struct blk *b, struct request *request);

static bool range_is_on_disk(const struct blk *b, uint64_t sector, uint64_t count)
{
    uint64_t end;

    return !__builtin_add_overflow(sector, count, &end) && end <= b->sector_count;
}

static uint8_t transfer(struct blk *b, struct request *rq, bool is_write)
{
    struct iovec *iov = is_write ? rq->chain.out : rq->chain.in;
    unsigned count = is_write ? rq->chain.out_count : rq->chain.in_count;
    uint64_t bytes = is_write ? rq->chain.out_bytes : rq->chain.in_bytes;
    uint64_t sector = rq->header.sector;

    if (bytes > REQUEST_BYTES_MAX || bytes % SECTOR_BYTES != 0 ||
        !range_is_on_disk(b, sector, bytes / SECTOR_BYTES))
        return VIRTIO_BLK_S_IOERR;
    off_t at = (off_t)(sector * SECTOR_BYTES);
    while (count > 0) {
        ssize_t n =
            is_write ? pwritev(b->fd, iov, (int)count, at) : preadv(b->fd, iov, (int)count, at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) /* 0: the file was cut short */
            return VIRTIO_BLK_S_IOERR;
        virtq_iov_skip(&iov, &count, (uint64_t)n);
        at += n;
    }
    if (!is_write)
        rq->written = (uint32_t)bytes;
    return VIRTIO_BLK_S_OK;
}

static uint8_t request_in(struct blk *b, struct request *rq)
{
    return transfer(b, rq, false);
}

static uint8_t request_out(struct blk *b, struct request *rq)
{
    return b->writable ? transfer(b, rq, true) : VIRTIO_BLK_S_IOERR; /* 5.2.6.2 */
}

static uint8_t request_flush(struct blk *b, struct request *rq)
{
    (void)rq;
    return fdatasync(b->fd) == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

static uint8_t request_get_id(struct blk *b, struct request *rq)
{
    char id[VIRTIO_BLK_ID_BYTES] = "";

    (void)snprintf(id, sizeof(id), "cloche-%s", b->v.name);
    rq->written = (uint32_t)virtq_chain_write(&rq->chain, id, sizeof(id));
    return VIRTIO_BLK_S_OK;
}

/* A hole reads as zeroes and gives the space back to the host, so one way serves both commands. */
static uint8_t request_punch(struct blk *b, struct request *rq)
{
    const uint32_t flags_known =
        rq->header.type == VIRTIO_BLK_T_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
    struct virtio_blk_discard_write_zeroes ranges[RANGES_MAX];
    uint64_t bytes = rq->chain.out_bytes;

    if (bytes == 0 || bytes > sizeof(ranges) || bytes % sizeof(ranges[0]) != 0)
        return VIRTIO_BLK_S_IOERR;
    size_t count = virtq_chain_read(&rq->chain, ranges, sizeof(ranges)) / sizeof(ranges[0]);
    for (size_t i = 0; i < count; i++) {
        if ((ranges[i].flags & ~flags_known) != 0)
            return VIRTIO_BLK_S_UNSUPP;
        if (ranges[i].num_sectors > RANGE_SECTORS_MAX ||
            !range_is_on_disk(b, ranges[i].sector, ranges[i].num_sectors))
            return VIRTIO_BLK_S_IOERR;
    }
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].num_sectors == 0)
            continue;
        if (fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)(ranges[i].sector * SECTOR_BYTES),
                      (off_t)(ranges[i].num_sectors * SECTOR_BYTES)) < 0)
            return errno == EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
    }
    return VIRTIO_BLK_S_OK;
}

static const struct request_row {
    uint32_t type;
    bool writable_only; /* the command's feature is not offered by a read-only disk */
    request_handler handle;
} requests[] = {
    {VIRTIO_BLK_T_IN, false, request_in},        {VIRTIO_BLK_T_OUT, false, request_out},
    {VIRTIO_BLK_T_FLUSH, true, request_flush},   {VIRTIO_BLK_T_GET_ID, false, request_get_id},
    {VIRTIO_BLK_T_DISCARD, true, request_punch}, {VIRTIO_BLK_T_WRITE_ZEROES, true, request_punch},
};

static uint8_t request_handle(struct blk *b, struct request *rq)
{
    if (virtq_chain_read(&rq->chain, &rq->header, sizeof(rq->header)) != sizeof(rq->header))
        return VIRTIO_BLK_S_IOERR;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        if (requests[i].type == rq->header.type && (b->writable || !requests[i].writable_only))
            return requests[i].handle(b, rq);
    }
    return VIRTIO_BLK_S_UNSUPP;
}

/* Takes the status byte, the last that the device may write, off the in buffers. */
static uint8_t *status_take(struct virtq_chain *c)
{
    if (c->in_count == 0)
        return NULL;
    struct iovec *last = &c->in[c->in_count - 1];
    last->iov_len--;
    c->in_bytes--;
    if (last->iov_len == 0)
        c->in_count--;
    return (uint8_t *)last->iov_base + last->iov_len;
}

/*
 * The driver hears of all requests of a pass at once: on a slow guest an interrupt costs more than
 * the wait for the ones behind. While a request is carried out only the chain that was copied out
 * of the ring is used, and fields of the disk that never change. The driver may give up on the
 * device meanwhile; what it finds in its ring then does no harm, and nothing further is begun.
 */
static void blk_process(struct virtio_device *v)
{
    struct blk *b = (struct blk *)v;
    unsigned waiting = virtio_pending(v, 0);
    struct request rq;
    bool any = false;

    for (; waiting > 0 && virtio_is_running(v) && virtio_next(v, 0, &rq.chain); waiting--) {
        uint8_t *status = status_take(&rq.chain);

        if (status == NULL) { /* nowhere to say anything */
            virtio_break(v);
            break;
        }
        rq.written = 0;
        virtio_unlock(v);
        *status = request_handle(b, &rq);
        virtio_lock(v);
        if (virtio_complete(v, 0, rq.chain.head, rq.written + 1) < 0)
            break;
        any = true;
    }
    if (any)
        virtio_notify_driver(v, 0);
}

/* The guest's file systems rely on the size that they saw. */
static void blk_save(const struct virtio_device *v, struct wire_writer *w)
{
    wire_put_u64(w, ((const struct blk *)v)->sector_count);
}

static int blk_load(struct virtio_device *v, struct wire_reader *r, struct error *e)
{
    const struct blk *b = (const struct blk *)v;
    uint64_t sector_count = wire_get_u64(r);

    if (r->bad || sector_count != b->sector_count)
        return error_set(e, ERR_TEMPLATE_CORRUPT,
                         "the disk has %llu sectors, in the saved state it had %llu",
                         (unsigned long long)b->sector_count, (unsigned long long)sector_count);
    return 0;
}

static const struct virtio_ops blk_ops = {
    .id = VIRTIO_ID_BLOCK,
    .queue_sizes = queue_sizes,
    .queue_count = sizeof(queue_sizes) / sizeof(queue_sizes[0]),
    .process = blk_process,
    .save = blk_save,
    .load = blk_load,
};

static int blk_init(struct blk *b, int fd, bool writable, struct error *e)
{
    off_t bytes = lseek(fd, 0, SEEK_END);
    struct virtio_blk_config config = {
        .size_max = SEGMENT_BYTES_MAX,
        .seg_max = SEGMENTS_MAX,
    };

    if (bytes < 0)
        return error_errno(e, errno, "cannot learn the size of the %s disk", b->v.name);
    b->fd = fd;
    b->writable = writable;
    b->sector_count = (uint64_t)bytes / SECTOR_BYTES;
    config.capacity = b->sector_count;
    b->v.features = FEATURE(VIRTIO_BLK_F_SEG_MAX) | FEATURE(VIRTIO_BLK_F_SIZE_MAX);
    if (writable) {
        b->v.features |= FEATURE(VIRTIO_BLK_F_FLUSH) | FEATURE(VIRTIO_BLK_F_DISCARD) |
                         FEATURE(VIRTIO_BLK_F_WRITE_ZEROES);
        config.max_discard_sectors = config.max_write_zeroes_sectors = RANGE_SECTORS_MAX;
        config.max_discard_seg = config.max_write_zeroes_seg = RANGES_MAX;
        config.discard_sector_alignment = 4096 / SECTOR_BYTES;
        config.write_zeroes_may_unmap = 1;
    } else {
        b->v.features |= FEATURE(VIRTIO_BLK_F_RO);
    }
    b->v.config_bytes = CONFIG_BYTES;
    memcpy(b->v.config, &config, CONFIG_BYTES);
    virtio_init(&b->v, &blk_ops);
    return 0;
}

int blk_init_root(struct virtio_device *v, int fd, struct error *e)
{
    return blk_init((struct blk *)v, fd, false, e);
}

int blk_init_scratch(struct virtio_device *v, int fd, struct error *e)
{
    return blk_init((struct blk *)v, fd, true, e);
}
