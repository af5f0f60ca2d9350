/*
 * A daemon for the time of one command, for when none listens. It keeps its files in a private
 * temporary directory, and ends with the command, also after Ctrl-C. Where nobody else uses the
 * default state directory it works on that one, so that the snapshot a first run had to boot is
 * there for the next.
 */
#pragma once

#include <linux/limits.h>
#include <sys/types.h>

#include "base/error.h"

struct own_daemon {
    pid_t pid;
    char directory[64]; /* empty: nothing was made */
    char socket_path[96];
    char log_path[96];
};

/* Starts it and waits until it takes connections. Needs root. On failure nothing is left. */
int own_daemon_start(struct own_daemon *ret_daemon, struct error *e)
    __attribute__((warn_unused_result));

/* Stops it and removes what it had; signals no longer end this process from then on. Accepts a
 * zeroed one. */
void own_daemon_stop(struct own_daemon *d);

/* Prints the end of its log to stderr, for a failure that only it can explain. Accepts a zeroed
 * one.
 */
void own_daemon_print_log(const struct own_daemon *d);
