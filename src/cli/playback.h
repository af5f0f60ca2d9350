/*
 * Plays the NDJSON reply of an exec or a run: output goes to stdout and stderr as it comes,
 * collected files to their places, and the end becomes an exit code.
 */
#pragma once

#include <stddef.h>

#include "base/error.h"
#include "cli/client.h"

/* A file that POST /v1/run is asked to bring back. */
struct playback_file {
    const char *guest;
    const char *local; /* "-" is stdout */
};

/*
 * Takes the reply to its end. Returns the command's exit code; 128 and the signal's number where a
 * signal ended it; 124 after its time out. Returns -1 where the command has no result of its own: a
 * lost connection or a lost sandbox is never taken for an exit.
 */
int playback_run(struct client *c, const struct playback_file *files, size_t file_count,
                 struct error *e) __attribute__((warn_unused_result));
