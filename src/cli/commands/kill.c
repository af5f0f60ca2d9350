/* cloche kill: a signal to a process in a sandbox, or the end of it and all its descendants. */
#include <stdio.h>

#include "cli/client/client.h"
#include "cli/client/target.h"
#include "cli/commands/commands.h"
#include "cli/common/arguments.h"
#include "cli/common/places.h"
#include "cloche/limits.h"
#include "json/json_write.h"

static int send_signal(const char *socket_path, const char *target, const char *name,
                       struct error *e)
{
    struct buffer body = BUFFER_INIT(4 * KIB);
    struct json_writer w;
    struct client c;
    int result = -1;

    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    json_put_text(&w, "signal", name);
    json_end_object(&w);
    const struct client_request request = {.method = "POST",
                                           .target = target,
                                           .content_type = "application/json",
                                           .body = buffer_bytes(&body),
                                           .size = body.size};
    if (w.failed)
        result = error_set(e, ERR_USAGE, "the signal's name is too long");
    else if (client_open(&c, socket_path, e) == 0) {
        result = client_send(&c, &request, e);
        if (result == 0)
            result = client_finish(&c, e);
        client_close(&c);
    }
    buffer_fini(&body);
    return result;
}

static int run_kill(const struct command *command, int argc, char **argv, struct error *e)
{
    const char *socket_option = NULL;
    const char *signal_name = NULL;
    const struct argument_option options[] = {
        {.name = "signal",
         .value = "NAME",
         .text = &signal_name,
         .help = "only send this signal (TERM, 15) to its process group"},
        {.name = "socket", .value = "S", .text = &socket_option, .help = "the daemon's socket"},
        {.name = NULL},
    };
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    struct argument_parser p;
    const char *operands[2];
    size_t count;

    arguments_init(&p, command, options, argc, argv);
    if (arguments_parse_all(&p, operands, 2, &count, e) != 0)
        return -1;
    if (p.help)
        return 0;
    if (count != 2)
        return arguments_refuse(command, e, "which process of which sandbox?");
    int result =
        target_make(&target, operands[0], operands[1], signal_name != NULL ? "/signal" : "", e);
    const char *text = (const char *)buffer_bytes(&target);
    if (result == 0 && signal_name != NULL)
        result = send_signal(place_socket(socket_option), text, signal_name, e);
    else if (result == 0)
        result = client_call(place_socket(socket_option), "DELETE", text, NULL, e);
    buffer_fini(&target);
    return result;
}

const struct command command_kill = {
    .name = "kill",
    .summary = "end a process in a sandbox, or signal it",
    .usage = "ID PID [OPTION]...",
    .examples =
        "Without --signal the process is killed with every descendant, whatever session they\n"
        "are in, and what is known of it is forgotten.\n"
        "\n"
        "  cloche kill sb_... 17\n"
        "  cloche kill sb_... 17 --signal HUP\n",
    .run = run_kill,
};
