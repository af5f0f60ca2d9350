#include "serve/options.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "cloche/limits.h"

const char options_help[] =
    "usage: cloche serve [OPTION]...\n"
    "\n"
    "Runs the daemon in the foreground until SIGINT or SIGTERM. Needs root and /dev/kvm.\n"
    "\n"
    "  --state-dir DIR      templates' snapshots and scratch disks (" SERVE_STATE_DIR ")\n"
    "  --socket PATH        Unix socket of the API (" SERVE_SOCKET ")\n"
    "  --socket-group NAME  group that may use the socket (root)\n"
    "  --config FILE        settings as JSON (" SERVE_CONFIG ", if it is there)\n"
    "  --images DIR         guest kernel and root file systems (beside the binary, or\n"
    "                       /usr/local/lib/cloche/images)\n"
    "  --uid-base UID       first of the unused uids for daemon and monitors (2000000000)\n"
    "  --log-level LEVEL    error, warn, info or debug (info)\n"
    "  --help\n";

enum option_id {
    OPTION_STATE_DIR = 1,
    OPTION_SOCKET,
    OPTION_SOCKET_GROUP,
    OPTION_CONFIG,
    OPTION_IMAGES,
    OPTION_UID_BASE,
    OPTION_LOG_LEVEL,
    OPTION_HELP,
};

static const struct option options[] = {
    {"state-dir", required_argument, NULL, OPTION_STATE_DIR},
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"socket-group", required_argument, NULL, OPTION_SOCKET_GROUP},
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"images", required_argument, NULL, OPTION_IMAGES},
    {"uid-base", required_argument, NULL, OPTION_UID_BASE},
    {"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static int parse_path(const char *name, const char *value, const char **ret, struct error *e)
{
    if (value[0] == '\0' || strlen(value) >= PATH_MAX)
        return error_set(e, ERR_USAGE, "%s: not a usable path", name);
    *ret = value;
    return 0;
}

static int parse_number(const char *name, const char *value, uint32_t min, uint32_t max,
                        uint32_t *ret, struct error *e)
{
    char *end;

    errno = 0;
    unsigned long long n = strtoull(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0 || n < min || n > max)
        return error_set(e, ERR_USAGE, "%s: '%s' is not a number from %u to %u", name, value, min,
                         max);
    *ret = (uint32_t)n;
    return 0;
}

static int parse_level(const char *value, enum log_level *ret, struct error *e)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(value, names[i]) == 0) {
            *ret = (enum log_level)i;
            return 0;
        }
    }
    return error_set(e, ERR_USAGE, "--log-level: '%s' is none of error, warn, info, debug", value);
}

static int parse_group(const char *value, gid_t *ret, struct error *e)
{
    uint32_t gid;
    const struct group *group = getgrnam(value);

    if (group != NULL) {
        *ret = group->gr_gid;
        return 0;
    }
    if (parse_number("--socket-group", value, 0, UINT32_MAX - 1, &gid, e) != 0)
        return error_set(e, ERR_USAGE, "--socket-group: there is no group '%s'", value);
    *ret = gid;
    return 0;
}

static int take(int option, const char *value, struct serve_options *o, struct error *e)
{
    switch ((enum option_id)option) {
    case OPTION_STATE_DIR:
        return parse_path("--state-dir", value, &o->state_dir, e);
    case OPTION_SOCKET:
        return parse_path("--socket", value, &o->socket, e);
    case OPTION_SOCKET_GROUP:
        return parse_group(value, &o->socket_group, e);
    case OPTION_CONFIG:
        o->config_given = true;
        return parse_path("--config", value, &o->config, e);
    case OPTION_IMAGES:
        return parse_path("--images", value, &o->images, e);
    case OPTION_UID_BASE:
        return parse_number("--uid-base", value, 1000, UINT32_MAX - 2 - SANDBOX_COUNT_MAX,
                            &o->uid_base, e);
    case OPTION_LOG_LEVEL:
        return parse_level(value, &o->log_level, e);
    case OPTION_HELP:
        o->help = true;
        return 0;
    }
    return error_set(e, ERR_USAGE, "unknown option");
}

int options_parse(int argc, char **argv, struct serve_options *ret_options, struct error *e)
{
    struct serve_options o = {.state_dir = SERVE_STATE_DIR,
                              .socket = SERVE_SOCKET,
                              .config = SERVE_CONFIG,
                              .log_level = LOG_INFO,
                              .uid_base = SERVE_UID_BASE};
    int option;

    opterr = 0;
    optind = 0; /* glibc: start anew */
    while ((option = getopt_long(argc, argv, "+:", options, NULL)) != -1) {
        if (option == ':')
            return error_set(e, ERR_USAGE, "%s needs a value", argv[optind - 1]);
        if (option == '?')
            return error_set(e, ERR_USAGE, "unknown option '%s'", argv[optind - 1]);
        if (take(option, optarg, &o, e) != 0)
            return -1;
    }
    if (optind < argc)
        return error_set(e, ERR_USAGE, "unexpected argument '%s'", argv[optind]);
    if (strlen(o.socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
        (void)error_set(e, ERR_USAGE,
                        "--socket: the path is longer than the %zu bytes that a "
                        "socket's address takes",
                        sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
        return error_remedy(e, "choose a shorter path");
    }
    *ret_options = o;
    return 0;
}
