/*
 * Messages between roles: one SOCK_SEQPACKET datagram each, with file descriptors where the
 * protocol has them. The receiver states the one size and the most descriptors it will take;
 * anything else is an error and every descriptor that came is closed.
 */
#pragma once

#include <stddef.h>

#include "base/error.h"

#define IPC_FDS_MAX 16u

/* Makes a pair of connected close-on-exec sockets. */
int ipc_pair(int ret_fds[2], struct error *e) __attribute__((warn_unused_result));

/* Sends one message. The descriptors stay the caller's. Blocks on a blocking socket; on a
 * non-blocking one that is full returns -1 with errno EAGAIN. SIGPIPE is not raised. */
int ipc_send(int socket, const void *message, size_t size, const int *fds, size_t fd_count,
             struct error *e) __attribute__((warn_unused_result));

/*
 * Receives one message of at most `size` bytes and up to `fds_max` descriptors (close-on-exec, the
 * caller's now). Returns the message's size, 0 when the peer closed, -1 on failure with errno
 * (EAGAIN: nothing there, on a non-blocking socket). A truncated message is a failure (EMSGSIZE).
 */
int ipc_recv(int socket, void *ret_message, size_t size, int *ret_fds, size_t fds_max,
             size_t *ret_fd_count, struct error *e) __attribute__((warn_unused_result));
