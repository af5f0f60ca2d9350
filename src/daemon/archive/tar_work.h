/* What a tar_thread does: blocking, with nothing but a socket and its own memory. Tests call it as
 * it is. */
#pragma once

#include <stdint.h>

#include "base/error.h"

/* The thread's results; `skipped` is also read while it runs. */
struct tar_work {
    uint64_t skipped; /* tar_pack: of TREE_SKIPPED, before anything is written */
    struct error error;
};

/* Both read `fd` to its end and write to it; 0, or -1 with work->error (see tar_thread.h). */

/*
 * The archive from `fd` as entries. No compression; of formats ustar, pax and GNU's. Refused is
 * what does not lead down from the top (absolute paths, ".."), what is no file, directory or link,
 * files of more than TREE_FILE_BYTES_MAX, more than TREE_ENTRIES_MAX entries, an entry with headers
 * of more than TAR_HEADER_BYTES_MAX, an archive that is damaged, ends before its end or goes on
 * behind it. The top itself (".") is passed over. All that was written before an error is whole,
 * but for the last file's content.
 */
int tar_unpack(int fd, struct tar_work *work) __attribute__((warn_unused_result));

/* The entries from `fd` as an archive (pax where a file needs it, else ustar). */
int tar_pack(int fd, struct tar_work *work) __attribute__((warn_unused_result));
