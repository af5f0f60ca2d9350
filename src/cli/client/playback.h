/*
 * Plays the NDJSON reply of an exec or a run: output goes to stdout and stderr as it comes,
 * collected files to their places, and the end becomes an exit code.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cli/client/client.h"

/* A file that POST /v1/run is asked to bring back. */
struct playback_file {
    const char *guest;
    const char *local; /* "-" is stdout */
};

/* What the end of a command, as the daemon tells it, means for our exit code; see playback_run().
 */
int playback_exit_code(const cJSON *record, struct error *e) __attribute__((warn_unused_result));

struct playback_options {
    const struct playback_file *files;
    size_t file_count;
    /* The command has started in the sandbox; may be NULL. -1 with `e` set ends the playing. */
    int (*on_start)(void *context, uint32_t pid, struct error *e);
    void *context;
};

/*
 * Takes the reply to its end. Returns the command's exit code; 128 and the signal's number where a
 * signal ended it; 124 after its time out. Returns -1 where the command has no result of its own: a
 * lost connection or a lost sandbox is never taken for an exit. Output of a process that is not
 * followed to its end is 0.
 */
int playback_run(struct client *c, const struct playback_options *options, struct error *e)
    __attribute__((warn_unused_result));
