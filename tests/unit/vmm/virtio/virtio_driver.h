/*
 * The other side of the virtio devices, for their tests: a little guest memory between guard pages,
 * real files and sockets behind the devices, and what a driver does, through devices_mmio only.
 * A failed step fails the cmocka test.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/virtio/devices.h"

#define DRIVER_RAM_BYTES  (4u << 20)
#define DRIVER_DISK_BYTES (1u << 20)
#define DRIVER_STATE_MAX  4096u

/* Where the driver keeps things in guest memory: a ring set for each queue, data from 1 MiB. */
#define DRIVER_RING_GPA(slot, queue) (0x10000u + (slot)*0x20000u + (queue)*0x4000u)
#define DRIVER_DATA_GPA              0x100000u

struct driver_vm {
    uint8_t *map; /* with the guards */
    uint8_t *ram;
    struct guest_mem mem;
    struct devices *devices;
    struct devices_config config;
    int root_fd;
    int scratch_fd;
    int channel_fd; /* the daemon's end */
};

struct driver_queue {
    struct driver_vm *vm;
    enum guest_virtio_slot slot;
    unsigned index;
    uint16_t size;
    uint64_t desc_gpa;
    uint64_t avail_gpa;
    uint64_t used_gpa;
    uint16_t next_desc; /* the next free descriptor, taken round robin */
    uint16_t avail;
    uint16_t used; /* completions seen */
};

struct driver_buffer {
    uint64_t gpa;
    uint32_t bytes;
    bool in;
};

/* The root disk holds 32-bit words that count up, the scratch disk zeroes. */
void driver_vm_init(struct driver_vm *vm);
void driver_vm_fini(struct driver_vm *vm);
/* Saves the devices, drops them, and loads the state into new ones. */
void driver_vm_restore(struct driver_vm *vm);

void *driver_at(struct driver_vm *vm, uint64_t gpa); /* host address, for pokes */
uint32_t driver_read(struct driver_vm *vm, unsigned slot, uint32_t offset);
void driver_write(struct driver_vm *vm, unsigned slot, uint32_t offset, uint32_t value);
/* Whether QueueNotify was written since the last call, and did not come by driver_kick. */
bool driver_notified(struct driver_vm *vm, unsigned slot);
unsigned driver_interrupts(struct driver_vm *vm, unsigned slot); /* since the last call */

/* The steps of 3.1.1: up to FEATURES_OK with all that is offered, a queue, DRIVER_OK. */
void driver_negotiate(struct driver_vm *vm, unsigned slot);
void driver_queue_init(struct driver_queue *q, struct driver_vm *vm, unsigned slot, unsigned index,
                       uint16_t size);
void driver_start(struct driver_vm *vm, unsigned slot);
bool driver_needs_reset(struct driver_vm *vm, unsigned slot);

/* Puts a chain of buffers into the ring; returns its head. Then tells the device. */
uint16_t driver_add(struct driver_queue *q, const struct driver_buffer *buffers, unsigned count);
void driver_kick(struct driver_queue *q);
/* Takes one completion; false when there is none. */
bool driver_take(struct driver_queue *q, uint16_t *ret_head, uint32_t *ret_bytes);

/* What the loop does with the console's descriptor. */
uint32_t driver_channel_events(struct driver_vm *vm);
int driver_channel_io(struct driver_vm *vm, uint32_t events);

/* Raw access to the rings, to break them. */
void driver_set_desc(struct driver_queue *q, unsigned i, uint64_t gpa, uint32_t bytes,
                     uint16_t flags, uint16_t next);
void driver_set_avail(struct driver_queue *q, unsigned i, uint16_t head);
void driver_set_avail_index(struct driver_queue *q, uint16_t index);
