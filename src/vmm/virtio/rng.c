/* System calls: getrandom. */
#include "vmm/virtio/rng.h"

#include <linux/virtio_ids.h>
#include <sys/random.h>

static const uint16_t queue_sizes[] = {8};

/* Returns how much was filled; 0 only where the chain has nothing to fill. */
static uint32_t fill(const struct virtq_chain *c)
{
    size_t filled = 0;

    for (unsigned i = 0; i < c->in_count && filled < RNG_REQUEST_BYTES_MAX; i++) {
        size_t part = c->in[i].iov_len;

        if (part > RNG_REQUEST_BYTES_MAX - filled)
            part = RNG_REQUEST_BYTES_MAX - filled;
        ssize_t n = getrandom(c->in[i].iov_base, part, 0);
        if (n < 0)
            break;
        filled += (size_t)n;
        if ((size_t)n < part)
            break;
    }
    return (uint32_t)filled;
}

static void rng_process(struct virtio_device *v)
{
    unsigned waiting = virtio_pending(v, 0);
    struct virtq_chain chain;
    bool any = false;

    for (; waiting > 0 && virtio_next(v, 0, &chain); waiting--) {
        if (virtio_complete(v, 0, chain.head, fill(&chain)) < 0)
            break;
        any = true;
    }
    if (any)
        virtio_notify_driver(v, 0);
}

static const struct virtio_ops rng_ops = {
    .id = VIRTIO_ID_RNG,
    .queue_sizes = queue_sizes,
    .queue_count = sizeof(queue_sizes) / sizeof(queue_sizes[0]),
    .process = rng_process,
};

int rng_init(struct virtio_device *v, int fd, struct error *e)
{
    (void)fd;
    (void)e;
    virtio_init(v, &rng_ops);
    return 0;
}
