/*
 * A tree of files as a stream of entries, the form in which one goes into a guest and out of it
 * (CHANNEL_OP_TREE_IN, CHANNEL_OP_TREE_OUT): packed, and unpacked again from pieces of any size.
 * Each end judges what it reads: every path of an entry that is taken leads down from the tree's
 * top, without a detour. Pure functions over bytes.
 *
 * An entry is u8 type; a mark (type 0) has nothing more and says "still at work". The others go on
 * with u32 length of the fields, then those: u32 mode (permission bits), u64 size, u32 uid, u32
 * gid, i64 seconds and u32 nanoseconds of the last change of content, str path, str target. Behind
 * a file's entry come `size` bytes of content.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cloche/limits.h"

enum tree_type {
    TREE_MARK = 0,
    TREE_FILE = 1,
    TREE_DIRECTORY = 2,
    TREE_SYMLINK = 3,  /* target: what it says */
    TREE_HARDLINK = 4, /* target: the path of a file that came before */
    TREE_SKIPPED = 5,  /* size: how many fifos, sockets and devices are not in the stream */
};

#define TREE_HEAD_BYTES   5u
#define TREE_FIELDS_BYTES (4u + 8 + 4 + 4 + 8 + 4)
#define TREE_RECORD_BYTES_MAX                                                                      \
    (TREE_HEAD_BYTES + TREE_FIELDS_BYTES + 2 * (4u + (CHANNEL_PATH_MAX - 1)))

struct tree_entry {
    enum tree_type type;
    uint32_t mode;
    uint64_t size;
    uint32_t uid, gid;
    int64_t mtime_s;
    uint32_t mtime_ns;
    const char *path; /* these two end with a NUL, and are "" where the type has none */
    const char *target;
};

/* What is wrong with a path that should lead down from a tree's top ("a/b"); NULL for nothing. It
 * has no empty component, "." or "..", and none that is longer than a file's name may be. */
const char *tree_path_fault(const char *path) __attribute__((nonnull));

/* Packs an entry (not a mark) into `size` bytes: how many were used, 0 where they do not suffice.
 * TREE_RECORD_BYTES_MAX always do, for a path and a target below CHANNEL_PATH_MAX. */
size_t tree_entry_put(const struct tree_entry *entry, void *data, size_t size)
    __attribute__((nonnull, warn_unused_result));

struct tree_reader {
    size_t used; /* of `record` */
    uint64_t content_left;
    uint32_t count;
    char path[CHANNEL_PATH_MAX];
    char target[CHANNEL_PATH_MAX];
    uint8_t record[TREE_RECORD_BYTES_MAX];
};

enum tree_event {
    TREE_MORE,    /* nothing to say yet; all was used */
    TREE_ENTRY,   /* an entry is there; its strings are good until the next call */
    TREE_CONTENT, /* the bytes used are content of the last file */
};

void tree_reader_init(struct tree_reader *r);

/*
 * Takes some of the stream; *ret_used says how much. Returns 0, or -1 with ERR_BAD_REQUEST where
 * the bytes are no entry that may be; nothing more is to be read then. Marks are passed over.
 */
int tree_reader_next(struct tree_reader *r, const void *data, size_t size, size_t *ret_used,
                     enum tree_event *ret_event, struct tree_entry *ret_entry, struct error *e)
    __attribute__((nonnull, warn_unused_result));

/* Whether the stream may end here: not within an entry or a file's content. */
bool tree_reader_is_between(const struct tree_reader *r);
