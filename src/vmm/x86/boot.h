/*
 * What a boot loader and firmware would leave behind for a Linux kernel: boot parameters with the
 * memory map and command line, entry page tables, GDT, and the registers of the first vCPU; after
 * Linux, Documentation/arch/x86/boot.rst ("64-bit boot protocol") and zero-page.rst.
 *
 *   0x1000  GDT                     0x3000  page tables: PML4, PDPT, four PDs (4 GiB, identity)
 *   0x2000  boot parameters         0x9000  stack (its top is 0xa000)
 *   0x20000 command line            0x9d000 identity page; 0x9fc00 MP table (reserved)
 */
#pragma once

#include <linux/kvm.h>
#include <stdint.h>

#include "base/error.h"
#include "vmm/common/guest_mem.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/loader.h"

#define BOOT_CMDLINE_BYTES_MAX 2048u /* NUL included */

struct boot_config {
    const struct loaded_kernel *kernel;
    uint64_t initrd_gpa;
    uint64_t initrd_bytes; /* 0: none */
    const char *cmdline;
};

/* The kernel's command line: ours, the virtio slots, what software KVM needs, then `extra`. */
int boot_make_cmdline(enum kvm_kind kind, const char *extra,
                      char ret_cmdline[BOOT_CMDLINE_BYTES_MAX], struct error *e)
    __attribute__((warn_unused_result));

/* Writes all of the above but the MP table to guest memory. */
int boot_write(const struct guest_mem *mem, const struct boot_config *config, struct error *e)
    __attribute__((warn_unused_result));

/* The first vCPU's registers; `sregs` holds what KVM made it with and is changed. */
void boot_set_registers(const struct loaded_kernel *kernel, struct kvm_regs *ret_regs,
                        struct kvm_sregs2 *sregs);
