/* Entropy device (virtio 1.2, 5.4): every buffer gets bytes of the host's getrandom(2), but never
 * more than RNG_REQUEST_BYTES_MAX, however much is asked for. */
#pragma once

#include "vmm/virtio/mmio.h"

#define RNG_REQUEST_BYTES_MAX 4096u

struct rng {
    struct virtio_device v;
};

/* `v.name`, `v.mem` and `v.irq_fd` are set by the caller before. */
void rng_init(struct rng *r);
