/* Ports, memory that is not there, and the doorbell. */
#include "guest.h"

#define HOLE_GPA    UINT64_C(0x10000000) /* behind RAM, below the gap */
#define NOWHERE_GPA GUEST_VIRTIO_GPA(GUEST_VIRTIO_COUNT)
#define SERIAL_PORT 0x3f8
#define PAGE        GUEST_PAGE_BYTES

static const uint64_t nowhere[] = {
    RAM_BYTES,   HOLE_GPA,   GUEST_GAP_GPA - 8, GUEST_DOORBELL_GPA + 8,
    NOWHERE_GPA, 0xe0000000, 0xfed00000,        0xfeb00000,
    0xfec01000,  0xffffff00, 0xfffbc000,        0xfffbd000,
};

static void mmio_nowhere(void)
{
    for (unsigned round = 0; round < 20; round++) {
        for (size_t i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++) {
            uint64_t gpa = nowhere[i];

            put8(gpa + 1, 0x55);
            put16(gpa + 2, 0x5555);
            put32(gpa + 4, 0x55555555);
            put64(gpa, 0x5555555555555555);
            if (gpa >= 0xfec00000) /* KVM has pages of its own there */
                continue;
            CHECK(get8(gpa + 1) == 0xff, 1);
            CHECK(get16(gpa + 2) == 0xffff, 2);
            CHECK(get32(gpa + 4) == UINT32_MAX, 3);
            CHECK(get64(gpa) == UINT64_MAX, 4);
        }
    }
}

/* Across the borders between RAM, the hole, the doorbell and the devices; and unaligned. */
static void mmio_straddle(void)
{
    static const uint64_t borders[] = {
        RAM_BYTES,   GUEST_GAP_GPA,     GUEST_VIRTIO_GPA(0), GUEST_VIRTIO_GPA(1),
        NOWHERE_GPA, 0xfec00000,        0xfee00000,          0xfee01000,
        HOLE_GPA,    0xfec00000 + PAGE,
    };

    for (size_t i = 0; i < sizeof(borders) / sizeof(borders[0]); i++) {
        for (uint64_t back = 1; back < 8; back++) {
            uint64_t gpa = borders[i] - back;

            /* The doorbell must not read a value out of this. */
            put64(gpa, 0x0100010001000100);
            put32(gpa, 0x01000100);
            put16(gpa, 0x0100);
            (void)get64(gpa);
            (void)get32(gpa);
            (void)get16(gpa);
        }
    }
}

static void string_out(uint16_t port, const void *data, uint64_t count, unsigned width)
{
    if (width == 1)
        __asm__ volatile("rep outsb" : "+S"(data), "+c"(count) : "d"(port) : "memory");
    else if (width == 2)
        __asm__ volatile("rep outsw" : "+S"(data), "+c"(count) : "d"(port) : "memory");
    else
        __asm__ volatile("rep outsl" : "+S"(data), "+c"(count) : "d"(port) : "memory");
}

static void string_in(uint16_t port, void *data, uint64_t count, unsigned width)
{
    if (width == 1)
        __asm__ volatile("rep insb" : "+D"(data), "+c"(count) : "d"(port) : "memory");
    else
        __asm__ volatile("rep insl" : "+D"(data), "+c"(count) : "d"(port) : "memory");
}

static void port_string(void)
{
    static const uint16_t ports[] = {SERIAL_PORT, 0x3fd, 0x64, 0x80, 0xcf8, 0x0, 0xffff};

    for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
        /* From an odd place on, over page borders, and from memory that holds no reset command. */
        string_out(ports[i], (const void *)(SCRATCH_GPA + 4093), 5000, 1);
        string_out(ports[i], (const void *)(SCRATCH_GPA + 4093), 2500, 2);
        string_out(ports[i], (const void *)(SCRATCH_GPA + 4093), 1250, 4);
        string_in(ports[i], (void *)(SCRATCH_GPA + 0x10000 + 4093), 5000, 1);
        string_in(ports[i], (void *)(SCRATCH_GPA + 0x10000 + 4093), 1250, 4);
    }
    __asm__ volatile("std; rep outsb; cld"
                     :
                     : "S"(SCRATCH_GPA + 4100), "c"(UINT64_C(100)), "d"((uint16_t)SERIAL_PORT)
                     : "memory");
}

/* String output from, and input to, memory that is not there. */
static void port_string_nowhere(void)
{
    string_out(SERIAL_PORT, (const void *)(RAM_BYTES - 16), 64, 1);
    string_out(SERIAL_PORT, (const void *)GUEST_VIRTIO_GPA(0), 64, 1);
    string_in(SERIAL_PORT, (void *)(RAM_BYTES - 16), 64, 1);
    string_in(SERIAL_PORT, (void *)NOWHERE_GPA, 64, 1);
}

static void port_flood(void)
{
    for (uint32_t port = 0; port <= 0xffff; port += port < 0x500 ? 1 : 37) {
        if (port == 0x64)
            continue;
        out8((uint16_t)port, 0xfe);
        CHECK((port >= 0x20 && port < 0x100) || port == 0x4d0 || port == 0x4d1 ||
                  (port >= SERIAL_PORT && port < SERIAL_PORT + 8) || in8((uint16_t)port) == 0xff,
              1);
        if (port == 0x63 || port == 0x62 || port == 0x61)
            continue;
        out16((uint16_t)port, 0x1234);
        out32((uint16_t)port, 0x12345678);
        (void)in32((uint16_t)port);
    }
    for (unsigned i = 0; i < 5000; i++)
        out8((uint16_t)(0x500 + i % 7), (uint8_t)i);
}

static void serial_flood(void)
{
    uint8_t *text = (uint8_t *)SCRATCH_GPA;

    for (unsigned i = 0; i < 4096; i++)
        text[i] = (uint8_t)random32();
    for (unsigned i = 0; i < 20; i++) /* more than the log holds */
        string_out(SERIAL_PORT, text, 4096, 1);
    for (unsigned i = 0; i < 2000; i++) /* every register, every value, interrupts on */
        out8((uint16_t)(SERIAL_PORT + random32() % 8), (uint8_t)random32());
}

static void reset(void)
{
    out8(0x64, 0xfe);
    give_up(1);
}

/* The end of the serial log explains a failed boot. */
static void last_words(void)
{
    static const char text[] = "early\nlast \x1b[31mwords\n";

    string_out(SERIAL_PORT, text, sizeof(text) - 1, 1);
    reset();
}

static void doorbell_disorder(void)
{
    static const uint32_t values[] = {DOORBELL_FIRST, DOORBELL_READY, DOORBELL_BOOTED, 0,      5,
                                      0x200,          UINT32_MAX,     0x80000002,      0x10000};

    for (unsigned round = 0; round < 200; round++) {
        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
            ring(values[i]);
    }
    /* The right values at wrong places and widths. */
    put8(GUEST_DOORBELL_GPA, DOORBELL_PARK);
    put16(GUEST_DOORBELL_GPA, DOORBELL_FAILED);
    put64(GUEST_DOORBELL_GPA, DOORBELL_PARK);
    for (uint64_t offset = 1; offset < PAGE; offset += 13)
        put32(GUEST_DOORBELL_GPA + offset, DOORBELL_PARK);
    (void)get32(GUEST_DOORBELL_GPA);
}

static void doorbell_failed(void)
{
    give_up(GUEST_FAILURE_RESEED);
}

static void park(void)
{
    ring(DOORBELL_BOOTED);
    ring(DOORBELL_PARK);
    /* A restored guest goes on here; a booted one never. */
    ring(DOORBELL_READY); /* too early: ignored */
    ring(DOORBELL_FIRST);
    ring(DOORBELL_FIRST);
    CHECK(get64(GUEST_IDENTITY_GPA) == IDENTITY_MAGIC, 1);
    ring(DOORBELL_READY);
    CHECK(get64(GUEST_IDENTITY_GPA) == 0, 2);
    CHECK(get64(GUEST_IDENTITY_GPA + 200) == 0, 3);
    ring(DOORBELL_READY);
    ring(DOORBELL_PARK);
}

const struct payload payloads_io[] = {
    {"mmio_nowhere", mmio_nowhere},
    {"mmio_straddle", mmio_straddle},
    {"port_string", port_string},
    {"port_string_nowhere", port_string_nowhere},
    {"port_flood", port_flood},
    {"serial_flood", serial_flood},
    {"reset", reset},
    {"last_words", last_words},
    {"doorbell_disorder", doorbell_disorder},
    {"doorbell_failed", doorbell_failed},
    {"park", park},
    {NULL, NULL},
};
