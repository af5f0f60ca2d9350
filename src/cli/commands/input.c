/* cloche input: standard input to a process in a sandbox, as it comes. */
#include <stdio.h>
#include <unistd.h>

#include "cli/client/client.h"
#include "cli/client/target.h"
#include "cli/commands/commands.h"
#include "cli/common/arguments.h"
#include "cli/common/places.h"
#include "cloche/limits.h"

static int run_input(const struct command *command, int argc, char **argv, struct error *e)
{
    const char *socket_option = NULL;
    bool keep_open = false;
    bool quiet = false;
    const struct argument_option options[] = {
        {.name = "keep-open", .flag = &keep_open, .help = "leave its stdin open behind ours"},
        {.name = "quiet", .flag = &quiet, .help = "a process that reads no more is no failure"},
        {.name = "socket", .value = "S", .text = &socket_option, .help = "the daemon's socket"},
        {.name = NULL},
    };
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    struct argument_parser p;
    const char *operands[2];
    struct client c;
    size_t count;

    arguments_init(&p, command, options, argc, argv);
    if (arguments_parse_all(&p, operands, 2, &count, e) != 0)
        return -1;
    if (p.help)
        return 0;
    if (count != 2)
        return arguments_refuse(command, e, "which process of which sandbox?");
    int result = target_make(&target, operands[0], operands[1],
                             keep_open ? "/stdin?close=false" : "/stdin?close=true", e);
    if (result == 0)
        result = client_open(&c, place_socket(socket_option), e);
    if (result == 0) {
        const struct client_request request = {.method = "POST",
                                               .target = (const char *)buffer_bytes(&target),
                                               .content_type = "application/octet-stream",
                                               .has_file = true,
                                               .file_fd = STDIN_FILENO,
                                               .size = UINT64_MAX};
        result = client_send(&c, &request, e);
        if (result == 0)
            result = client_finish(&c, e);
        client_close(&c);
    }
    buffer_fini(&target);
    if (result < 0 && quiet && (e->code == ERR_CONFLICT || e->code == ERR_PROCESS_NOT_FOUND))
        return 0;
    return result;
}

const struct command command_input = {
    .name = "input",
    .summary = "pass standard input on to a process in a sandbox",
    .usage = "ID PID [OPTION]...",
    .examples = "For a process whose stdin was left open: `cloche exec --background --stdin`.\n"
                "\n"
                "  echo 'select 1;' | cloche input sb_... 17 --keep-open\n",
    .run = run_input,
};
