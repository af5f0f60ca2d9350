/*
 * Puts a kernel and an initramfs into guest memory. Takes an ELF vmlinux (also of a test payload),
 * whose entry point is 64-bit code, or a bzImage with a 64-bit entry, after the Linux kernel's
 * Documentation/arch/x86/boot.rst (protocol 2.12 or later). The image is hostile bytes.
 *
 * Guest memory must be zero yet: what a segment's file part leaves out is not cleared again.
 */
#pragma once

#include <asm/bootparam.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "vmm/common/guest_mem.h"

/* Below are the boot parameters, page tables and the like (x86/boot.c); no kernel may load there.
 */
#define LOADER_KERNEL_GPA_MIN UINT64_C(0x100000)

struct loaded_kernel {
    uint64_t entry;             /* 64-bit entry point, a GPA */
    uint64_t end;               /* first GPA after all that it needs until it manages memory */
    uint64_t initrd_end_max;    /* the initramfs must end at or below */
    struct setup_header header; /* of a bzImage; zeroed for an ELF */
};

int loader_load_kernel(const struct guest_mem *mem, const uint8_t *image, size_t size,
                       struct loaded_kernel *ret, struct error *e)
    __attribute__((warn_unused_result));

/* Where `size` bytes of initramfs go: the end of low memory, page aligned, clear of the kernel. */
int loader_place_initrd(const struct guest_mem *mem, const struct loaded_kernel *kernel,
                        uint64_t size, uint64_t *ret_gpa, struct error *e)
    __attribute__((warn_unused_result));
