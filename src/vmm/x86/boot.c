#include "vmm/x86/boot.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "cloche/guest_abi.h"

#define GDT_GPA       UINT64_C(0x1000)
#define PARAMS_GPA    UINT64_C(0x2000)
#define PML4_GPA      UINT64_C(0x3000)
#define PDPT_GPA      UINT64_C(0x4000)
#define PD_GPA        UINT64_C(0x5000)
#define PD_COUNT      4u
#define STACK_TOP_GPA UINT64_C(0xa000)
#define CMDLINE_GPA   UINT64_C(0x20000)
#define LOW_RAM_END   GUEST_IDENTITY_GPA
#define LEGACY_END    UINT64_C(0xa0000)
#define RAM_START     UINT64_C(0x100000)

#define PTE_PRESENT_WRITE 0x3u
#define PTE_LARGE         0x80u
#define PAGE_ENTRIES      512u

#define CR0_PE   UINT64_C(1)
#define CR0_PG   (UINT64_C(1) << 31)
#define CR4_PAE  (UINT64_C(1) << 5)
#define EFER_LME (UINT64_C(1) << 8)
#define EFER_LMA (UINT64_C(1) << 10)

#define SELECTOR_CS 0x10u
#define SELECTOR_DS 0x18u
#define SELECTOR_TR 0x20u

/*
 * No timer, no keyboard controller and no firmware is there to be probed or calibrated against, so
 * the kernel is told. panic and reboot end in the monitor. lpj is only a bound for early delays.
 */
static const char cmdline_base[] =
    "console=ttyS0 quiet panic=-1 reboot=k tsc=reliable no_timer_check lpj=1000000 "
    "random.trust_cpu=off";

/* See x86/cpuid.c: the kernel finds these features by itself, but is interpreted by something that
 * has none of them. And the TSC is the host's there (x86/vcpu_state.h). tick_stride and
 * fault_around_pages are our kernel's (images/kernel/patches): a tick is a millisecond there.
 * Remapping the kernel's pages read-only costs half a second of the boot. */
static const char cmdline_software[] =
    " clocksource=kvm-clock tick_stride=5 fault_around_pages=4 rodata=off noxsave "
    "clearcpuid=popcnt,smap,smep,fsgsbase,invpcid,erms,fsrm,rdrand,rdseed,umip,pku,la57,"
    "movbe";

int boot_make_cmdline(enum kvm_kind kind, const char *extra,
                      char ret_cmdline[BOOT_CMDLINE_BYTES_MAX], struct error *e)
{
    size_t size = BOOT_CMDLINE_BYTES_MAX;
    int used = snprintf(ret_cmdline, size, "%s%s", cmdline_base,
                        kind == KVM_KIND_SOFTWARE ? cmdline_software : "");

    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT && used > 0 && (size_t)used < size; slot++)
        used += snprintf(ret_cmdline + used, size - (size_t)used, " virtio_mmio.device=4K@%#llx:%u",
                         (unsigned long long)GUEST_VIRTIO_GPA(slot), GUEST_VIRTIO_IRQ(slot));
    if (used > 0 && (size_t)used < size && extra[0] != '\0')
        used += snprintf(ret_cmdline + used, size - (size_t)used, " %s", extra);
    if (used < 0 || (size_t)used >= size)
        return error_set(e, ERR_BAD_REQUEST, "the kernel's command line is too long");
    return 0;
}

static void add_e820(struct boot_params *p, uint64_t start, uint64_t end, uint32_t type)
{
    if (end <= start)
        return;
    assert(p->e820_entries < E820_MAX_ENTRIES_ZEROPAGE);
    p->e820_table[p->e820_entries++] =
        (struct boot_e820_entry){.addr = start, .size = end - start, .type = type};
}

enum { E820_RAM = 1, E820_RESERVED = 2 };

static void fill_params(struct boot_params *p, const struct guest_mem *mem,
                        const struct boot_config *config)
{
    *p = (struct boot_params){.hdr = config->kernel->header};
    p->hdr.type_of_loader = 0xff;
    p->hdr.boot_flag = 0xaa55;
    p->hdr.header = 0x53726448;
    p->hdr.cmd_line_ptr = (uint32_t)CMDLINE_GPA;
    if (p->hdr.cmdline_size == 0)
        p->hdr.cmdline_size = BOOT_CMDLINE_BYTES_MAX - 1;
    if (p->hdr.kernel_alignment == 0)
        p->hdr.kernel_alignment = 0x1000000;
    p->hdr.ramdisk_image = (uint32_t)config->initrd_gpa;
    p->hdr.ramdisk_size = (uint32_t)config->initrd_bytes;

    add_e820(p, 0, LOW_RAM_END, E820_RAM);
    add_e820(p, LOW_RAM_END, LEGACY_END, E820_RESERVED);
    add_e820(p, RAM_START, mem->low_bytes, E820_RAM);
    add_e820(p, GUEST_HIGH_RAM_GPA, GUEST_HIGH_RAM_GPA + mem->high_bytes, E820_RAM);
}

/* Identity-maps the first 4 GiB in pages of 2 MiB. */
static void fill_page_tables(uint64_t *tables)
{
    uint64_t *pml4 = tables;
    uint64_t *pdpt = tables + PAGE_ENTRIES;
    uint64_t *pd = tables + 2 * PAGE_ENTRIES;

    pml4[0] = PDPT_GPA | PTE_PRESENT_WRITE;
    for (uint64_t i = 0; i < PD_COUNT; i++)
        pdpt[i] = (PD_GPA + i * GUEST_PAGE_BYTES) | PTE_PRESENT_WRITE;
    for (uint64_t i = 0; i < (uint64_t)PD_COUNT * PAGE_ENTRIES; i++)
        pd[i] = i << 21 | PTE_LARGE | PTE_PRESENT_WRITE;
}

int boot_write(const struct guest_mem *mem, const struct boot_config *config, struct error *e)
{
    size_t cmdline_bytes = strlen(config->cmdline) + 1;
    uint64_t *gdt = guest_mem_at(mem, GDT_GPA, GUEST_PAGE_BYTES);
    struct boot_params *params = guest_mem_at(mem, PARAMS_GPA, sizeof(*params));
    uint64_t *tables = guest_mem_at(mem, PML4_GPA, (2 + PD_COUNT) * GUEST_PAGE_BYTES);
    char *cmdline = guest_mem_at(mem, CMDLINE_GPA, cmdline_bytes);

    if (gdt == NULL || params == NULL || tables == NULL || cmdline == NULL)
        return error_set(e, ERR_INTERNAL, "the guest's memory has no room for boot parameters");
    if (config->kernel->header.cmdline_size != 0 &&
        cmdline_bytes > (size_t)config->kernel->header.cmdline_size + 1)
        return error_set(e, ERR_BAD_REQUEST, "the command line is too long for this kernel");
    gdt[SELECTOR_CS / 8] = UINT64_C(0x00af9b000000ffff);
    gdt[SELECTOR_DS / 8] = UINT64_C(0x00cf93000000ffff);
    gdt[SELECTOR_TR / 8] = UINT64_C(0x008f8b000000ffff);
    fill_params(params, mem, config);
    fill_page_tables(tables);
    memcpy(cmdline, config->cmdline, cmdline_bytes);
    return 0;
}

void boot_set_registers(const struct loaded_kernel *kernel, struct kvm_regs *ret_regs,
                        struct kvm_sregs2 *sregs)
{
    const struct kvm_segment code = {.limit = UINT32_MAX,
                                     .selector = SELECTOR_CS,
                                     .present = 1,
                                     .type = 11,
                                     .s = 1,
                                     .l = 1,
                                     .g = 1};
    const struct kvm_segment data = {.limit = UINT32_MAX,
                                     .selector = SELECTOR_DS,
                                     .present = 1,
                                     .type = 3,
                                     .s = 1,
                                     .db = 1,
                                     .g = 1};
    const struct kvm_segment task = {
        .limit = 0xfffff, .selector = SELECTOR_TR, .present = 1, .type = 11, .g = 1};

    sregs->cs = code;
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
    sregs->tr = task;
    sregs->gdt = (struct kvm_dtable){.base = GDT_GPA, .limit = SELECTOR_TR + 7};
    sregs->idt = (struct kvm_dtable){.base = 0, .limit = 0};
    sregs->cr0 |= CR0_PE | CR0_PG;
    sregs->cr3 = PML4_GPA;
    sregs->cr4 |= CR4_PAE;
    sregs->efer |= EFER_LME | EFER_LMA;
    *ret_regs = (struct kvm_regs){.rip = kernel->entry,
                                  .rsp = STACK_TOP_GPA,
                                  .rsi = PARAMS_GPA,
                                  .rflags = 2}; /* interrupts off */
}
