/*
 * What the agent says about files (records, see cloche/channel.h): unpacked and judged, then
 * written as JSON. Pure functions over bytes; the guest is hostile, so a record that is short, has
 * a type that Linux does not have or a name that does not fit what was asked for is an error.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/wire.h"

struct json_writer;

/* Names and targets point into the record's bytes and have no NUL at their end. */
struct file_record {
    uint32_t mode; /* st_mode */
    uint64_t size;
    uint32_t uid, gid;
    int64_t mtime_s;
    uint32_t mtime_ns;
    const char *name;
    size_t name_size;
    const char *target; /* of a symbolic link */
    size_t target_size;
};

/* Which names a record may have. */
enum file_names {
    FILE_NAMES_NONE,  /* STAT */
    FILE_NAMES_ENTRY, /* LIST: one component, each behind the one before */
    FILE_NAMES_PATH,  /* SEARCH: an absolute path */
};

/* The records of a reply, from its bytes. */
struct file_records {
    struct wire_reader reader;
    enum file_names names;
    const char *last; /* FILE_NAMES_ENTRY: the name before, at first what the list starts behind */
    size_t last_size;
};

void file_records_init(struct file_records *records, const void *data, size_t size,
                       enum file_names names, const char *after);

/* The next record: 1, 0 at the end, or -1 with ERR_BAD_REQUEST (a protocol error of the guest). */
int file_records_next(struct file_records *records, struct file_record *ret_record, struct error *e)
    __attribute__((nonnull, warn_unused_result));

/* Members of an object: `key` (or `key`_base64) with the name, then type, size, mode, uid, gid,
 * mtime and, for a symbolic link, target. `name` takes the place of the record's where it is not
 * NULL. */
void file_record_put(const struct file_record *record, const char *key, const char *name,
                     struct json_writer *w);
