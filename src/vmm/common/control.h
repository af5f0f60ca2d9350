/*
 * The monitor's side of cloche/vmm_proto.h, and the one way to end: control_gone says why and
 * leaves. Whatever the daemon sends out of order ends the monitor; so does its silence for good (a
 * closed socket), because a guest must not outlive who answers for it.
 */
#pragma once

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cloche/vmm_proto.h"

struct serial;

/* Exit codes of the process: parked, or the daemon closed the socket; GONE was sent. */
enum { CONTROL_EXIT_OK = 0, CONTROL_EXIT_GONE = 1 };

struct control {
    int fd;
    pthread_mutex_t end_lock; /* taken by the one thread that ends the process, never released */
    struct serial *boot_log;  /* the end of it explains a failed boot; NULL otherwise */
};

void control_init(struct control *c, int fd);

/* Waits for CONFIG and checks it; the descriptors are the caller's then. Ends the process where
 * there is none to be had. */
void control_wait_config(struct control *c, struct vmm_config *ret_config,
                         int ret_fds[VMM_FD_COUNT_BOOT]);

/* What CONFIG must fulfil; the part of the above that judges. */
int control_check_config(const struct vmm_config *config, size_t size, size_t fd_count,
                         struct error *e) __attribute__((warn_unused_result));

/* Waits for START. Ends the process where something else comes. */
void control_wait_start(struct control *c, struct vmm_start *ret_start);

/* The socket is readable although nothing is expected any more: ends the process. */
_Noreturn void control_refuse(struct control *c);

/* Sends BUILT, PARKED, FIRST or READY with the time. Any thread. */
void control_report(struct control *c, enum vmm_message_type type, uint64_t load_ns);

/* Sends GONE and ends the process. Any thread; the first one's reason counts. */
_Noreturn void control_gone(struct control *c, enum vmm_gone_reason reason, uint32_t detail,
                            const char *format, ...) __attribute__((format(printf, 4, 5)));

/* The same, with the text of a failed call. */
_Noreturn void control_gone_error(struct control *c, enum vmm_gone_reason reason,
                                  const struct error *e);
