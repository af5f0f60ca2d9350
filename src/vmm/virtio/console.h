/*
 * Console device (virtio 1.2, 5.3) with VIRTIO_CONSOLE_F_MULTIPORT, used as a byte channel: of its
 * two ports only port 1 is ever added, and it is never called a console, so that a Linux guest gets
 * one plain character device, /dev/vport*p1, and no terminal. (Port 0 exists in the numbering only:
 * drivers treat it as the console of old.)
 *
 *   guest              device        when
 *   DEVICE_READY 1  -> PORT_ADD 1    the driver has its control buffers in place
 *   PORT_READY 1    -> PORT_OPEN 1   the port has its receive buffers; we always have a peer
 *   PORT_OPEN 1, 0                   a process opened or closed the port
 *
 * Bytes go between the port's queues and a stream socket unread, unchanged and without a buffer in
 * between, so that back-pressure is the sockets' and the queues' own:
 *   to the host    a chain is completed when the socket has taken all of its bytes; the next is not
 *                  looked at before
 *   to the guest   the socket is read only into buffers that the guest has made available, and only
 *                  while a process has the port open (Linux discards what comes otherwise)
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm/virtio/device.h"

struct console {
    struct virtio_device v;
    int fd;
    bool gone;         /* the peer has closed the socket */
    bool guest_open;   /* a process in the guest has the port open */
    bool tx_waiting;   /* there is more to send as soon as the socket takes it */
    uint8_t messages;  /* control messages still to be delivered, a set of console.c's bits */
    uint64_t tx_bytes; /* of the transmit chain at hand, what the socket has taken already */
};

/* A row of devices.c. `v` is a struct console's; the socket becomes non-blocking. */
int console_init(struct virtio_device *v, int fd, struct error *e)
    __attribute__((warn_unused_result));
