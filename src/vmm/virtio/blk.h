/*
 * Block device (virtio 1.2, 5.2) over one file or host block device, whose bytes are the disk's:
 * no image format is ever looked for. A request is carried out where it is found, straight between
 * the file and guest memory, and completed before the next is looked at. It may take the host as
 * long as it likes: the thread that serves disks waits for nothing else, and of the disk's two
 * locks (device.h) only `serving` is held, for which a reset and the freeze of a snapshot wait.
 *
 *   read-only   IN, GET_ID
 *   writable    also OUT, FLUSH, DISCARD and WRITE_ZEROES (both punch a hole: disks are sparse)
 *
 * Anything else is answered UNSUPP; a range that is not wholly on the disk, a length that is not
 * whole sectors, and any failure of the host (ENOSPC and EIO included) are answered IOERR.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "vmm/virtio/device.h"

struct blk {
    struct virtio_device v;
    int fd;
    bool writable;
    uint64_t sector_count;
};

/* A row of devices.c: a read-only disk and a writable one, as large as the file is now. `v` is a
 * struct blk's. */
int blk_init_root(struct virtio_device *v, int fd, struct error *e)
    __attribute__((warn_unused_result));
int blk_init_scratch(struct virtio_device *v, int fd, struct error *e)
    __attribute__((warn_unused_result));
