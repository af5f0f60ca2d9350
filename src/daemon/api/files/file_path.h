/* What every call about a path of a sandbox begins with. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "cloche/limits.h"

struct agent_link;
struct exchange;

/* A path that may be a directory's, the root included: checked as guest_call_check_path() does, and
 * without the slashes at its end. `size` counts the bytes before the final NUL. */
int file_path_take(const char *path, size_t size, char ret_path[CHANNEL_PATH_MAX], struct error *e)
    __attribute__((warn_unused_result));

struct file_path_call {
    const char *const *query; /* the names that it may have, as for exchange_check_query() */
    bool is_file;             /* a path that can only be a directory's is refused */
    /* Starts the call; `path` is checked, and good as long as this runs. Returns 0 and owes the
     * reply from then on, or -1 with the error to reply with. */
    int (*start)(struct exchange *x, struct agent_link *link, const char *path, struct error *e);
};

/* Handles a request: checks the query, finds the running sandbox, checks the query's "path", then
 * starts the call. What fails of it is the reply. */
void file_path_begin(struct exchange *x, const struct file_path_call *call);

/* What the guest says about the path makes no sense: ends the sandbox. `e` is filled with what the
 * caller replies. */
void file_path_accuse(struct exchange *x, const struct error *why, struct error *e);
