/* The daemon role: one libuv loop that owns the sandbox table and talks to priv, monitors and
 * clients. */
#pragma once

/* Runs the role with the descriptors of cloche/handover.h; returns the process's exit code. */
int daemon_main(void);
