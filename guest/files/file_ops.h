/* The file operations: content of regular files out of the guest and whole files into it (READ,
 * WRITE); what there is and what becomes of it (STAT, LIST, SEARCH, WATCH, DIFF); changes of that
 * (CHANGE). */
#pragma once

#include "guest/channel/stream.h"

/* What the streams of these two share are the `struct stagings`, ... */
extern const struct stream_op file_read_op;
extern const struct stream_op file_write_op;
/* ... of this one the `struct layers`; those of the others have nothing in common. */
extern const struct stream_op file_diff_op;

extern const struct stream_op file_stat_op;
extern const struct stream_op file_list_op;
extern const struct stream_op file_search_op;
extern const struct stream_op file_change_op;
extern const struct stream_op file_watch_op;
