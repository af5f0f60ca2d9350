/* Finds the payload that the command line names, and runs it. */
#include "guest.h"

#include <asm/bootparam.h>

#define LAPIC_GPA       UINT64_C(0xfee00000)
#define LAPIC_SPURIOUS  0xf0u
#define LAPIC_ICR_LOW   0x300u
#define LAPIC_ICR_HIGH  0x310u
#define SECOND_CODE_GPA UINT64_C(0x8000)
#define SELECTOR_CS     0x10u

extern uint64_t fault_skip, fault_count;
void fault_with_code(void);
void fault_without_code(void);
void guest_main(const struct boot_params *params);

static struct {
    uint64_t low, high;
} idt[256];

static uint32_t random_state = 12345;

/* The compiler may call these two by itself. */
void *memset(void *data, int value, size_t size);
void *memcpy(void *to, const void *from, size_t size);

void *memset(void *data, int value, size_t size)
{
    volatile uint8_t *p = data;

    while (size-- > 0)
        *p++ = (uint8_t)value;
    return data;
}

void *memcpy(void *to, const void *from, size_t size)
{
    volatile uint8_t *p = to;
    const uint8_t *q = from;

    while (size-- > 0)
        *p++ = *q++;
    return to;
}

void give_up(uint8_t reason)
{
    ring(DOORBELL_FAILED | reason);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void done(void)
{
    give_up(GUEST_DONE);
}

uint32_t random32(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

void set_gate(unsigned vector, void (*handler)(void))
{
    uint64_t at = (uint64_t)handler;
    const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uint64_t)idt};

    idt[vector].low = (at & 0xffff) | (uint64_t)SELECTOR_CS << 16 | UINT64_C(0x8e00) << 32 |
                      (at & 0xffff0000) << 32;
    idt[vector].high = at >> 32;
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

void catch_faults(uint64_t skip)
{
    fault_skip = skip;
    set_gate(6, fault_without_code);
    set_gate(13, fault_with_code);
    set_gate(14, fault_with_code);
}

uint64_t faults(void)
{
    return *(volatile uint64_t *)&fault_count;
}

void start_second(const void *code, const void *end)
{
    static const uint32_t signals[] = {0x4500, 0x4600 | SECOND_CODE_GPA >> 12};

    memcpy((void *)SECOND_CODE_GPA, code, (size_t)((const char *)end - (const char *)code));
    put32(LAPIC_GPA + LAPIC_SPURIOUS, 0x1ff);
    for (unsigned i = 0; i < 2; i++) {
        put32(LAPIC_GPA + LAPIC_ICR_HIGH, 1u << 24);
        put32(LAPIC_GPA + LAPIC_ICR_LOW, signals[i]);
    }
}

/* Whether the word at `at` is `name`. */
static int is_word(const char *at, const char *name)
{
    while (*name != '\0' && *at == *name) {
        at++;
        name++;
    }
    return *name == '\0' && (*at == '\0' || *at == ' ');
}

/* What follows "payload=" in the command line, which the monitor puts at its end. */
static const char *find_name(const char *cmdline)
{
    static const char key[] = "payload=";

    for (; *cmdline != '\0'; cmdline++) {
        size_t i = 0;

        while (key[i] != '\0' && cmdline[i] == key[i])
            i++;
        if (key[i] == '\0')
            return cmdline + i;
    }
    return cmdline;
}

void guest_main(const struct boot_params *params)
{
    const struct payload *const tables[] = {payloads_cpu, payloads_io, payloads_virtio,
                                            payloads_block, payloads_channel};
    const char *name = find_name((const char *)(uint64_t)params->hdr.cmd_line_ptr);

    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
        for (const struct payload *p = tables[t]; p->name != NULL; p++) {
            if (is_word(name, p->name)) {
                p->run();
                done();
            }
        }
    }
    give_up(GUEST_UNKNOWN);
}
