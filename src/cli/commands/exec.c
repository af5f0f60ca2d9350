/*
 * cloche exec: one command in a sandbox that is there. Standard input goes to it as it comes, over
 * a connection of its own: `cloche input` in a process beside us, which we end with the command.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/client/client.h"
#include "cli/client/playback.h"
#include "cli/client/request.h"
#include "cli/client/target.h"
#include "cli/commands/commands.h"
#include "cli/common/arguments.h"
#include "cli/common/places.h"
#include "cli/common/spawn.h"
#include "cloche/limits.h"
#include "json/json_write.h"

struct exec_arguments {
    const char *socket;
    const char *cwd;
    const char *user;
    const char *umask;
    const char *session;
    struct argument_items env;
    uint64_t timeout_s;
    bool background;
    bool keeps_stdin;
    const char *id;
    char *const *argv;
    size_t argc;
    bool has_input; /* our stdin is passed on */
    pid_t feeder;   /* who does that; 0: nobody */
};

/* A terminal's input is not passed on. */
static bool has_input(void)
{
    struct stat st;

    return fstat(STDIN_FILENO, &st) == 0 && !isatty(STDIN_FILENO) &&
           !(S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)); /* /dev/null */
}

static int on_start(void *context, uint32_t pid, struct error *e)
{
    struct exec_arguments *a = context;
    char number[16];

    (void)snprintf(number, sizeof(number), "%u", pid);
    const char *const argv[] = {"cloche", "input", "--quiet", "--socket", place_socket(a->socket),
                                a->id,    number,  NULL};
    if (!a->has_input)
        return 0;
    a->feeder = spawn_self(argv, STDIN_FILENO, STDERR_FILENO, e);
    return a->feeder < 0 ? -1 : 0;
}

static void end_feeder(struct exec_arguments *a)
{
    if (a->feeder <= 0)
        return;
    (void)kill(a->feeder, SIGKILL);
    while (waitpid(a->feeder, NULL, 0) < 0 && errno == EINTR)
        continue;
}

/* In the background there is only its number to tell. */
static int print_pid(struct client *c, struct error *e)
{
    JSON_AUTO cJSON *reply = NULL;

    if (client_read_json(c, &reply, e) != 0)
        return -1;
    const cJSON *pid = cJSON_GetObjectItemCaseSensitive(reply, "pid");
    if (!cJSON_IsNumber(pid))
        return error_set(e, ERR_INTERNAL, "the daemon did not say the process's number");
    printf("%d\n", pid->valueint);
    return 0;
}

static int send_exec(struct exec_arguments *a, const struct buffer *body, struct error *e)
{
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    const struct playback_options options = {.on_start = on_start, .context = a};
    struct client c;
    int result = target_make(&target, a->id, NULL, "/exec", e);

    const struct client_request request = {.method = "POST",
                                           .target = (const char *)buffer_bytes(&target),
                                           .accept = a->background ? "application/json"
                                                                   : "application/x-ndjson",
                                           .content_type = "application/json",
                                           .body = buffer_bytes(body),
                                           .size = body->size};
    if (result == 0)
        result = client_open(&c, place_socket(a->socket), e);
    if (result == 0) {
        result = client_send(&c, &request, e);
        if (result == 0)
            result = a->background ? print_pid(&c, e) : playback_run(&c, &options, e);
        client_close(&c);
    }
    end_feeder(a);
    buffer_fini(&target);
    return result;
}

static int exec_command(struct exec_arguments *a, struct error *e)
{
    const struct request_command command = {.argv = a->argv,
                                            .argc = a->argc,
                                            .is_shell = a->session != NULL,
                                            .env = &a->env,
                                            .cwd = a->cwd,
                                            .user = a->user,
                                            .umask = a->umask,
                                            .timeout_ms = a->timeout_s * 1000};
    struct buffer body = BUFFER_INIT(HTTP_JSON_BODY_MAX);
    struct json_writer w;

    a->has_input = !a->background && a->session == NULL && has_input();
    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    int result = request_put_command(&w, &command, NULL, e);
    if (a->background)
        json_put_bool(&w, "background", true);
    if (a->has_input || a->keeps_stdin)
        json_put_bool(&w, "stdin_open", true);
    if (a->session != NULL)
        json_put_text(&w, "session", a->session);
    json_end_object(&w);
    if (result == 0 && w.failed)
        result = request_too_large(e, "the command");
    if (result == 0)
        result = send_exec(a, &body, e);
    buffer_fini(&body);
    return result;
}

static int check(const struct command *command, const struct exec_arguments *a, struct error *e)
{
    if (a->session != NULL && a->argc != 1)
        return arguments_refuse(command, e,
                                "--session takes one command line, as in -- 'cd src && make'");
    if (a->session != NULL && a->background)
        return arguments_refuse(command, e, "--session does not go with --background");
    if (a->keeps_stdin && !a->background)
        return arguments_refuse(command, e, "--stdin goes with --background");
    return 0;
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
        {.name = "umask", .value = "MASK", .text = &a.umask, .help = "file mode mask (022)"},
        {.name = "timeout",
         .value = "S",
         .number = &a.timeout_s,
         .number_min = 1,
         .number_max = SANDBOX_TIMEOUT_S_MAX,
         .help = "kill the command after so many seconds, exit 124"},
        {.name = "background", .flag = &a.background, .help = "print its PID and let it run"},
        {.name = "stdin", .flag = &a.keeps_stdin, .help = "in the background: for `cloche input`"},
        {.name = "session",
         .value = "NAME",
         .text = &a.session,
         .help = "in a shell that stays: the next command finds it as this left it"},
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
    return check(command, &a, e) != 0 ? -1 : exec_command(&a, e);
}

const struct command command_exec = {
    .name = "exec",
    .summary = "run a command in a sandbox that is there",
    .usage = "ID [OPTION]... -- CMD [ARG]...",
    .examples =
        "Output comes as it is made, and standard input goes in as it comes where it is not a\n"
        "terminal. Exits as the command did: 128+N after signal N, 124 after its time out, 125\n"
        "where cloche itself failed.\n"
        "\n"
        "`cloche create` makes a sandbox, `cloche ps` lists their IDs. With --session CMD is one\n"
        "command line; `cloche ps ID` tells the session's shell, whose end ends the session.\n"
        "\n"
        "  cloche exec sb_... -- python3 -c 'print(6 * 7)'\n"
        "  cloche exec sb_... --env DEBUG=1 --timeout 10 -- sh -c 'ls | wc -l'\n"
        "  tail -f log | cloche exec sb_... -- grep --line-buffered error\n"
        "  cloche exec sb_... --session work -- 'cd src; export CC=clang'\n"
        "  cloche exec sb_... --background -- python3 -m http.server\n",
    .run = run_exec,
};
