/*
 * The one door to guest memory. Every guest-physical address that a guest, a snapshot or a device
 * register names passes through guest_mem_at; no other file does arithmetic on guest addresses that
 * ends in a pointer.
 *
 * Guest RAM is one host mapping of mem_bytes. Its first part sits at GPA 0 up to at most
 * GUEST_GAP_GPA; what is left sits at GUEST_HIGH_RAM_GPA.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct guest_mem {
    uint8_t *host;       /* the mapping */
    uint64_t low_bytes;  /* at GPA 0 */
    uint64_t high_bytes; /* at GUEST_HIGH_RAM_GPA; 0 in small guests */
};

/* Lays `mem_bytes` of RAM mapped at `host` out as above. The mapping stays the caller's. */
void guest_mem_init(struct guest_mem *m, void *host, uint64_t mem_bytes);

/*
 * Host address of `size` bytes of guest memory at `gpa`, or NULL where not all of them are RAM (the
 * gap, past the end, across both parts, or an address that wraps). A size of 0 yields NULL.
 */
void *guest_mem_at(const struct guest_mem *m, uint64_t gpa, uint64_t size)
    __attribute__((warn_unused_result));
