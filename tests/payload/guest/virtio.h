/* A virtio driver in small, for payloads: registers, set-up, rings. */
#pragma once

#include "guest.h"

#define QUEUE_SIZE  4u
#define MAGIC_VALUE 0x74726976u
#define NEEDS_RESET 0x40u

/* virtio 1.2, 4.2.2 */
enum {
    REG_MAGIC = 0x0,
    REG_DEVICE_FEATURES = 0x10,
    REG_DEVICE_FEATURES_SEL = 0x14,
    REG_DRIVER_FEATURES = 0x20,
    REG_DRIVER_FEATURES_SEL = 0x24,
    REG_QUEUE_SEL = 0x30,
    REG_QUEUE_NUM_MAX = 0x34,
    REG_QUEUE_NUM = 0x38,
    REG_QUEUE_READY = 0x44,
    REG_QUEUE_NOTIFY = 0x50,
    REG_INTERRUPT_STATUS = 0x60,
    REG_INTERRUPT_ACK = 0x64,
    REG_STATUS = 0x70,
    REG_QUEUE_DESC = 0x80,
    REG_QUEUE_DRIVER = 0x90,
    REG_QUEUE_DEVICE = 0xa0,
    REG_CONFIG = 0x100,
};

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };

struct addresses {
    uint64_t desc, avail, used;
};

static inline uint64_t reg(unsigned slot, unsigned offset)
{
    return GUEST_VIRTIO_GPA(slot) + offset;
}

/* Up to FEATURES_OK, accepting all that is offered. */
void negotiate(unsigned slot);
void set_queue(unsigned slot, uint32_t queue, uint32_t size, const struct addresses *at);
/* DRIVER_OK */
void set_running(unsigned slot);

/* A queue of QUEUE_SIZE whose chains are one to three buffers; nobody else uses its pages. */
struct ring {
    unsigned slot;
    uint32_t queue;
    uint64_t gpa; /* descriptors; the other two rings are in the pages behind */
};

struct buffer {
    uint64_t gpa;
    uint32_t length;
    uint16_t flags; /* DESC_WRITE or 0 */
};

/* Clears the ring and shows it to the device, between negotiate and set_running. */
void ring_set_up(const struct ring *r);
/* Adds a chain from the first descriptor on, which must be free, and notifies the device. */
void ring_add(const struct ring *r, const struct buffer *buffers, unsigned count);
/* Completed chains. */
uint16_t ring_used(const struct ring *r);
/* Bytes that the device wrote into the last of them. */
uint32_t ring_used_bytes(const struct ring *r);
