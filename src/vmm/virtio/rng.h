/* Entropy device (virtio 1.2, 5.4): every buffer gets bytes of the host's getrandom(2), but never
 * more than RNG_REQUEST_BYTES_MAX, however much is asked for. */
#pragma once

#include "vmm/virtio/device.h"

#define RNG_REQUEST_BYTES_MAX 4096u

struct rng {
    struct virtio_device v;
};

/* A row of devices.c. `v` is a struct rng's; there is no descriptor. */
int rng_init(struct virtio_device *v, int fd, struct error *e) __attribute__((warn_unused_result));
