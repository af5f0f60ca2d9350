/* cloche ps: the sandboxes that are there, or the processes of one. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "cli/client/client.h"
#include "cli/client/target.h"
#include "cli/commands/commands.h"
#include "cli/common/arguments.h"
#include "cli/common/places.h"
#include "cloche/limits.h"
#include "http/target.h"

#define PAGE "/v1/sandboxes?limit=100"

struct ps_arguments {
    const char *socket;
    bool json;
    bool quiet;
    bool head_printed;
};

static const char *text_of(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

    return cJSON_IsString(item) ? item->valuestring : "-";
}

static int number_of(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

    return cJSON_IsNumber(item) ? item->valueint : 0;
}

/* "2 h 5 min" until (or since) a time of the API's; "-" where it is not one. */
static void format_distance(const char *when, bool ahead, char *ret_text, size_t size)
{
    struct tm tm = {0};

    (void)snprintf(ret_text, size, "-");
    if (strptime(when, "%Y-%m-%dT%H:%M:%S", &tm) == NULL)
        return;
    long long now = (long long)(clock_real_ns() / NS_PER_S);
    long long seconds = ahead ? (long long)timegm(&tm) - now : now - (long long)timegm(&tm);
    if (seconds < 0)
        seconds = 0;
    if (seconds < 120)
        (void)snprintf(ret_text, size, "%lld s", seconds);
    else if (seconds < 7200)
        (void)snprintf(ret_text, size, "%lld min", seconds / 60);
    else
        (void)snprintf(ret_text, size, "%lld h %lld min", seconds / 3600, seconds / 60 % 60);
}

/* Labels are a client's free text: no control character of theirs reaches the terminal. */
static void print_plain(const char *text)
{
    for (; *text != '\0'; text++)
        putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
}

static void print_row(const cJSON *sandbox)
{
    const cJSON *labels = cJSON_GetObjectItemCaseSensitive(sandbox, "labels");
    const cJSON *label;
    char age[32], left[32];

    format_distance(text_of(sandbox, "created_at"), false, age, sizeof(age));
    format_distance(text_of(sandbox, "expires_at"), true, left, sizeof(left));
    printf("%-31s %-9s %-12s %5d %8d %-12s %-12s", text_of(sandbox, "id"),
           text_of(sandbox, "state"), text_of(sandbox, "template"), number_of(sandbox, "vcpus"),
           number_of(sandbox, "mem_mib"), age, left);
    cJSON_ArrayForEach (label, labels) {
        if (cJSON_IsString(label)) {
            printf(" ");
            print_plain(label->string);
            printf("=");
            print_plain(label->valuestring);
        }
    }
    printf("\n");
}

static int print_json(const cJSON *object)
{
    char *text = cJSON_PrintUnformatted(object);

    if (text == NULL)
        return -1;
    printf("%s\n", text);
    cJSON_free(text);
    return 0;
}

static int print_page(struct ps_arguments *a, const cJSON *sandboxes)
{
    const cJSON *sandbox;

    if (!a->json && !a->quiet && !a->head_printed)
        printf("%-31s %-9s %-12s %5s %8s %-12s %-12s %s\n", "ID", "STATE", "TEMPLATE", "VCPUS",
               "MEM_MIB", "AGE", "ENDS_IN", "LABELS");
    a->head_printed = true;

    cJSON_ArrayForEach (sandbox, sandboxes) {
        if (a->json) {
            if (print_json(sandbox) != 0)
                return -1;
        } else if (a->quiet) {
            printf("%s\n", text_of(sandbox, "id"));
        } else {
            print_row(sandbox);
        }
    }
    return 0;
}

/* Fetches one page and prints it. `next` says where it starts, and then where the next one does. */
static int take_page(struct ps_arguments *a, char *next, size_t next_size, struct error *e)
{
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    JSON_AUTO cJSON *reply = NULL;
    int result = buffer_append_text(&target, PAGE);

    if (result == 0 && next[0] != '\0')
        result =
            buffer_append_text(&target, "&after=") == 0 ? http_escape_append(&target, next) : -1;
    if (result == 0)
        result = buffer_append(&target, "", 1);
    if (result != 0)
        (void)error_set(e, ERR_INTERNAL, "the request's target is too long");
    else
        result = client_call(place_socket(a->socket), "GET", (const char *)buffer_bytes(&target),
                             &reply, e);
    buffer_fini(&target);
    if (result != 0)
        return -1;
    if (print_page(a, cJSON_GetObjectItemCaseSensitive(reply, "sandboxes")) != 0)
        return error_set(e, ERR_INTERNAL, "out of memory");
    const cJSON *after = cJSON_GetObjectItemCaseSensitive(reply, "next");
    (void)snprintf(next, next_size, "%s", cJSON_IsString(after) ? after->valuestring : "");
    return 0;
}

/* What kind of process: in the background are also terminals, and the shells of sessions. */
static const char *kind_of(const cJSON *process)
{
    if (cJSON_GetObjectItemCaseSensitive(process, "session") != NULL)
        return "session";
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(process, "terminal")))
        return "terminal";
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(process, "background")) ? "background"
                                                                                 : "foreground";
}

static void print_process(const cJSON *process)
{
    char age[32];

    format_distance(text_of(process, "started_at"), false, age, sizeof(age));
    printf("%-7d %-9s %-10s %-12s ", number_of(process, "pid"), text_of(process, "state"),
           kind_of(process), age);
    print_plain(text_of(process, "command"));
    if (cJSON_GetObjectItemCaseSensitive(process, "session") != NULL) {
        printf(" (");
        print_plain(text_of(process, "session"));
        printf(")");
    }
    printf("\n");
}

static int list_processes(const struct ps_arguments *a, const char *id, struct error *e)
{
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    JSON_AUTO cJSON *reply = NULL;
    const cJSON *process;
    int result = target_make(&target, id, NULL, "/processes", e);

    if (result == 0)
        result = client_call(place_socket(a->socket), "GET", (const char *)buffer_bytes(&target),
                             &reply, e);
    buffer_fini(&target);
    if (result != 0)
        return -1;
    if (!a->json && !a->quiet)
        printf("%-7s %-9s %-10s %-12s %s\n", "PID", "STATE", "KIND", "AGE", "COMMAND");
    cJSON_ArrayForEach (process, cJSON_GetObjectItemCaseSensitive(reply, "processes")) {
        if (a->json && print_json(process) != 0)
            return error_set(e, ERR_INTERNAL, "out of memory");
        if (a->quiet)
            printf("%d\n", number_of(process, "pid"));
        else if (!a->json)
            print_process(process);
    }
    return 0;
}

static int run_ps(const struct command *command, int argc, char **argv, struct error *e)
{
    struct ps_arguments a = {0};
    const struct argument_option options[] = {
        {.name = "json", .flag = &a.json, .help = "one JSON object a line, all fields"},
        {.name = "quiet", .flag = &a.quiet, .help = "only the ids or numbers"},
        {.name = "socket", .value = "S", .text = &a.socket, .help = "the daemon's socket"},
        {.name = NULL},
    };
    struct argument_parser p;
    char next[SANDBOX_ID_BYTES_MAX] = "";
    const char *id = NULL;
    size_t count;
    unsigned pages = 0;

    arguments_init(&p, command, options, argc, argv);
    if (arguments_parse_all(&p, &id, 1, &count, e) != 0)
        return -1;
    if (p.help)
        return 0;
    if (count == 1)
        return list_processes(&a, id, e);
    do {
        if (take_page(&a, next, sizeof(next), e) != 0)
            return -1;
        pages++;
    } while (next[0] != '\0' && pages <= SANDBOX_COUNT_MAX);
    return 0;
}

const struct command command_ps = {
    .name = "ps",
    .summary = "list the sandboxes, or the processes in one",
    .usage = "[ID] [OPTION]...",
    .examples = "  cloche ps\n"
                "  cloche ps sb_...\n"
                "  cloche ps --json | jq .id\n",
    .run = run_ps,
};
