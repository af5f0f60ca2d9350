/* Processor state: faults, model-specific registers, timers, a second vCPU, all of memory. */
#include "guest.h"

#define LAPIC_GPA     UINT64_C(0xfee00000)
#define IO_APIC_GPA   UINT64_C(0xfec00000)
#define TIMER_VECTOR  0x40u
#define MSR_EFER      0xc0000080u
#define MSR_APIC_BASE 0x1bu

extern uint64_t timer_count;
extern const char second_flood[], second_flood_end[], second_halt[], second_halt_end[];
void timer_interrupt(void);

static void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static uint64_t rdmsr(uint32_t msr)
{
    uint32_t low = 0, high = 0;

    __asm__ volatile("rdmsr" : "+a"(low), "+d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

static void triple_fault(void)
{
    __asm__ volatile("ud2");
    give_up(1);
}

static void page_fault(void)
{
    (void)get32(UINT64_C(0x7f0000000000)); /* not mapped, and no handler */
    give_up(1);
}

static void tables_nowhere(void)
{
    __asm__ volatile("mov %0, %%cr3" : : "r"(UINT64_C(0x123456000)) : "memory");
    (void)get32(SCRATCH_GPA);
    give_up(1);
}

static void tables_in_device(void)
{
    __asm__ volatile("mov %0, %%cr3" : : "r"(GUEST_VIRTIO_GPA(0)) : "memory");
    (void)get32(SCRATCH_GPA);
    give_up(1);
}

static void run_device(void)
{
    void (*code)(void) = (void (*)(void))GUEST_VIRTIO_GPA(1);

    code();
    give_up(1);
}

/* Neither of these is in an instruction interpreter. */
static void unusual(void)
{
    __asm__ volatile("fninit; fwait; wbinvd");
}

static void msr_storm(void)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        {0x0, 0x3f},
        {0x8b, 0x8b},
        {0xc0, 0x110},
        {0x140, 0x1ff},
        {0x200, 0x2ff},
        {0x300, 0x420},
        {0x480, 0x492},
        {0x6e0, 0x6e1},
        {0x800, 0x83f},
        {0xda0, 0xda0},
        {0x40000000, 0x40000020},
        {0x40000100, 0x40000105},
        {0x4b564cff, 0x4b564d0a},
        {0xc0000081, 0xc0000084},
        {0xc0000100, 0xc0000104},
        {0xc0010000, 0xc0010020},
        {0xc0010110, 0xc0010120},
        {0xfffffff0, 0xffffffff},
    };
    static const uint64_t values[] = {0,
                                      1,
                                      UINT64_MAX,
                                      0x8000000000000000,
                                      0x0000800000000000,
                                      RAM_BYTES | 1,
                                      GUEST_GAP_GPA | 1,
                                      SCRATCH_GPA | 1};

    catch_faults(2);
    for (size_t r = 0; r < sizeof(ranges) / sizeof(ranges[0]); r++) {
        for (uint32_t msr = ranges[r].first;; msr++) {
            uint64_t old = rdmsr(msr);

            for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
                if (msr != MSR_APIC_BASE || v < 2)
                    wrmsr(msr, values[v]);
            }
            wrmsr(msr, old);
            if (msr == ranges[r].last)
                break;
        }
    }
    CHECK(faults() > 0, 1);
}

/* Local and I/O APIC registers, every one with random values; interrupts stay off. */
static void apic_storm(void)
{
    for (unsigned i = 0; i < 4000; i++) {
        uint64_t offset = (random32() % 64) * 16;

        if (offset != 0x300 && offset != 0x310) /* signals may reset this very vCPU */
            put32(LAPIC_GPA + offset, random32());
        (void)get32(LAPIC_GPA + offset);
    }
    for (unsigned i = 0; i < 4000; i++) {
        put32(IO_APIC_GPA, random32() % 80);
        put32(IO_APIC_GPA + 0x10, random32());
        (void)get32(IO_APIC_GPA + 0x10);
    }
    put8(LAPIC_GPA + 1, 1);
    put64(IO_APIC_GPA + 3, UINT64_MAX);
}

/* A timer as fast as it goes, interrupts on. */
static void timer_storm(void)
{
    set_gate(TIMER_VECTOR, timer_interrupt);
    put32(LAPIC_GPA + 0xf0, 0x1ff);
    put32(LAPIC_GPA + 0x3e0, 0xb);                     /* divide by 1 */
    put32(LAPIC_GPA + 0x320, 0x20000u | TIMER_VECTOR); /* periodic */
    put32(LAPIC_GPA + 0x380, 1);
    __asm__ volatile("sti");
    for (unsigned i = 0; i < 3000000 && *(volatile uint64_t *)&timer_count < 200; i++)
        __asm__ volatile("pause");
    __asm__ volatile("cli");
    CHECK(timer_count > 0, 1);
}

static void dirty_all(void)
{
    for (uint64_t gpa = SCRATCH_GPA; gpa < RAM_BYTES; gpa += GUEST_PAGE_BYTES)
        put64(gpa, gpa);
    for (uint64_t gpa = SCRATCH_GPA; gpa < RAM_BYTES; gpa += GUEST_PAGE_BYTES)
        CHECK(get64(gpa) == gpa, 1);
}

static void wait_a_little(void)
{
    for (unsigned i = 0; i < 20000; i++)
        __asm__ volatile("pause");
}

/* Parking while another vCPU does something else. */
static void park_beside_flood(void)
{
    start_second(second_flood, second_flood_end);
    wait_a_little();
    ring(DOORBELL_PARK);
    ring(DOORBELL_FIRST);
    wait_a_little();
    ring(DOORBELL_READY);
}

static void park_beside_halt(void)
{
    start_second(second_halt, second_halt_end);
    wait_a_little();
    ring(DOORBELL_PARK);
    ring(DOORBELL_FIRST);
    ring(DOORBELL_READY);
}

static void park_alone(void)
{
    ring(DOORBELL_PARK); /* the second vCPU was never started */
    ring(DOORBELL_FIRST);
    ring(DOORBELL_READY);
}

const struct payload payloads_cpu[] = {
    {"triple_fault", triple_fault},
    {"page_fault", page_fault},
    {"tables_nowhere", tables_nowhere},
    {"tables_in_device", tables_in_device},
    {"run_device", run_device},
    {"unusual", unusual},
    {"msr_storm", msr_storm},
    {"apic_storm", apic_storm},
    {"timer_storm", timer_storm},
    {"dirty_all", dirty_all},
    {"park_beside_flood", park_beside_flood},
    {"park_beside_halt", park_beside_halt},
    {"park_alone", park_alone},
    {NULL, NULL},
};
