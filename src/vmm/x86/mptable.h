/*
 * The MP table: how a guest without firmware learns of its processors, its I/O APIC and where the
 * interrupt lines end. After Intel's MultiProcessor Specification 1.4, chapter 4.
 */
#pragma once

#include "base/error.h"
#include "vmm/common/guest_mem.h"

#define MPTABLE_BYTES UINT64_C(0x400) /* room at GUEST_MPTABLE_GPA */

/* Writes the table for 1 to SANDBOX_VCPUS_MAX vCPUs, with APIC ids from 0, to GUEST_MPTABLE_GPA. */
int mptable_write(const struct guest_mem *mem, uint32_t vcpus, struct error *e)
    __attribute__((warn_unused_result));
