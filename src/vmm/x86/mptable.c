#include "vmm/x86/mptable.h"

#include <assert.h>
#include <string.h>

#include "base/wire.h"
#include "cloche/guest_abi.h"
#include "cloche/limits.h"

#define LOCAL_APIC_GPA  0xfee00000u
#define IO_APIC_GPA     0xfec00000u
#define IO_APIC_PINS    24u
#define APIC_VERSION    0x14u
#define POINTER_BYTES   16u
#define HEADER_BYTES    44u
#define PROCESSOR_BYTES 20u
#define ENTRY_BYTES     8u
#define BUS_ISA         0u

enum entry { ENTRY_PROCESSOR, ENTRY_BUS, ENTRY_IO_APIC, ENTRY_IO_INTERRUPT, ENTRY_LOCAL_INTERRUPT };
enum interrupt { INTERRUPT_INT = 0, INTERRUPT_NMI = 1, INTERRUPT_EXTINT = 3 };

_Static_assert(POINTER_BYTES + HEADER_BYTES + PROCESSOR_BYTES * SANDBOX_VCPUS_MAX +
                       ENTRY_BYTES * (2 + IO_APIC_PINS + 2) <=
                   MPTABLE_BYTES,
               "the table must fit in the last KiB below 640 KiB");

static uint8_t checksum(const uint8_t *bytes, size_t size)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + bytes[i]);
    return (uint8_t)(0u - sum);
}

/* 4.3.1: APIC id, version, flags (enabled, bootstrap), signature and features (FPU, APIC). */
static void put_processors(struct wire_writer *w, uint32_t vcpus)
{
    for (uint32_t i = 0; i < vcpus; i++) {
        wire_put_u8(w, ENTRY_PROCESSOR);
        wire_put_u8(w, (uint8_t)i);
        wire_put_u8(w, APIC_VERSION);
        wire_put_u8(w, i == 0 ? 3 : 1);
        wire_put_u32(w, 0x600);
        wire_put_u32(w, 0x201);
        wire_put_u64(w, 0);
    }
}

static void put_bus_and_io_apic(struct wire_writer *w, uint32_t vcpus)
{
    wire_put_u8(w, ENTRY_BUS);
    wire_put_u8(w, BUS_ISA);
    wire_put_bytes(w, "ISA   ", 6);

    wire_put_u8(w, ENTRY_IO_APIC);
    wire_put_u8(w, (uint8_t)vcpus); /* an id that no processor has */
    wire_put_u8(w, 0x11);
    wire_put_u8(w, 1); /* enabled */
    wire_put_u32(w, IO_APIC_GPA);
}

/* 4.3.4: line n of the ISA bus ends at pin n; polarity and trigger are the bus's (high, edge). */
static void put_interrupts(struct wire_writer *w, uint32_t vcpus)
{
    for (uint32_t pin = 0; pin < IO_APIC_PINS; pin++) {
        wire_put_u8(w, ENTRY_IO_INTERRUPT);
        wire_put_u8(w, INTERRUPT_INT);
        wire_put_u16(w, 0);
        wire_put_u8(w, BUS_ISA);
        wire_put_u8(w, (uint8_t)pin);
        wire_put_u8(w, (uint8_t)vcpus);
        wire_put_u8(w, (uint8_t)pin);
    }
    static const struct {
        uint8_t type, apic, lint;
    } local[] = {{INTERRUPT_EXTINT, 0, 0}, {INTERRUPT_NMI, 0xff, 1}};
    for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
        wire_put_u8(w, ENTRY_LOCAL_INTERRUPT);
        wire_put_u8(w, local[i].type);
        wire_put_u16(w, 0);
        wire_put_u8(w, BUS_ISA);
        wire_put_u8(w, 0);
        wire_put_u8(w, local[i].apic);
        wire_put_u8(w, local[i].lint);
    }
}

int mptable_write(const struct guest_mem *mem, uint32_t vcpus, struct error *e)
{
    uint8_t *pointer = guest_mem_at(mem, GUEST_MPTABLE_GPA, MPTABLE_BYTES);
    struct wire_writer w;

    assert(vcpus >= 1 && vcpus <= SANDBOX_VCPUS_MAX);
    if (pointer == NULL)
        return error_set(e, ERR_INTERNAL, "the guest's memory has no room for the MP table");
    memset(pointer, 0, MPTABLE_BYTES);
    uint8_t *table = pointer + POINTER_BYTES;

    wire_writer_init(&w, table + HEADER_BYTES, MPTABLE_BYTES - POINTER_BYTES - HEADER_BYTES);
    put_processors(&w, vcpus);
    put_bus_and_io_apic(&w, vcpus);
    put_interrupts(&w, vcpus);
    assert(!w.bad);
    uint16_t size = (uint16_t)(HEADER_BYTES + w.used);
    uint16_t count = (uint16_t)(vcpus + 2 + IO_APIC_PINS + 2);

    wire_writer_init(&w, table, HEADER_BYTES); /* 4.2 */
    wire_put_bytes(&w, "PCMP", 4);
    wire_put_u16(&w, size);
    wire_put_u8(&w, 4); /* revision 1.4 */
    wire_put_u8(&w, 0); /* checksum, below */
    wire_put_bytes(&w, "CLOCHE  MICROVM     ", 20);
    wire_put_u32(&w, 0);
    wire_put_u16(&w, 0);
    wire_put_u16(&w, count);
    wire_put_u32(&w, LOCAL_APIC_GPA);
    table[7] = checksum(table, size);

    wire_writer_init(&w, pointer, POINTER_BYTES); /* 4.1 */
    wire_put_bytes(&w, "_MP_", 4);
    wire_put_u32(&w, (uint32_t)(GUEST_MPTABLE_GPA + POINTER_BYTES));
    wire_put_u8(&w, 1); /* paragraphs */
    wire_put_u8(&w, 4);
    pointer[10] = checksum(pointer, POINTER_BYTES);
    return 0;
}
