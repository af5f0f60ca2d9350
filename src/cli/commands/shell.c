/*
 * cloche shell: a terminal in a sandbox. Its other end may outlive us: whoever detaches, or is cut
 * off, comes back with --attach.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/client/client.h"
#include "cli/client/client_websocket.h"
#include "cli/client/playback.h"
#include "cli/commands/commands.h"
#include "cli/common/arguments.h"
#include "cli/common/interrupt.h"
#include "cli/common/places.h"
#include "cli/terminal/detach_key.h"
#include "cli/terminal/raw_terminal.h"
#include "cloche/limits.h"
#include "http/target.h"
#include "json/json_write.h"

#define TYPED_BYTES 4096u
#define RESIZE_MAX  128u

struct shell {
    const char *socket_path;
    const char *cwd;
    const char *user;
    const char *attach;
    const char *id;
    char *const *argv;
    size_t argc;

    struct client_websocket websocket;
    struct detach_key detach;
    uint32_t pid;
    int exit_code; /* -1: it goes on */
    bool is_detached;
};

static int add_parameter(struct buffer *target, const char *name, const char *value)
{
    char before = memchr(buffer_bytes(target), '?', target->size) != NULL ? '&' : '?';

    if (buffer_printf(target, "%c%s=", before, name) != 0)
        return -1;
    return http_escape_append(target, value);
}

static int make_target(const struct shell *s, struct buffer *target)
{
    const char *term = getenv("TERM");
    char number[2][8];
    uint16_t rows, columns;

    raw_terminal_size(&rows, &columns);
    (void)snprintf(number[0], sizeof(number[0]), "%u", rows);
    (void)snprintf(number[1], sizeof(number[1]), "%u", columns);
    if (buffer_append_text(target, "/v1/sandboxes/") != 0 ||
        http_escape_append(target, s->id) != 0 || buffer_append_text(target, "/pty") != 0 ||
        add_parameter(target, "rows", number[0]) != 0 ||
        add_parameter(target, "cols", number[1]) != 0 ||
        (s->attach != NULL && add_parameter(target, "pid", s->attach) != 0) ||
        (s->attach == NULL && term != NULL && term[0] != '\0' &&
         add_parameter(target, "term", term) != 0) ||
        (s->cwd != NULL && add_parameter(target, "cwd", s->cwd) != 0) ||
        (s->user != NULL && add_parameter(target, "user", s->user) != 0))
        return -1;
    for (size_t i = 0; i < s->argc; i++) {
        if (add_parameter(target, "arg", s->argv[i]) != 0)
            return -1;
    }
    return buffer_append(target, "", 1);
}

static int show(void *arg, const uint8_t *data, size_t size, struct error *e)
{
    (void)arg;
    int result = interrupt_write(STDOUT_FILENO, data, size, e);

    return result > 0 ? error_set(e, ERR_INTERNAL, "the terminal has gone") : result;
}

/* A line of ours between the guest's; raw, so that it needs a carriage return. */
static void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void tell(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    fputs("cloche: ", stderr);
    (void)vfprintf(stderr, format, ap);
    fputs("\r\n", stderr);
    va_end(ap);
}

static int take_message(struct shell *s, const cJSON *message, struct error *e)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(message, "type");
    const char *name = cJSON_IsString(type) ? type->valuestring : "";

    if (strcmp(name, "start") == 0) {
        const cJSON *pid = cJSON_GetObjectItemCaseSensitive(message, "pid");
        s->pid = cJSON_IsNumber(pid) && pid->valuedouble > 0 && pid->valuedouble < UINT32_MAX
                     ? (uint32_t)pid->valuedouble
                     : 0;
        tell("process %" PRIu32 " of %s; Enter ~ . detaches and lets it run", s->pid, s->id);
    } else if (strcmp(name, "missed") == 0) {
        tell("what it wrote long ago is not kept any more");
    } else if (strcmp(name, "end") == 0) {
        s->exit_code = playback_exit_code(message, e);
        return s->exit_code < 0 ? -1 : 0;
    } else if (strcmp(name, "error") == 0) {
        return json_error_read(message, e);
    }
    return 0; /* what later versions may add */
}

static int on_text(void *arg, const char *text, size_t size, struct error *e)
{
    JSON_AUTO cJSON *message = NULL;

    if (json_parse_object(text, size, &message, e) != 0)
        return error_wrap(e, "a message of the daemon's");
    return take_message(arg, message, e);
}

static int send_size(struct shell *s, struct error *e)
{
    char text[RESIZE_MAX];
    uint16_t rows, columns;

    raw_terminal_take_news();
    raw_terminal_size(&rows, &columns);
    int size = snprintf(text, sizeof(text), "{\"type\":\"resize\",\"rows\":%u,\"cols\":%u}", rows,
                        columns);
    return client_websocket_send_text(&s->websocket, text, (size_t)size, e);
}

static int send_keys(struct shell *s, struct error *e)
{
    uint8_t typed[TYPED_BYTES], keys[TYPED_BYTES + 1];
    size_t size = 0;
    ssize_t n = read(STDIN_FILENO, typed, sizeof(typed));

    if (n <= 0)
        return error_set(e, ERR_INTERNAL, "the terminal has gone");
    s->is_detached = detach_key_filter(&s->detach, typed, (size_t)n, keys, &size);
    if (size > 0 && client_websocket_send_bytes(&s->websocket, keys, size, e) != 0)
        return -1;
    return s->is_detached ? client_websocket_send_close(&s->websocket, e) : 0;
}

/* Until the command has ended, or we have detached. While the daemon takes nothing no key is
 * read. */
static int converse(struct shell *s, struct error *e)
{
    while (s->exit_code < 0 && !s->is_detached && !s->websocket.is_over) {
        bool is_behind = client_websocket_is_behind(&s->websocket);
        struct pollfd fds[] = {
            {.fd = s->websocket.client->fd, .events = (short)(POLLIN | (is_behind ? POLLOUT : 0))},
            {.fd = raw_terminal_news_fd(), .events = POLLIN},
            {.fd = is_behind ? -1 : STDIN_FILENO, .events = POLLIN},
        };

        if (interrupt_wait(fds, sizeof(fds) / sizeof(fds[0]), -1, e) < 0)
            return -1;
        if (fds[0].revents != 0 && client_websocket_receive(&s->websocket, e) != 0)
            return -1;
        if (fds[1].revents != 0 && send_size(s, e) != 0)
            return -1;
        if (fds[2].revents != 0 && send_keys(s, e) != 0)
            return -1;
    }
    return 0;
}

/* The size may have changed, and the first messages have come, before anybody waited for news. */
static int run_session(struct shell *s, struct error *e)
{
    if (raw_terminal_enter(e) != 0)
        return -1;
    if (send_size(s, e) != 0 || client_websocket_receive(&s->websocket, e) != 0 ||
        converse(s, e) != 0)
        return -1;
    return 0;
}

static int report(const struct shell *s, struct error *e)
{
    if (s->exit_code >= 0)
        return s->exit_code;
    if (s->is_detached) {
        fprintf(stderr, "\ncloche: detached; `cloche shell %s --attach %" PRIu32 "` comes back\n",
                s->id, s->pid);
        return 0;
    }
    (void)error_set(e, ERR_UNREACHABLE, "the connection was lost; the command may go on");
    return error_remedy(e, "`cloche shell %s --attach %" PRIu32 "` comes back to it.", s->id,
                        s->pid);
}

static int open_shell(struct shell *s, struct error *e)
{
    static const struct client_websocket_calls calls = {.on_bytes = show, .on_text = on_text};
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    struct client c;
    int result = -1;

    if (make_target(s, &target) != 0) {
        buffer_fini(&target);
        (void)error_set(e, ERR_USAGE, "the command line is longer than %u bytes",
                        (unsigned)HTTP_TARGET_BYTES_MAX);
        return error_remedy(e, "Put it into a script with `cloche cp`, and run that.");
    }
    if (client_open(&c, s->socket_path, e) == 0) {
        result = client_websocket_open(&s->websocket, &c, (const char *)buffer_bytes(&target),
                                       &calls, s, e);
        if (result == 0)
            result = run_session(s, e);
        raw_terminal_leave();
        client_websocket_close(&s->websocket);
        client_close(&c);
    }
    buffer_fini(&target);
    return result == 0 ? report(s, e) : -1;
}

static int run_shell(const struct command *command, int argc, char **argv, struct error *e)
{
    struct shell s = {.exit_code = -1};
    const struct argument_option options[] = {
        {.name = "attach",
         .value = "PID",
         .text = &s.attach,
         .help = "come back to a terminal that is there"},
        {.name = "cwd", .value = "DIR", .text = &s.cwd, .help = "where to run (the template's)"},
        {.name = "user", .value = "NAME", .text = &s.user, .help = "as whom (root)"},
        {.name = "socket", .value = "S", .text = &s.socket_path, .help = "the daemon's socket"},
        {.name = NULL},
    };
    struct argument_parser p;

    arguments_init(&p, command, options, argc, argv);
    if (arguments_parse(&p, e) != 0)
        return -1;
    if (!p.help && p.next < p.argc)
        s.id = argv[p.next++];
    if (arguments_parse(&p, e) != 0)
        return -1;
    if (p.help)
        return 0;
    if (s.id == NULL)
        return arguments_refuse(command, e, "which sandbox?");
    s.argv = argv + p.next;
    s.argc = (size_t)(p.argc - p.next);
    if (s.attach != NULL && (s.argc > 0 || s.cwd != NULL || s.user != NULL))
        return arguments_refuse(command, e, "--attach takes a terminal as it is");
    s.socket_path = place_socket(s.socket_path);
    if (raw_terminal_check(e) != 0)
        return -1;
    return open_shell(&s, e);
}

const struct command command_shell = {
    .name = "shell",
    .summary = "a terminal in a sandbox",
    .usage = "ID [OPTION]... [-- CMD [ARG]...]",
    .examples =
        "Runs the template's shell, or CMD, on a terminal of its own; keys such as Ctrl-C mean\n"
        "what they mean there. Enter ~ . detaches: the command goes on, and --attach comes back\n"
        "to it with what it wrote meanwhile. Exits as the command did, like `cloche exec`.\n"
        "\n"
        "`cloche create` makes a sandbox, `cloche ps ID` lists the terminals in one.\n"
        "\n"
        "  cloche shell sb_...\n"
        "  cloche shell sb_... --user nobody -- python3\n"
        "  cloche shell sb_... --attach 63\n",
    .run = run_shell,
};
