/* The API's listening socket. */
#pragma once

#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct listen_socket {
    int fd;
    int dir_fd;   /* directory that the socket stands in */
    uint64_t dev; /* of the socket's inode, so that only this one is unlinked */
    uint64_t ino;
    char name[NAME_MAX + 1]; /* in that directory */
};

/*
 * ERR_ALREADY_RUNNING when somebody listens on `path` and still does after `wait_ms`: a daemon that
 * is being stopped gets that time. Makes nothing.
 */
int listen_check(const char *path, unsigned wait_ms, struct error *e)
    __attribute__((warn_unused_result, nonnull));

/*
 * Binds `path` (mode 0660, root and `group`) and listens. A socket that nobody listens on is
 * replaced; one that answers is ERR_ALREADY_RUNNING; anything else of that name is left alone and
 * an error. The directory is made if need be.
 */
int listen_open(const char *path, gid_t group, struct listen_socket *ret_socket, struct error *e)
    __attribute__((warn_unused_result, nonnull));

/* Closes it; the name in the file system stays. */
void listen_close(struct listen_socket *s);

/* Removes the name, if it still is this socket. */
void listen_unlink(const struct listen_socket *s);
