/* cloche rm: ends sandboxes. */
#include <stdio.h>

#include "cli/client/client.h"
#include "cli/client/target.h"
#include "cli/commands/commands.h"
#include "cli/common/arguments.h"
#include "cli/common/interrupt.h"
#include "cli/common/places.h"
#include "cli/common/report.h"
#include "cloche/limits.h"

static int remove_one(const char *socket_path, const char *id, struct error *e)
{
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    int result = target_make(&target, id, NULL, "", e);

    if (result == 0)
        result = client_call(socket_path, "DELETE", (const char *)buffer_bytes(&target), NULL, e);
    buffer_fini(&target);
    return result;
}

/* Goes on after a failure, so that one id that is gone does not keep the others alive. */
static int run_rm(const struct command *command, int argc, char **argv, struct error *e)
{
    const char *ids[SANDBOX_COUNT_MAX];
    const char *socket_option = NULL;
    const struct argument_option options[] = {
        {.name = "socket", .value = "S", .text = &socket_option, .help = "the daemon's socket"},
        {.name = NULL},
    };
    struct argument_parser p;
    size_t count;
    int result = 0;

    arguments_init(&p, command, options, argc, argv);
    if (arguments_parse_all(&p, ids, SANDBOX_COUNT_MAX, &count, e) != 0)
        return -1;
    if (p.help)
        return 0;
    if (count == 0)
        return arguments_refuse(command, e, "which sandboxes?");
    for (size_t i = 0; i < count && interrupt_signal() == 0; i++) {
        struct error one = ERROR_INIT;
        if (remove_one(place_socket(socket_option), ids[i], &one) == 0) {
            printf("%s\n", ids[i]);
            continue;
        }
        if (result != 0)
            report_error(e); /* the last one is printed by whoever called us */
        *e = one;
        result = -1;
    }
    return result;
}

const struct command command_rm = {
    .name = "rm",
    .summary = "end sandboxes and all that is in them",
    .usage = "ID... [OPTION]...",
    .examples = "Prints the ids of those that are gone: memory, disk and processes included.\n"
                "\n"
                "  cloche rm sb_...\n"
                "  cloche ps --quiet | xargs cloche rm\n",
    .run = run_rm,
};
