/*
 * The EXEC operation: one command from its start to its END.
 *
 * END is sent when the main process has ended, stdout and stderr are at their end and no other
 * process of the command's cgroup lives. A descendant that outlives the main process gets a short
 * grace to finish its output; then, or as soon as nobody holds the pipes any more, it is killed: a
 * command does not leave processes behind.
 */
#pragma once

#include "guest/channel/stream.h"

/* What its streams share is a `struct launcher`. */
extern const struct stream_op command_op;
