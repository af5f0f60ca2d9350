/* The command line's sub-commands, all but `cloche serve`: most talk to a daemon. */
#pragma once

#include <stdbool.h>

/* Whether `name` is one of them. */
bool cli_has_command(const char *name) __attribute__((nonnull));

/* To stdout, a line per command, for the usage text of `cloche` itself. */
void cli_print_commands(void);

/*
 * Runs one; argv[0] is its name. Returns the process's exit code: the guest command's own where one
 * was run or followed, 1 where `cloche doctor` found something missing, else 0 or what the table of
 * base/error.h says for the failure, which has been printed. After a signal that ends a process
 * (Ctrl-C) it is 128 and the signal's number.
 */
int cli_main(int argc, char **argv) __attribute__((nonnull));
