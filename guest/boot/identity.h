/*
 * How a restored guest becomes one of its own (cloche/guest_abi.h). All clones of a snapshot wake
 * up with the same memory, the kernel's random state included. Before anything of a tenant runs,
 * the agent takes 64 fresh bytes, the time, a host name and a machine id from the identity page.
 *
 * A guest's system calls are dear where its kernel is interpreted, so everything that can be done
 * before the snapshot is.
 */
#pragma once

#include <stdint.h>

#include "base/error.h"
#include "cloche/guest_abi.h"

#define MACHINE_ID_BYTES 33u /* 32 hex digits and a newline */

struct identity {
    volatile uint32_t *doorbell; /* NULL until identity_map */
    volatile struct identity_page *page;
    int random_fd;    /* /dev/random */
    int hwrng_fd;     /* /dev/hwrng, until identity_drop_stale; -1 where there is none */
    char *machine_id; /* the content of /run/machine-id, mapped: a store costs no system call */
};

/* Maps the doorbell and the identity page of a guest from /dev/mem. */
int identity_map(struct identity *i, struct error *e) __attribute__((warn_unused_result));

/* Opens the files that identity_assume writes to, and makes sure that the kernel's random generator
 * has been initialised, so that a reseed is possible later. */
int identity_prepare(struct identity *i, struct error *e) __attribute__((warn_unused_result));

void identity_ring(const struct identity *i, uint32_t doorbell);

/*
 * Rings PARK and, with the next instruction of a restored guest, FIRST; then takes the identity
 * over and wipes the page. Returns 0, or what failed: nothing of a tenant may run then.
 */
int identity_assume(const struct identity *i);

/*
 * Linux fetches bytes from the virtio-rng ahead, and those in the snapshot are the same in all of
 * its guests: reads them off, so that a tenant never sees them. Behind READY, before any command.
 */
void identity_drop_stale(struct identity *i);

/* Whether a copied page is what this agent expects: 0, or GUEST_FAILURE_IDENTITY. */
int identity_check(const struct identity_page *page);

/* As /etc/machine-id has it: lower-case hex digits and a newline, no NUL. */
void identity_format_machine_id(const uint8_t id[16], char ret_text[MACHINE_ID_BYTES]);
