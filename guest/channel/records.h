/*
 * Records (see cloche/channel.h) on their way to the host, and the end of the operation that makes
 * them, which has a `struct records` in its state. It makes records while there is room for them,
 * in short steps, and calls records_pump() after each step.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "cloche/channel.h"
#include "guest/channel/stream.h"

struct records {
    struct buffer out;  /* made and not yet sent */
    uint64_t made;      /* bytes, ever */
    uint64_t sent;      /* bytes, ever */
    uint64_t silent_ns; /* when something was sent last */
    bool is_done;       /* no more will be made */
    uint32_t flags;     /* of END */
};

void records_init(struct records *records);
/* For events: all the memory is made at once, so that none of them is lost for want of it. Returns
 * -1 where there is too little; records_fini() is due in any case. */
int records_init_events(struct records *records) __attribute__((warn_unused_result));
/* Accepts zeroed ones. */
void records_fini(struct records *records);

/* Is there room for another record now? And in the reply as a whole? */
bool records_have_room(const struct records *records);
bool records_are_full(const struct records *records);

/*
 * Makes the record of `path`, seen from `dir_fd`, under `name`; there is room for it. `flags`:
 * 0, or AT_SYMLINK_NOFOLLOW. Returns 0, or -1 with errno.
 */
int records_put(struct records *records, int dir_fd, const char *path, int flags, const char *name)
    __attribute__((warn_unused_result));

/* An event in place of a record, after records_init_events(); there is room for it, and the paths
 * are shorter than CHANNEL_PATH_MAX. */
void records_put_event(struct records *records, enum channel_event kind, bool is_directory,
                       const char *path, const char *from);

#define RECORD_BYTES_MAX (4u + 8 + 4 + 4 + 8 + 4 + 2 * (4u + CHANNEL_PATH_MAX))

/* Sends one frame of what is made, as far as there is credit. */
void records_send(struct stream *s, struct records *records);

/*
 * Sends a frame where there is one to send, and EOF and END (after which the stream is no more)
 * when all is done. Returns true where another step, or another frame, can follow at once.
 */
bool records_pump(struct stream *s, struct records *records);
