/*
 * Records (see cloche/channel.h) on their way to the host, and the end of the operation that makes
 * them. An operation makes records while there is room for them, in short steps, and
 * calls records_pump() after each step.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "cloche/channel.h"

struct service;
struct stream;

/* How long a step may take, but for its last system call, while other streams wait. A count of
 * calls would not do: where the kernel is interpreted, one that removes a file takes 40 ms. */
#define RECORDS_STEP_NS (5 * NS_PER_MS)

static inline bool records_step_is_over(uint64_t begin_ns)
{
    return clock_mono_ns() - begin_ns >= RECORDS_STEP_NS;
}

struct records {
    struct buffer out;  /* made and not yet sent */
    uint64_t made;      /* bytes, ever */
    uint64_t sent;      /* bytes, ever */
    uint64_t silent_ns; /* when something was sent last */
    bool is_done;       /* no more will be made */
    uint32_t flags;     /* of END */
};

/* records_start sends INFO: the request has started. records_init does both. */
void records_prepare(struct stream *s);
void records_start(struct service *v, const struct stream *s);
void records_init(struct service *v, struct stream *s);
void records_fini(struct records *r);

/* Is there room for another record now? And in the reply as a whole? */
bool records_have_room(const struct records *r);
bool records_are_full(const struct records *r);

/*
 * Makes the record of `path`, seen from `dir_fd`, under `name`; there is room for it. `flags`:
 * 0, or AT_SYMLINK_NOFOLLOW. Returns 0, or -1 with errno.
 */
int records_put(struct records *r, int dir_fd, const char *path, int flags, const char *name)
    __attribute__((warn_unused_result));

/* An event in place of a record; there is room for it, and the paths are shorter than PATH_MAX. */
void records_put_event(struct records *r, enum channel_event kind, bool is_directory,
                       const char *path, const char *from);

/* Room for one record's bytes, of which buffer_commit() takes what is used; NULL: no memory. */
#define RECORD_BYTES_MAX (4u + 8 + 4 + 4 + 8 + 4 + 2 * (4u + CHANNEL_PATH_MAX))
uint8_t *records_reserve(struct records *r) __attribute__((warn_unused_result));

/* Sends one frame of what is made, as far as there is credit. */
void records_send(struct service *v, struct stream *s);

/*
 * Sends a frame where there is one to send, and EOF and END (after which the stream is no more)
 * when all is done. Returns true where another step, or another frame, can follow at once.
 */
bool records_pump(struct service *v, struct stream *s);
