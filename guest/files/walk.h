/*
 * A walk over a tree without recursion and in bounded memory, for who reads one directory after the
 * other: those that are still to be read wait as paths on a stack of bounded size. No symbolic link
 * is followed and no mount point entered.
 */
#pragma once

#include "base/buffer.h"
#include "cloche/channel.h"
#include "guest/files/dir.h"

struct walk {
    int base_fd;               /* borrowed */
    struct buffer pending;     /* paths below the base, each with its NUL; the last comes first */
    struct dir dir;            /* the one that is read (dir.fd is -1: none) ... */
    char at[CHANNEL_PATH_MAX]; /* ... and its path below the base, "" for the base itself */
};

/* Nothing waits yet. */
void walk_init(struct walk *walk);
void walk_fini(struct walk *walk);

/* The base waits to be read; `base_fd` stays the caller's, until the walk is over or another one
 * begins. -1: no memory. */
int walk_begin(struct walk *walk, int base_fd) __attribute__((warn_unused_result));

/* The path below the base of what the open directory has under `name`; -1 where it is too long. */
int walk_path(const struct walk *walk, const char *name, char ret_path[CHANNEL_PATH_MAX])
    __attribute__((warn_unused_result));

/* Lets a directory wait; -1 where there is no room for more. */
int walk_push(struct walk *walk, const char *path) __attribute__((warn_unused_result));

/* Opens the next directory: 1, 0 where none waits, or -1 with errno of dir_open_below(), where the
 * walk can go on with the one behind it. */
int walk_enter(struct walk *walk) __attribute__((warn_unused_result));
