/*
 * Block device (virtio 1.2, 5.2) over one file or host block device, whose bytes are the disk's:
 * no image format is ever looked for. A request is carried out where it is found, straight between
 * the file and guest memory, and completed before the next is looked at.
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
#include "vmm/virtio/mmio.h"

struct blk {
    struct virtio_device v;
    int fd;
    bool writable;
    uint64_t sector_count;
};

/* `v.name`, `v.mem` and `v.irq_fd` are set by the caller before; the descriptor stays its own. The
 * disk is as large as the file is now. */
int blk_init(struct blk *b, int fd, bool writable, struct error *e)
    __attribute__((warn_unused_result));
