/* cloche info: what the daemon says about itself and its host. */
#include <stdio.h>

#include "cli/client/client.h"
#include "cli/commands/commands.h"
#include "cli/common/arguments.h"
#include "cli/common/places.h"

#define NAME_BYTES_MAX 256u

static void print_value(const char *name, const cJSON *value)
{
    if (cJSON_IsString(value)) {
        printf("%-28s %s\n", name, value->valuestring);
    } else if (cJSON_IsNumber(value)) {
        printf("%-28s %.15g\n", name, value->valuedouble);
    } else {
        char *text = cJSON_PrintUnformatted(value);
        printf("%-28s %s\n", name, text != NULL ? text : "?");
        cJSON_free(text);
    }
}

/* One line for the members of an array's element: "name: python, image_bytes: 7". */
static void print_element(const char *name, const cJSON *element)
{
    const char *between = "";
    const cJSON *member;

    if (!cJSON_IsObject(element)) {
        print_value(name, element);
        return;
    }
    printf("%-28s ", name);
    cJSON_ArrayForEach (member, element) {
        printf("%s%s ", between, member->string);
        if (cJSON_IsString(member))
            printf("%s", member->valuestring);
        else
            printf("%.15g", member->valuedouble);
        between = ", ";
    }
    printf("\n");
}

/* Members of an object, one level deep, as "object.member"; arrays a line for each element. */
static void print_object(const char *prefix, const cJSON *object, unsigned levels)
{
    const cJSON *member, *element;
    char name[NAME_BYTES_MAX];

    cJSON_ArrayForEach (member, object) {
        (void)snprintf(name, sizeof(name), "%s%s%s", prefix, prefix[0] != '\0' ? "." : "",
                       member->string);
        if (cJSON_IsObject(member) && levels > 0) {
            print_object(name, member, levels - 1);
        } else if (cJSON_IsArray(member)) {
            cJSON_ArrayForEach (element, member)
                print_element(name, element);
        } else {
            print_value(name, member);
        }
    }
}

static int run_info(const struct command *command, int argc, char **argv, struct error *e)
{
    const char *socket_option = NULL;
    bool json = false;
    const struct argument_option options[] = {
        {.name = "json", .flag = &json, .help = "as the API says it"},
        {.name = "socket", .value = "S", .text = &socket_option, .help = "the daemon's socket"},
        {.name = NULL},
    };
    JSON_AUTO cJSON *reply = NULL;
    struct argument_parser p;
    size_t count;

    arguments_init(&p, command, options, argc, argv);
    if (arguments_parse_all(&p, NULL, 0, &count, e) != 0)
        return -1;
    if (p.help)
        return 0;
    if (client_call(place_socket(socket_option), "GET", "/v1/info", &reply, e) != 0)
        return -1;
    if (!json) {
        printf("%-28s %s\n", "socket", place_socket(socket_option));
        print_object("", reply, 1);
        return 0;
    }
    char *text = cJSON_Print(reply);
    if (text == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    printf("%s\n", text);
    cJSON_free(text);
    return 0;
}

const struct command command_info = {
    .name = "info",
    .summary = "facts about the daemon, its templates and its host",
    .usage = "[OPTION]...",
    .examples = "  cloche info\n"
                "  cloche info --json | jq .limits\n",
    .run = run_info,
};
