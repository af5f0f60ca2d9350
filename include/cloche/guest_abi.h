/*
 * What the monitor and the guest agent agree on outside any virtio device: the guest-physical
 * layout, the doorbell page and the identity page. The agent reaches both pages by mmap of
 * /dev/mem, from user mode: on a KVM that interprets guest kernel mode that costs next to nothing.
 *
 *   0x00009d000  identity page (RAM, reserved in e820)
 *   0x00009fc00  MP table (reserved)
 *   0x000100000  kernel and the rest of low RAM, up to the MMIO gap
 *   0x0d0000000  doorbell page (no memory: each store exits to the monitor)
 *   0x0d0001000  virtio-mmio devices, one page each
 *   0x100000000  RAM above the gap
 *
 * Snapshot and restore: the agent boots, mounts everything, then stores DOORBELL_PARK. The monitor
 * saves the machine right behind that store. Every restored guest continues there, in user mode, so
 * its first instruction is the agent's store of DOORBELL_FIRST. The agent then copies the identity
 * page and wipes it, reseeds the kernel's RNG, sets clock, hostname and machine id and stores
 * DOORBELL_READY, or DOORBELL_FAILED with a reason, on which the sandbox is destroyed.
 */
#pragma once

#include <stdint.h>

#include "cloche/limits.h"

#define GUEST_PAGE_BYTES    UINT64_C(4096)
#define GUEST_IDENTITY_GPA  UINT64_C(0x9d000)
#define GUEST_MPTABLE_GPA   UINT64_C(0x9fc00)
#define GUEST_GAP_GPA       UINT64_C(0xd0000000)  /* RAM ends below, MMIO lives from here ... */
#define GUEST_HIGH_RAM_GPA  UINT64_C(0x100000000) /* ... to here */
#define GUEST_DOORBELL_GPA  GUEST_GAP_GPA
#define GUEST_VIRTIO_GPA(n) (GUEST_GAP_GPA + GUEST_PAGE_BYTES * (1 + (uint64_t)(n)))
#define GUEST_VIRTIO_IRQ(n) (5u + (n))

/* The virtio-mmio slots; the kernel names disks in this order (vda, vdb). */
enum guest_virtio_slot {
    GUEST_VIRTIO_ROOT,    /* block, read-only: the template's root file system */
    GUEST_VIRTIO_SCRATCH, /* block: the sandbox's own writable disk */
    GUEST_VIRTIO_CONSOLE, /* multiport console with one port: the agent channel, /dev/vport*p1 */
    GUEST_VIRTIO_RNG,
    GUEST_VIRTIO_COUNT
};

/* Values stored (32 bit) at offset 0 of the doorbell page. */
enum guest_doorbell {
    DOORBELL_BOOTED = 1, /* PID 1 runs; for boot progress only */
    DOORBELL_PARK = 2,   /* everything is mounted and idle: take the snapshot behind this store */
    DOORBELL_FIRST = 3,  /* first user instruction after a restore */
    DOORBELL_READY = 4,  /* reseeded, clock and identity set: tenants' commands may run */
    DOORBELL_FAILED = 0x100, /* plus one of guest_failure in the low byte */
};

enum guest_failure {
    GUEST_FAILURE_IDENTITY = 1, /* the identity page's magic or version is wrong */
    GUEST_FAILURE_RESEED = 2,
    GUEST_FAILURE_CLOCK = 3,
    GUEST_FAILURE_HOSTNAME = 4,
    GUEST_FAILURE_MOUNT = 6,   /* at boot, before the snapshot */
    GUEST_FAILURE_CHANNEL = 7, /* the channel's port is missing, or a frame broke the protocol */
};

#define IDENTITY_MAGIC   UINT64_C(0x31304449434f4c43) /* "CLOCID01", little-endian */
#define IDENTITY_VERSION 1u

/* All fields little-endian; the monitor zeroes the page again when the guest rings READY. */
struct identity_page {
    uint64_t magic;
    uint32_t version;
    uint32_t reserved;                     /* 0 */
    uint64_t realtime_ns;                  /* CLOCK_REALTIME of the host at START */
    uint8_t entropy[64];                   /* fresh from the host's getrandom(2) for each sandbox */
    uint8_t machine_id[16];                /* random; the agent writes it as 32 hex digits */
    char hostname[HOSTNAME_BYTES_MAX];     /* NUL-terminated */
    char sandbox_id[SANDBOX_ID_BYTES_MAX]; /* NUL-terminated */
};

_Static_assert(sizeof(struct identity_page) == 208, "wire layout");
_Static_assert(sizeof(struct identity_page) <= GUEST_PAGE_BYTES, "one page");
