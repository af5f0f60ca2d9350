/* cloche logs: the output of a process, from any byte of it on. */
#include <stdio.h>

#include "cli/client/client.h"
#include "cli/client/playback.h"
#include "cli/client/target.h"
#include "cli/commands/commands.h"
#include "cli/common/arguments.h"
#include "cli/common/places.h"
#include "cloche/limits.h"

static int play(const char *socket_path, const char *target, struct error *e)
{
    const struct client_request request = {
        .method = "GET", .target = target, .accept = "application/x-ndjson"};
    const struct playback_options options = {0};
    struct client c;

    if (client_open(&c, socket_path, e) != 0)
        return -1;
    int result = client_send(&c, &request, e);
    if (result == 0)
        result = playback_run(&c, &options, e);
    client_close(&c);
    return result < 0 ? -1 : 0; /* how the command ended is its own affair */
}

static int run_logs(const struct command *command, int argc, char **argv, struct error *e)
{
    const char *socket_option = NULL;
    bool follow = false;
    uint64_t from = UINT64_MAX;
    const struct argument_option options[] = {
        {.name = "follow", .flag = &follow, .help = "go on until the process has ended"},
        {.name = "from",
         .value = "OFFSET",
         .number = &from,
         .number_max = UINT64_MAX - 1,
         .help = "from this byte of all its output on (the oldest that is kept)"},
        {.name = "socket", .value = "S", .text = &socket_option, .help = "the daemon's socket"},
        {.name = NULL},
    };
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    struct argument_parser p;
    const char *operands[2];
    char query[64];
    size_t count;

    arguments_init(&p, command, options, argc, argv);
    if (arguments_parse_all(&p, operands, 2, &count, e) != 0)
        return -1;
    if (p.help)
        return 0;
    if (count != 2)
        return arguments_refuse(command, e, "which process of which sandbox?");
    int n = snprintf(query, sizeof(query), "/output?follow=%s", follow ? "true" : "false");
    if (from != UINT64_MAX)
        (void)snprintf(query + n, sizeof(query) - (size_t)n, "&from=%llu",
                       (unsigned long long)from);
    int result = target_make(&target, operands[0], operands[1], query, e);
    if (result == 0)
        result = play(place_socket(socket_option), (const char *)buffer_bytes(&target), e);
    buffer_fini(&target);
    return result;
}

const struct command command_logs = {
    .name = "logs",
    .summary = "print the output of a process in a sandbox",
    .usage = "ID PID [OPTION]...",
    .examples = "Of a process in the background the newest output is kept, 1 MiB unless it was "
                "started\n"
                "with more; what is no longer there is told on stderr.\n"
                "\n"
                "  cloche logs sb_... 17\n"
                "  cloche logs sb_... 17 --follow\n",
    .run = run_logs,
};
