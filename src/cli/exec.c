/* cloche exec: one command in a sandbox that is there. */
#include <stdio.h>

#include "cli/client.h"
#include "cli/command.h"
#include "cli/playback.h"
#include "cli/request.h"
#include "cloche/limits.h"
#include "http/target.h"
#include "json/json_write.h"

struct exec_arguments {
    const char *socket;
    const char *cwd;
    const char *user;
    struct argument_items env;
    uint64_t timeout_s;
    const char *id;
    char *const *argv;
    size_t argc;
};

static int send_exec(const struct exec_arguments *a, const struct buffer *body, struct error *e)
{
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    struct client c;
    int result = -1;

    if (buffer_append_text(&target, "/v1/sandboxes/") != 0 ||
        http_escape_append(&target, a->id) != 0 || buffer_append(&target, "/exec", 6) != 0) {
        buffer_fini(&target);
        return error_set(e, ERR_USAGE, "the sandbox's id is too long");
    }
    const struct client_request request = {.method = "POST",
                                           .target = (const char *)buffer_bytes(&target),
                                           .accept = "application/x-ndjson",
                                           .content_type = "application/json",
                                           .body = buffer_bytes(body),
                                           .size = body->size};
    if (client_open(&c, command_socket(a->socket), e) == 0) {
        result = client_send(&c, &request, e);
        if (result == 0)
            result = playback_run(&c, NULL, 0, e);
        client_close(&c);
    }
    buffer_fini(&target);
    return result;
}

static int exec_command(const struct exec_arguments *a, struct error *e)
{
    const struct request_command command = {.argv = a->argv,
                                            .argc = a->argc,
                                            .env = &a->env,
                                            .cwd = a->cwd,
                                            .user = a->user,
                                            .timeout_ms = a->timeout_s * 1000};
    struct buffer input = BUFFER_INIT(HTTP_JSON_BODY_MAX);
    struct buffer body = BUFFER_INIT(HTTP_JSON_BODY_MAX);
    struct json_writer w;
    int result = request_read_stdin(&input, e);

    if (result == 0) {
        json_writer_init(&w, &body);
        json_begin_object(&w, NULL);
        result = request_put_command(&w, &command, &input, e);
        json_end_object(&w);
        buffer_fini(&input);
    }
    if (result == 0)
        result = send_exec(a, &body, e);
    buffer_fini(&input);
    buffer_fini(&body);
    return result;
}

static int run_exec(const struct command *command, int argc, char **argv, struct error *e)
{
    static struct exec_arguments a;
    const struct argument_option options[] = {
        {.name = "env",
         .value = "K=V",
         .items = &a.env,
         .help = "set a variable (K alone: as here)"},
        {.name = "cwd", .value = "DIR", .text = &a.cwd, .help = "where to run (the template's)"},
        {.name = "user", .value = "NAME", .text = &a.user, .help = "as whom (root)"},
        {.name = "timeout",
         .value = "S",
         .number = &a.timeout_s,
         .number_min = 1,
         .number_max = SANDBOX_TIMEOUT_S_MAX,
         .help = "kill the command after so many seconds, exit 124"},
        {.name = "socket", .value = "S", .text = &a.socket, .help = "the daemon's socket"},
        {.name = NULL},
    };
    struct argument_parser p;

    arguments_init(&p, command, options, argc, argv);
    if (arguments_parse(&p, e) != 0)
        return -1;
    if (!p.help && p.next < p.argc)
        a.id = argv[p.next++];
    if (arguments_parse(&p, e) != 0)
        return -1;
    if (p.help)
        return 0;
    if (a.id == NULL)
        return arguments_refuse(command, e, "which sandbox?");
    if (p.next >= p.argc)
        return arguments_refuse(command, e, "no command to run in %s", a.id);
    a.argv = argv + p.next;
    a.argc = (size_t)(p.argc - p.next);
    return exec_command(&a, e);
}

const struct command command_exec = {
    .name = "exec",
    .summary = "run a command in a sandbox that is there",
    .usage = "ID [OPTION]... -- CMD [ARG]...",
    .examples =
        "Output comes as it is made; standard input is passed on where it is not a terminal.\n"
        "Exits as the command did: 128+N after signal N, 124 after its time out, 125 where\n"
        "cloche itself failed.\n"
        "\n"
        "  cloche exec sb_... -- python3 -c 'print(6 * 7)'\n"
        "  cloche exec sb_... --env DEBUG=1 --timeout 10 -- sh -c 'ls | wc -l'\n"
        "  cloche exec sb_... -- sort < words.txt\n",
    .run = run_exec,
};
