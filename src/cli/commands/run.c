/* cloche run: one command in a sandbox of its own, from nothing to nothing. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/client/client.h"
#include "cli/client/own_daemon.h"
#include "cli/client/playback.h"
#include "cli/client/request.h"
#include "cli/commands/commands.h"
#include "cli/common/arguments.h"
#include "cli/common/interrupt.h"
#include "cli/common/places.h"
#include "cli/common/progress.h"
#include "cloche/limits.h"
#include "json/json_write.h"

#define WORKSPACE "/workspace"
/* The sandbox outlives its command's time out by so much, so that it is the command that ends. */
#define TIMEOUT_MARGIN_S 60u

struct run_arguments {
    const char *socket;
    const char *cwd;
    struct request_shape shape;
    uint64_t timeout_s; /* of the command */
    struct argument_items env;
    struct argument_items files;
    struct argument_items collect;
    char *const *argv;
    size_t argc;
};

struct run_paths {
    struct playback_file items[ARGUMENT_ITEMS_MAX];
    char *texts[ARGUMENT_ITEMS_MAX * 2]; /* what the items point to */
    size_t count;
};

static void paths_fini(struct run_paths *p)
{
    for (size_t i = 0; i < 2 * p->count; i++)
        free(p->texts[i]);
    p->count = 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

/* The path in the guest: relative ones start in the workspace, a directory gets `name`. */
static char *guest_path(const char *path, const char *name)
{
    size_t size = strlen(path);
    bool directory = size > 0 && path[size - 1] == '/';
    char *text;

    if (asprintf(&text, "%s%s%s", path[0] == '/' ? "" : WORKSPACE "/", path,
                 directory ? name : "") < 0)
        return NULL;
    return text;
}

static char *local_path(const char *path, const char *name)
{
    struct stat st;
    char *text;

    if (strcmp(path, "-") == 0 || stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return strdup(path);
    return asprintf(&text, "%s/%s", path, name) < 0 ? NULL : text;
}

/*
 * Takes "FROM:TO" or "FROM" apart, for each item of an option. `local_first`: FROM is here and TO
 * in the guest (--file), else the other way round (--collect).
 */
static int split_paths(const struct argument_items *items, bool local_first,
                       struct run_paths *ret_paths, struct error *e)
{
    ret_paths->count = 0;
    for (size_t i = 0; i < items->count; i++) {
        char *from = strdup(items->items[i]);
        char *colon = from != NULL ? strrchr(from, ':') : NULL;
        if (colon != NULL)
            *colon = '\0';
        const char *name = from != NULL ? base_name(from) : "";
        if (name[0] == '\0') {
            free(from);
            return error_set(e, ERR_USAGE, "%s %s: not a file's name",
                             local_first ? "--file" : "--collect", items->items[i]);
        }
        const char *to = colon != NULL && colon[1] != '\0' ? colon + 1 : name;
        char *guest = guest_path(local_first ? to : from, name);
        char *local = local_first ? strdup(from) : local_path(to, name);
        free(from);
        ret_paths->texts[2 * i] = guest;
        ret_paths->texts[2 * i + 1] = local;
        ret_paths->items[i] = (struct playback_file){.guest = guest, .local = local};
        ret_paths->count = i + 1;
        if (guest == NULL || local == NULL)
            return error_set(e, ERR_INTERNAL, "out of memory");
    }
    return 0;
}

static void put_shape(struct json_writer *w, const struct run_arguments *a)
{
    struct request_shape shape = a->shape;

    if (a->timeout_s > 0)
        shape.timeout_s = a->timeout_s + TIMEOUT_MARGIN_S < SANDBOX_TIMEOUT_S_MAX
                              ? a->timeout_s + TIMEOUT_MARGIN_S
                              : SANDBOX_TIMEOUT_S_MAX;
    request_put_shape(w, &shape);
}

static int put_body(struct buffer *body, const struct run_arguments *a,
                    const struct run_paths *files, const struct run_paths *collect, struct error *e)
{
    const struct request_command command = {.argv = a->argv,
                                            .argc = a->argc,
                                            .env = &a->env,
                                            .cwd = a->cwd,
                                            .timeout_ms = a->timeout_s * 1000};
    struct buffer input = BUFFER_INIT(HTTP_JSON_BODY_MAX);
    struct json_writer w;
    int result = request_read_stdin(&input, e);

    json_writer_init(&w, body);
    json_begin_object(&w, NULL);
    put_shape(&w, a);
    if (result == 0)
        result = request_put_command(&w, &command, &input, e);
    buffer_fini(&input);
    json_begin_array(&w, "files");
    for (size_t i = 0; result == 0 && i < files->count; i++)
        result = request_put_file(&w, files->items[i].local, files->items[i].guest, e);
    json_end_array(&w);
    json_begin_array(&w, "collect");
    for (size_t i = 0; i < collect->count; i++)
        json_put_text(&w, NULL, collect->items[i].guest);
    json_end_array(&w);
    json_end_object(&w);
    if (result == 0 && w.failed)
        result = request_too_large(e, "the command with its files");
    return result;
}

static void on_wait(void *context, unsigned seconds)
{
    progress_tick(context, seconds);
}

/* Connects to the daemon there is, or to one of our own. */
static int connect_daemon(struct client *c, const char *socket_path, struct own_daemon *own,
                          struct error *e)
{
    if (client_open(c, socket_path, e) == 0)
        return 0;
    if (e->code != ERR_UNREACHABLE || (errno != ENOENT && errno != ECONNREFUSED))
        return -1;
    if (geteuid() != 0)
        return error_remedy(e, "Start one with `sudo cloche serve`, or run this as root (sudo): "
                               "then it starts its own.");
    if (own_daemon_start(own, e) != 0)
        return -1;
    return client_open(c, own->socket_path, e);
}

static int send_run(const struct run_arguments *a, const struct buffer *body,
                    const struct run_paths *collect, struct error *e)
{
    const struct client_request request = {.method = "POST",
                                           .target = "/v1/run",
                                           .accept = "application/x-ndjson",
                                           .content_type = "application/json",
                                           .body = buffer_bytes(body),
                                           .size = body->size};
    struct progress progress = {.what = "starting a sandbox (the first of its kind boots)"};
    struct own_daemon own = {0};
    struct client c = {.fd = -1};
    int result = connect_daemon(&c, place_socket(a->socket), &own, e);

    if (result == 0) {
        c.on_wait = on_wait;
        c.on_wait_context = &progress;
        result = client_send(&c, &request, e);
        progress_end(&progress);
    }
    if (result == 0) {
        const struct playback_options options = {.files = collect->items,
                                                 .file_count = collect->count};
        result = playback_run(&c, &options, e);
    }
    client_close(&c);
    if (result < 0 && e->code == ERR_UNREACHABLE && interrupt_signal() == 0)
        own_daemon_print_log(&own);
    own_daemon_stop(&own);
    return result;
}

static int run_command(const struct run_arguments *a, struct error *e)
{
    static struct run_paths files, collect;
    struct buffer body = BUFFER_INIT(HTTP_JSON_BODY_MAX);
    int result = -1;

    if (split_paths(&a->files, true, &files, e) == 0 &&
        split_paths(&a->collect, false, &collect, e) == 0 &&
        put_body(&body, a, &files, &collect, e) == 0)
        result = send_run(a, &body, &collect, e);
    buffer_fini(&body);
    paths_fini(&files);
    paths_fini(&collect);
    return result;
}

static int run_run(const struct command *command, int argc, char **argv, struct error *e)
{
    static struct run_arguments a;
    const struct argument_option options[] = {
        {.name = "template", .value = "NAME", .text = &a.shape.template, .help = "what to run in"},
        {.name = "vcpus",
         .value = "N",
         .number = &a.shape.vcpus,
         .number_min = 1,
         .number_max = SANDBOX_VCPUS_MAX,
         .help = "virtual CPUs"},
        {.name = "mem",
         .value = "MIB",
         .number = &a.shape.mem_mib,
         .number_min = SANDBOX_MEM_MIB_MIN,
         .number_max = SANDBOX_MEM_MIB_MAX,
         .help = "memory"},
        {.name = "disk",
         .value = "MIB",
         .number = &a.shape.disk_mib,
         .number_min = SANDBOX_DISK_MIB_MIN,
         .number_max = SANDBOX_DISK_MIB_MAX,
         .help = "scratch disk"},
        {.name = "timeout",
         .value = "S",
         .number = &a.timeout_s,
         .number_min = 1,
         .number_max = SANDBOX_TIMEOUT_S_MAX,
         .help = "kill the command after so many seconds, exit 124"},
        {.name = "env",
         .value = "K=V",
         .items = &a.env,
         .help = "set a variable (K alone: as here)"},
        {.name = "cwd", .value = "DIR", .text = &a.cwd, .help = "where to run (the template's)"},
        {.name = "file",
         .value = "LOCAL[:GUEST]",
         .items = &a.files,
         .help = "bring a file (to " WORKSPACE ")"},
        {.name = "collect",
         .value = "GUEST[:LOCAL]",
         .items = &a.collect,
         .help = "fetch a file afterwards (to here)"},
        {.name = "socket", .value = "S", .text = &a.socket, .help = "the daemon's socket"},
        {.name = NULL},
    };
    struct argument_parser p;

    arguments_init(&p, command, options, argc, argv);
    if (arguments_parse(&p, e) != 0)
        return -1;
    if (p.help)
        return 0;
    if (p.next >= argc)
        return arguments_refuse(command, e, "no command to run");
    a.argv = argv + p.next;
    a.argc = (size_t)(argc - p.next);
    return run_command(&a, e);
}

const struct command command_run = {
    .name = "run",
    .summary = "run a command in a new sandbox, which ends with it",
    .usage = "[OPTION]... -- CMD [ARG]...",
    .examples =
        "Output comes as it is made; standard input is passed on where it is not a terminal.\n"
        "Exits as the command did: 128+N after signal N, 124 after its time out, 125 where\n"
        "cloche itself failed.\n"
        "\n"
        "Where no daemon listens, root gets one for the time of the command. It keeps snapshots\n"
        "in /var/lib/cloche (or $CLOCHE_STATE_DIR) where no other daemon does, so that only the\n"
        "first run has to boot.\n"
        "\n"
        "  cloche run -- python3 -c 'print(6 * 7)'\n"
        "  cloche run --file analyse.py --file sales.csv -- python3 analyse.py sales.csv\n"
        "  cloche run --collect report.json --file analyse.py -- python3 analyse.py\n"
        "  cloche run --template base --timeout 5 -- sh -c 'yes | head -3'\n",
    .run = run_run,
};
