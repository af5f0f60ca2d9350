/* The options of `cloche serve`. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/log.h"

#define SERVE_STATE_DIR "/var/lib/cloche"
#define SERVE_SOCKET    "/run/cloche/cloche.sock"
#define SERVE_CONFIG    "/etc/cloche/cloche.json"
#define SERVE_UID_BASE  UINT32_C(2000000000)

struct serve_options {
    const char *state_dir;
    const char *socket;
    const char *config;
    bool config_given;  /* by the user: then it has to be there */
    const char *images; /* NULL: look for it */
    enum log_level log_level;
    gid_t socket_group; /* 0: root's */
    uint32_t uid_base;
    bool help;
};

/*
 * Reads the arguments behind `serve` (argv[0] is the command's own name). Every value is checked as
 * far as it can be without looking at the host; ERR_USAGE names the option.
 */
int options_parse(int argc, char **argv, struct serve_options *ret_options, struct error *e)
    __attribute__((warn_unused_result, nonnull));

/* The text of `cloche serve --help`. */
extern const char options_help[];
