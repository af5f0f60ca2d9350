/*
 * Runs the real monitor as the daemon would, over its control socket, and watches it: for the
 * payload guests (guest/) and for tests that play a daemon gone bad. The monitor and the guests'
 * program are those of the same build folder as the test.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cloche/vmm_proto.h"

#define RUNNER_MEM_MIB 64u

/* Memory and state of one guest; what a boot leaves is what a restore takes. */
struct runner_template {
    int memory_fd;
    int state_fd;
};

struct runner {
    pid_t pid; /* 0 once it was stopped */
    int control_fd;
    int channel_fd;
    bool built;            /* BUILT has come */
    uint64_t anon_kib_max; /* most private memory seen since BUILT, without the guest's */
};

/* Whether there is a KVM to test on; else prints what is missing. */
bool runner_has_kvm(void);

void runner_template_init(struct runner_template *t);
void runner_template_seal(struct runner_template *t);
void runner_template_fini(struct runner_template *t);

/* Starts a monitor, which waits for CONFIG. */
void runner_start(struct runner *r);

/* Sends a good CONFIG. `payload` names the guest's part for a boot. */
void runner_config(struct runner *r, enum vmm_mode mode, const struct runner_template *t,
                   uint32_t vcpus, const char *payload);

/* CONFIG with these descriptors; the kernel is opened by path where `fds` has -1 for it. */
void runner_send_config(struct runner *r, const struct vmm_config *config, const int *fds,
                        size_t fd_count);

/* A disk of some zeroes; the caller closes it. */
int runner_disk(void);

/* Opens the guests' program. */
int runner_open_guest(void);

void runner_send_start(struct runner *r);

/* Waits for an event, at most `timeout_ms`; false when not one came. An end of the socket without
 * an event reads as type 0. */
bool runner_wait(struct runner *r, unsigned timeout_ms, struct vmm_event *ret);

/* One byte to the guest over its channel, and one from it; -1 where none comes. */
void runner_channel_put(struct runner *r, char byte);
int runner_channel_get(struct runner *r, unsigned timeout_ms);

/* A byte of the memory of a guest that was booted. */
uint8_t runner_memory(const struct runner_template *t, uint64_t gpa);

/* Closes what is left of the daemon's side, waits for the monitor's end and returns its wait
 * status; one that does not end within two seconds is killed and gives -1. */
int runner_stop(struct runner *r);
