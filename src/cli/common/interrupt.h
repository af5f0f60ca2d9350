/*
 * Signals that end a command (Ctrl-C, a closed terminal). They are blocked all the time, except
 * inside interrupt_wait(), which every wait goes through: so none is missed between a check and a
 * wait, and no system call is cut short in the middle of something.
 */
#pragma once

#include <poll.h>
#include <stddef.h>

#include "base/error.h"

/* To be called once, before anything else. SIGPIPE is ignored from then on. */
void interrupt_init(void);

/* The signal that came, or 0. */
int interrupt_signal(void);

/*
 * As poll(2), and EINTR of other signals is retried. Returns poll's result (0: the time is up), or
 * -1 with `e` set: after a signal (interrupt_signal() says which), or when poll fails.
 */
int interrupt_wait(struct pollfd *fds, nfds_t count, int timeout_ms, struct error *e)
    __attribute__((warn_unused_result));

/* Writes all of `data` to a blocking descriptor. Returns 0; 1 when nobody reads it any more
 * (EPIPE); -1 with `e` set. */
int interrupt_write(int fd, const void *data, size_t size, struct error *e)
    __attribute__((warn_unused_result));

/* From here on no signal ends a wait: for what must be cleaned up after one. */
void interrupt_ignore(void);

/* In a child before exec: signals as this process was started with. */
void interrupt_restore(void);
