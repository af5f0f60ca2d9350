/*
 * The EXEC operation: one command from its start to its END.
 *
 * END is sent when the main process has ended, stdout and stderr are at their end and no other
 * process of the command's cgroup lives. A descendant that outlives the main process gets a short
 * grace to finish its output; then, or as soon as nobody holds the pipes any more, it is killed: a
 * command does not leave processes behind.
 */
#pragma once

#include <stdint.h>

#include "base/error.h"
#include "guest/channel/stream.h"
#include "guest/exec/launch.h"

/* What the streams of EXEC share. */
struct commands {
    struct launcher launcher;
    uint64_t grace_ns; /* a descendant's, from the end of the main process on */
};

extern const struct stream_op command_op;

/* Makes all that the first command needs. `cgroup_path` may be NULL. commands_fini() is due in any
 * case. */
int commands_init(struct commands *commands, const char *cgroup_path, struct error *e)
    __attribute__((warn_unused_result));
void commands_fini(struct commands *commands);

/* What can wait until there is nothing else to do. */
void commands_tidy(struct commands *commands);
