/* cloche create: a sandbox for the commands that take an ID. */
#include <stdio.h>

#include "cli/client/client.h"
#include "cli/client/request.h"
#include "cli/commands/commands.h"
#include "cli/common/arguments.h"
#include "cli/common/places.h"
#include "cli/common/progress.h"
#include "cloche/limits.h"
#include "json/json.h"
#include "json/json_write.h"

#define BODY_BYTES_MAX (4 * KIB)

static void on_wait(void *context, unsigned seconds)
{
    progress_tick(context, seconds);
}

/* Sends the body; the reply's tree in *ret_tree. */
static int send_create(const char *socket_path, const struct buffer *body, cJSON **ret_tree,
                       struct error *e)
{
    const struct client_request request = {.method = "POST",
                                           .target = "/v1/sandboxes",
                                           .content_type = "application/json",
                                           .body = buffer_bytes(body),
                                           .size = body->size};
    struct progress progress = {.what = "starting a sandbox (the first of its kind boots)"};
    struct client c = {.fd = -1};
    int result = client_open(&c, socket_path, e);

    if (result == 0) {
        c.on_wait = on_wait;
        c.on_wait_context = &progress;
        result = client_send(&c, &request, e);
        progress_end(&progress);
    }
    if (result == 0)
        result = client_read_json(&c, ret_tree, e);
    client_close(&c);
    return result;
}

static int create(const char *socket_path, const struct request_shape *shape, struct error *e)
{
    struct buffer body = BUFFER_INIT(BODY_BYTES_MAX);
    JSON_AUTO cJSON *tree = NULL;
    struct json_writer w;

    json_writer_init(&w, &body);
    json_begin_object(&w, NULL);
    request_put_shape(&w, shape);
    json_end_object(&w);
    int result = w.failed ? error_set(e, ERR_USAGE, "--template is too long")
                          : send_create(socket_path, &body, &tree, e);
    buffer_fini(&body);
    if (result != 0)
        return -1;
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(tree, "id");
    if (!cJSON_IsString(id))
        return error_set(e, ERR_UNREACHABLE, "the reply names no sandbox");
    printf("%s\n", id->valuestring);
    return 0;
}

static int run_create(const struct command *command, int argc, char **argv, struct error *e)
{
    struct request_shape shape = {0};
    const char *socket_option = NULL;
    const struct argument_option options[] = {
        {.name = "template",
         .value = "NAME",
         .text = &shape.template,
         .help = "what to run in (`cloche info` lists them)"},
        {.name = "vcpus",
         .value = "N",
         .number = &shape.vcpus,
         .number_min = 1,
         .number_max = SANDBOX_VCPUS_MAX,
         .help = "virtual CPUs"},
        {.name = "mem",
         .value = "MIB",
         .number = &shape.mem_mib,
         .number_min = SANDBOX_MEM_MIB_MIN,
         .number_max = SANDBOX_MEM_MIB_MAX,
         .help = "memory"},
        {.name = "disk",
         .value = "MIB",
         .number = &shape.disk_mib,
         .number_min = SANDBOX_DISK_MIB_MIN,
         .number_max = SANDBOX_DISK_MIB_MAX,
         .help = "scratch disk"},
        {.name = "timeout",
         .value = "S",
         .number = &shape.timeout_s,
         .number_min = 1,
         .number_max = SANDBOX_TIMEOUT_S_MAX,
         .help = "end it after so many seconds, whatever it does (300)"},
        {.name = "socket", .value = "S", .text = &socket_option, .help = "the daemon's socket"},
        {.name = NULL},
    };
    struct argument_parser p;
    size_t count;

    arguments_init(&p, command, options, argc, argv);
    if (arguments_parse_all(&p, NULL, 0, &count, e) != 0)
        return -1;
    return p.help ? 0 : create(place_socket(socket_option), &shape, e);
}

const struct command command_create = {
    .name = "create",
    .summary = "make a sandbox that stays, and print its ID",
    .usage = "[OPTION]...",
    .examples = "It stays until `cloche rm` or its time out. Needs a daemon (`cloche serve`).\n"
                "\n"
                "  id=$(cloche create --timeout 3600)\n"
                "  cloche cp data.csv $id:/workspace/\n"
                "  cloche exec $id -- wc -l data.csv\n"
                "  cloche rm $id\n",
    .run = run_create,
};
