/* From the bytes of an EXEC's request to a running process, inside a cgroup of its own and with our
 * ends of its stdio. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/wire.h"
#include "cloche/channel.h"
#include "guest/exec/execgroup.h"

/* What all launches share. */
struct launcher {
    struct execgroups groups;
    int null_fd; /* /dev/null, for reading and writing */
};

/* Makes all that the first launch needs. `cgroup_path` may be NULL. */
int launcher_init(struct launcher *l, const char *cgroup_path, struct error *e)
    __attribute__((warn_unused_result));
void launcher_fini(struct launcher *l);

#define CHILD_OUTPUTS 2u /* stdout, stderr */

/*
 * A command's first process, and what we hold of it. Of a terminal both descriptors are its master,
 * one for each direction, so that both are watched and closed like a pipe's end.
 */
struct child {
    pid_t pid; /* 0: it was never started */
    bool takes_stdin;
    bool is_terminal;              /* then stderr has no descriptor */
    int stdin_fd;                  /* -1: it is /dev/null */
    int output_fds[CHILD_OUTPUTS]; /* non-blocking, as stdin_fd; -1 once they are closed */
    bool has_group;
    struct execgroup group; /* the caller gives it back */
    uint64_t started_ns;
};

/* Why a process could not be started. */
struct launch_failure {
    int status; /* errno */
    char text[CHANNEL_TEXT_MAX];
};

/*
 * Reads the request and starts its process. Returns 0; -1 where the request is malformed; 1 where
 * the process cannot be started, for the reason in *ret_failure. child_close() is due in any case.
 */
int launch(struct launcher *l, struct wire_reader *reader, struct child *ret_child,
           struct launch_failure *ret_failure) __attribute__((warn_unused_result));

/* Closes our ends; the process and its group stay. */
void child_close(struct child *child);
