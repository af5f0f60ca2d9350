/* What a sub-command is. Each command's file defines one `struct command`; the table is in cli.c.
 */
#pragma once

#include <stddef.h>

#include "base/error.h"
#include "cli/common/arguments.h"

struct command {
    const char *name;
    const char *summary;  /* one line */
    const char *usage;    /* behind "cloche NAME" */
    const char *examples; /* and whatever else --help says below the options */
    /*
     * `argv[0]` is the command's name. Returns an exit code, or -1 with `e` set.
     */
    int (*run)(const struct command *command, int argc, char **argv, struct error *e);
};

extern const struct command command_run, command_create, command_exec, command_shell, command_logs,
    command_input, command_kill, command_ps, command_rm, command_cp, command_info, command_doctor;

/* The socket that a command talks to: `option` where given, else $CLOCHE_SOCKET, else the default.
 */
const char *command_socket(const char *option);

/* Prints a failure to stderr: message, cause, remedy. */
void command_print_error(const struct error *e);
