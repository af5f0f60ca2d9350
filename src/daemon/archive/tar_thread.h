/*
 * An archive and a tree's entries (base/tree.h) turned into each other by libarchive, whose calls
 * block: each transfer has a thread of its own. It shares nothing with the rest of the daemon but
 * one socket, and a result that is read when it has ended. The loop's side never blocks: an
 * abandoned thread finds its socket shut and ends by itself.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "cloche/limits.h"

#define TAR_THREAD_PIECE_MAX (64 * KIB) /* of on_data */

enum tar_direction {
    TAR_UNPACK, /* an archive in, entries out */
    TAR_PACK,   /* entries in, an archive out */
};

struct tar_thread;

/*
 * on_end is called exactly once unless the thread is abandoned, after the last on_data, and the
 * thread is dead when it returns. `why` is NULL where all that came in was whole and is out;
 * ERR_ARCHIVE_REFUSED: the archive is damaged, or holds what may not be; ERR_BAD_REQUEST: the
 * entries are none; ERR_INTERNAL. No callback is made from inside a call into this module.
 */
struct tar_thread_calls {
    void (*on_data)(void *arg, const uint8_t *data, size_t size); /* what came out */
    void (*on_writable)(void *arg); /* there is room again after a short tar_thread_send() */
    void (*on_end)(void *arg, const struct error *why);
};

/* Starts; 0, or -1 with ERR_NO_CAPACITY (TAR_THREADS_MAX run) or ERR_INTERNAL. */
int tar_thread_new(uv_loop_t *loop, enum tar_direction direction,
                   const struct tar_thread_calls *calls, void *arg, struct tar_thread **ret_thread,
                   struct error *e) __attribute__((warn_unused_result));

/* Gives it bytes; returns how many were taken. Where that is less than `size`, on_writable follows.
 * A thread that has ended takes all. */
size_t tar_thread_send(struct tar_thread *t, const void *data, size_t size)
    __attribute__((warn_unused_result));

/* That was all. */
void tar_thread_finish(struct tar_thread *t);

/* No on_data between the two. */
void tar_thread_pause(struct tar_thread *t);
void tar_thread_resume(struct tar_thread *t);

/* TAR_PACK, from the first on_data on: what the tree's entry of TREE_SKIPPED says. */
uint64_t tar_thread_skipped(struct tar_thread *t);

/* Gives up: no more callbacks. Accepts NULL. */
void tar_thread_abandon(struct tar_thread *t);
