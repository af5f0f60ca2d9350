/*
 * The state file of a snapshot: what the state memfd holds when a guest has parked. This part knows
 * the format only and makes no KVM call.
 *
 *   header    magic u64, version u32, crc u32 (CRC-32C of the whole file with this field zero),
 *             total bytes u64, KVM kind u32, vcpus u32, mem_mib u32, tsc_khz u32, CPU vendor
 *             12 bytes, CPU signature u32
 *   sections  tag u32, index u32, bytes u32, content; all of them present, in one order:
 *             CPUID; IRQCHIP 0..2; CLOCK; SERIAL; for each vCPU REGS ... MSRS; DEVICES
 *
 * Integers are little-endian. Sections hold KVM's structs as the kernel's ABI lays them out; their
 * sizes are fixed but for CPUID and MSRS (u32 count, then entries) and DEVICES (what devices_save
 * wrote). Because the order is fixed and nothing is optional, a state has one encoding.
 *
 * A reader treats the bytes as hostile. The checksum finds corruption; authenticity is the business
 * of who stores the file.
 */
#pragma once

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cloche/limits.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/vcpu_state.h"

#define SNAPSHOT_MAGIC     UINT64_C(0x3130545353434c43) /* "CLCSST01", little-endian */
#define SNAPSHOT_VERSION   1u
#define SNAPSHOT_BYTES_MAX (2 * MIB)

#define SNAPSHOT_IRQCHIPS     3u
#define SNAPSHOT_SERIAL_BYTES 8u /* struct serial_registers */

struct snapshot {
    enum kvm_kind kind;
    uint32_t vcpus;
    uint32_t mem_mib;
    uint32_t tsc_khz;
    struct cpuid_host host;
    struct cpuid_table cpuid;
    struct kvm_irqchip irqchips[SNAPSHOT_IRQCHIPS];
    struct kvm_clock_data clock;
    uint8_t serial[SNAPSHOT_SERIAL_BYTES];
    struct vcpu_state *vcpu; /* `vcpus` of them; owned */
    const uint8_t *devices;  /* into the bytes that were parsed, or what is to be written */
    size_t devices_bytes;
};

/* Allocates room for `vcpus` vCPUs; everything is zeroed. NULL when memory is short. */
struct snapshot *snapshot_new(uint32_t vcpus);
void snapshot_free(struct snapshot *s);

/* Reads `size` bytes, which must stay as long as ret_snapshot is used. The failure's text says what
 * is wrong; a file that is whole but of another version says so. */
int snapshot_parse(const uint8_t *bytes, size_t size, struct snapshot **ret_snapshot,
                   struct error *e) __attribute__((warn_unused_result));

/* Writes at most `size` bytes and returns how many, or 0 when they do not suffice. */
size_t snapshot_write(const struct snapshot *s, uint8_t *ret_bytes, size_t size)
    __attribute__((warn_unused_result));

/* Puts the right length and checksum into a file whose other bytes were changed (for tests). */
void snapshot_seal(uint8_t *bytes, size_t size);

/*
 * Whether a guest of `vcpus` and `mem_mib` can go on from this snapshot here. Failures say what
 * differs. A TSC that differs by less than a part in 1000 is the same (the host calibrates it).
 */
struct snapshot_place {
    enum kvm_kind kind;
    struct cpuid_host host;
    uint32_t vcpus;
    uint32_t mem_mib;
    uint32_t tsc_khz;
    const struct cpuid_table *cpuid;
};
int snapshot_check_place(const struct snapshot *s, const struct snapshot_place *here,
                         struct error *e) __attribute__((warn_unused_result));
