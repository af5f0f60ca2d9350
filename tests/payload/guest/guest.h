/* What the payload guests have in common: ports, MMIO, the doorbell and a table of payloads. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cloche/guest_abi.h"

#define RAM_BYTES        (UINT64_C(64) << 20)     /* what the runner gives */
#define SCRATCH_GPA      UINT64_C(0x800000)       /* free from here */
#define CHANNEL_BYTE_GPA (SCRATCH_GPA + 0x140000) /* the last byte that the test has sent */
#define GUEST_DONE       0x50u /* the failure reason of a payload that is content */
#define GUEST_UNKNOWN    0x51u /* no such payload */

struct payload {
    const char *name;
    void (*run)(void);
};

extern const struct payload payloads_cpu[];
extern const struct payload payloads_io[];
extern const struct payload payloads_virtio[];
extern const struct payload payloads_block[];
extern const struct payload payloads_channel[];

/* Every value is thrown away or random: what a payload does is not up to the compiler. */
static inline void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void out16(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t in8(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint32_t in32(uint16_t port)
{
    uint32_t value;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void put8(uint64_t gpa, uint8_t value)
{
    *(volatile uint8_t *)gpa = value;
}

static inline void put16(uint64_t gpa, uint16_t value)
{
    *(volatile uint16_t *)gpa = value;
}

static inline void put32(uint64_t gpa, uint32_t value)
{
    *(volatile uint32_t *)gpa = value;
}

static inline void put64(uint64_t gpa, uint64_t value)
{
    *(volatile uint64_t *)gpa = value;
}

static inline uint8_t get8(uint64_t gpa)
{
    return *(volatile uint8_t *)gpa;
}

static inline uint16_t get16(uint64_t gpa)
{
    return *(volatile uint16_t *)gpa;
}

static inline uint32_t get32(uint64_t gpa)
{
    return *(volatile uint32_t *)gpa;
}

static inline uint64_t get64(uint64_t gpa)
{
    return *(volatile uint64_t *)gpa;
}

/* Rings with `value`. */
static inline void ring(uint32_t value)
{
    put32(GUEST_DOORBELL_GPA, value);
}

/* Ends the guest: with `reason`, or contentedly. */
_Noreturn void give_up(uint8_t reason);
_Noreturn void done(void);

#define CHECK(condition, reason)                                                                   \
    do {                                                                                           \
        if (!(condition))                                                                          \
            give_up(reason);                                                                       \
    } while (0)

uint32_t random32(void);

/* After this, #GP and #PF in an instruction of `skip` bytes are counted and skipped. */
void catch_faults(uint64_t skip);
uint64_t faults(void);

/* Adds an interrupt gate. */
void set_gate(unsigned vector, void (*handler)(void));

/* Starts the second vCPU in real mode with a copy of this code. */
void start_second(const void *code, const void *end);
