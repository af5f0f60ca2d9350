#include "ipc/ipc.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

int ipc_pair(int ret_fds[2], struct error *e)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_fds) != 0)
        return error_errno(e, errno, "cannot make a socket pair");
    return 0;
}

int ipc_send(int socket, const void *message, size_t size, const int *fds, size_t fd_count,
             struct error *e)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * IPC_FDS_MAX)];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)message, .iov_len = size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    assert(fd_count <= IPC_FDS_MAX);
    if (fd_count > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
    }
    for (;;) {
        ssize_t n = sendmsg(socket, &msg, MSG_NOSIGNAL);

        if (n >= 0)
            return 0;
        if (errno != EINTR) {
            int saved = errno;

            (void)error_errno(e, saved, "cannot send a message");
            errno = saved;
            return -1;
        }
    }
}

/* Takes the descriptors out of `msg`: at most `max` are kept, any more are closed. */
static size_t take_fds(struct msghdr *msg, int *ret_fds, size_t max, size_t *ret_dropped)
{
    size_t count = 0;

    *ret_dropped = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (count < max) {
                ret_fds[count++] = fd;
            } else {
                (void)close(fd);
                (*ret_dropped)++;
            }
        }
    }
    return count;
}

int ipc_recv(int socket, void *ret_message, size_t size, int *ret_fds, size_t fds_max,
             size_t *ret_fd_count, struct error *e)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * IPC_FDS_MAX)];
        struct cmsghdr align;
    } control;
    int fds[IPC_FDS_MAX];
    struct iovec iov = {.iov_base = ret_message, .iov_len = size};
    struct msghdr msg;
    ssize_t n;

    assert(fds_max <= IPC_FDS_MAX);
    do {
        msg = (struct msghdr){.msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = sizeof(control.bytes)};
        n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        int saved = errno;

        (void)error_errno(e, saved, "cannot receive a message");
        errno = saved;
        return -1;
    }
    size_t dropped;
    size_t count = take_fds(&msg, fds, fds_max, &dropped);
    if (dropped > 0 || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        for (size_t i = 0; i < count; i++)
            (void)close(fds[i]);
        (void)error_set(e, ERR_INTERNAL,
                        "a peer's message is too large or has too many descriptors");
        errno = EMSGSIZE;
        return -1;
    }
    if (count > 0)
        memcpy(ret_fds, fds, count * sizeof(int));
    if (ret_fd_count != NULL)
        *ret_fd_count = count;
    return (int)n;
}
