/* What a sub-command is. Each command's file defines one `struct command`; the table is in cli.c.
 */
#pragma once

#include "base/error.h"

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
