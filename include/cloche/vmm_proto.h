/*
 * Daemon and monitor: typed messages with file descriptors over one SOCK_SEQPACKET pair, fixed-size
 * structs in host byte order (both ends are the same build on the same machine; the monitor is
 * embedded in the daemon's binary).
 *
 *   daemon                                   vmm
 *   CONFIG (mode, shape, fds)      ->        builds the VM; in RESTORE mode loads the state as well
 *                                  <-        BUILT, now jailed for good (second seccomp filter)
 *   [BOOT]    START                ->        runs the kernel
 *                                  <-        PARKED once the state is in the state memfd; it exits
 *   [RESTORE] START (identity)     ->        writes the identity page, runs the guest
 *                                  <-        FIRST, READY
 *   at any time                    <-        GONE (why), then the process exits
 *
 * A BOOT's memory memfd is mapped shared, so that it *is* the snapshot's memory when the monitor
 * has exited; a RESTORE's is sealed and mapped privately. Closing the socket ends the monitor.
 */
#pragma once

#include <stdint.h>

#include "cloche/guest_abi.h"
#include "cloche/limits.h"

/* Descriptors a monitor is started with; everything else comes with CONFIG. */
#define VMM_CONTROL_FD 3
#define VMM_KVM_FD     4

enum vmm_message_type {
    VMM_CONFIG = 1,
    VMM_START = 2,
    VMM_BUILT = 16,
    VMM_PARKED = 17,
    VMM_FIRST = 18,
    VMM_READY = 19,
    VMM_GONE = 20,
};

enum vmm_mode { VMM_MODE_BOOT = 1, VMM_MODE_RESTORE = 2 };

/* Order of the descriptors that come with CONFIG; a RESTORE has none of the last two. */
enum vmm_config_fd {
    VMM_FD_MEMORY,  /* memfd of mem_mib; sealed against writing in RESTORE mode */
    VMM_FD_STATE,   /* memfd: written when parked (BOOT), read (RESTORE) */
    VMM_FD_ROOT,    /* root file system image, read-only */
    VMM_FD_SCRATCH, /* scratch disk, read-write; its size is the device's capacity */
    VMM_FD_CHANNEL, /* SOCK_STREAM: the other end of the guest's console port */
    VMM_FD_COUNT_RESTORE,
    VMM_FD_KERNEL = VMM_FD_COUNT_RESTORE, /* vmlinux or bzImage */
    VMM_FD_INITRD,
    VMM_FD_COUNT_BOOT
};

struct vmm_config {
    uint32_t type; /* VMM_CONFIG */
    uint32_t mode; /* enum vmm_mode */
    uint32_t vcpus;
    uint32_t mem_mib;
    char cmdline_extra[256]; /* BOOT: appended to the kernel command line; NUL-terminated */
};

struct vmm_start {
    uint32_t type; /* VMM_START */
    uint32_t reserved;
    struct identity_page identity; /* RESTORE; zeroed in BOOT mode */
};

enum vmm_gone_reason {
    VMM_GONE_SHUTDOWN = 1, /* the guest rebooted, powered off or triple-faulted */
    VMM_GONE_FAILED = 2,   /* the agent rang DOORBELL_FAILED; detail: enum guest_failure */
    VMM_GONE_KVM = 3,      /* KVM cannot go on; detail: the exit reason */
    VMM_GONE_CONFIG = 4,   /* CONFIG was refused, or the VM could not be built */
    VMM_GONE_STATE = 5,    /* the snapshot's state is corrupt or foreign */
    VMM_GONE_PROTOCOL = 6, /* the daemon broke this protocol, or closed the channel */
};

#define VMM_TEXT_MAX 1024u

struct vmm_event {
    uint32_t type;   /* VMM_BUILT ... VMM_GONE */
    uint32_t reason; /* GONE: enum vmm_gone_reason */
    uint32_t detail;
    uint32_t reserved;
    uint64_t mono_ns;        /* CLOCK_MONOTONIC when it happened */
    uint64_t load_ns;        /* BUILT: how long building and loading took */
    char text[VMM_TEXT_MAX]; /* GONE: in words; a failed boot adds the end of the serial log */
};
