/* The programs that travel inside the `cloche` binary, so that one file ships. */
#pragma once

#include <stdint.h>

extern const uint8_t embed_vmm[], embed_vmm_end[];             /* the monitor, a static program */
extern const uint8_t embed_initramfs[], embed_initramfs_end[]; /* the guest's agent as a cpio */
