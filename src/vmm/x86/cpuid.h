/*
 * The processor that a guest sees. One template per kind of KVM, made from what KVM offers on this
 * host, minus what we do not want in a guest or cannot carry over a snapshot.
 *
 * A snapshot holds the table that its guest was started with. It is restored only where this file
 * makes the same table again; the stored one is compared, never used.
 */
#pragma once

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define CPUID_ENTRIES_MAX 160u

enum kvm_kind {
    KVM_KIND_HARDWARE = 1, /* VT-x or SVM */
    KVM_KIND_SOFTWARE = 2, /* guest kernel mode is interpreted */
};

/* As struct kvm_cpuid2, with room. */
struct cpuid_table {
    uint32_t count;
    uint32_t padding;
    struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
};

_Static_assert(offsetof(struct cpuid_table, entries) == sizeof(struct kvm_cpuid2), "KVM's layout");

/* What a snapshot is tied to besides the table. */
struct cpuid_host {
    char vendor[12];    /* not terminated */
    uint32_t signature; /* leaf 1 EAX: family, model, stepping */
};

/* By the host's own CPUID: neither VMX nor SVM means that KVM works without. */
enum kvm_kind cpuid_kvm_kind(void);
struct cpuid_host cpuid_host_get(void);

/* KVM's supported table, masked for `kind`, as the first of `vcpus` vCPUs shall see it. */
int cpuid_table_make(int kvm_fd, enum kvm_kind kind, uint32_t vcpus, struct cpuid_table *ret,
                     struct error *e) __attribute__((warn_unused_result));

/* Removes and adds features for `kind`; the part of the above that needs no KVM. */
void cpuid_table_mask(struct cpuid_table *t, enum kvm_kind kind);

/* Fills in the fields that differ between vCPUs: APIC ids and topology (one package, no SMT). */
void cpuid_table_set_vcpu(struct cpuid_table *t, uint32_t vcpu, uint32_t vcpus);

/* 0 where both tables are the same; else -1, and `e` names the first leaf that differs. */
int cpuid_table_compare(const struct cpuid_table *saved, const struct cpuid_table *here,
                        struct error *e) __attribute__((warn_unused_result));
