/* Programs that a command starts. */
#pragma once

#include <sys/types.h>

#include "base/error.h"

/*
 * Runs this very program with `argv` in a process group of its own, so that a Ctrl-C at the
 * terminal reaches only us. Stdin is `stdin_fd`, or /dev/null for -1, stdout /dev/null, stderr
 * `stderr_fd`; no other descriptor is passed on. Returns the pid, which the caller reaps, or -1.
 */
pid_t spawn_self(const char *const *argv, int stdin_fd, int stderr_fd, struct error *e)
    __attribute__((warn_unused_result));
