/* File descriptors: scope-owned, and whole reads and writes. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* Closes *fd where it is open (>= 0) and sets it to -1; errno is kept. */
void fd_close(int *fd);

/* `FD_AUTO int fd = -1;` closes at the end of the scope; fd_take() moves it out. */
#define FD_AUTO __attribute__((cleanup(fd_close)))

static inline int fd_take(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

/* Reads until `size` bytes or end of file; returns the count, or -1 with errno. EINTR is retried.
 */
ssize_t fd_read_full(int fd, void *data, size_t size) __attribute__((warn_unused_result));
ssize_t fd_pread_full(int fd, void *data, size_t size, off_t offset)
    __attribute__((warn_unused_result));

/* Write all `size` bytes: 0, or -1 with errno (part of it may have been written then). */
int fd_write_full(int fd, const void *data, size_t size) __attribute__((warn_unused_result));
int fd_pwrite_full(int fd, const void *data, size_t size, off_t offset)
    __attribute__((warn_unused_result));

/* Switch O_NONBLOCK or FD_CLOEXEC; 0, or -1 with errno. */
int fd_set_nonblocking(int fd, int on) __attribute__((warn_unused_result));
int fd_set_cloexec(int fd, int on) __attribute__((warn_unused_result));
