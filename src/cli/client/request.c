#include "cli/client/request.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/utf8.h"
#include "cli/common/interrupt.h"
#include "cli/common/progress.h"
#include "cloche/limits.h"

#define PIECE_BYTES (64 * KIB)

int request_too_large(struct error *e, const char *what)
{
    (void)error_set(e, ERR_TOO_LARGE, "%s: more than one request can carry (%llu MiB as JSON)",
                    what, (unsigned long long)(HTTP_JSON_BODY_MAX / MIB));
    return error_remedy(e, "`cloche cp FILE ID:/path` copies files of any size into a sandbox; let "
                           "the command read that.");
}

void request_put_shape(struct json_writer *w, const struct request_shape *shape)
{
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {{"vcpus", shape->vcpus},
                   {"mem_mib", shape->mem_mib},
                   {"disk_mib", shape->disk_mib},
                   {"timeout_s", shape->timeout_s}};

    if (shape->template != NULL)
        json_put_text(w, "template", shape->template);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (numbers[i].value > 0)
            json_put_int(w, numbers[i].name, (int64_t)numbers[i].value);
    }
}

/* Waits until standard input has something to say, or has ended. */
static int wait_for_stdin(struct progress *progress, uint64_t start_ns, struct error *e)
{
    for (;;) {
        struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
        int n = interrupt_wait(&p, 1, 1000, e);
        if (n != 0)
            return n < 0 ? -1 : 0;
        progress_tick(progress, (unsigned)((clock_mono_ns() - start_ns) / NS_PER_S));
    }
}

int request_read_stdin(struct buffer *ret_input, struct error *e)
{
    struct progress progress = {.what =
                                    "reading standard input (</dev/null gives the command none)"};
    uint64_t start_ns = clock_mono_ns();
    struct stat st;
    ssize_t n;

    if (isatty(STDIN_FILENO) || fstat(STDIN_FILENO, &st) != 0)
        return 0; /* a closed stdin has nothing to say */
    do {
        if (wait_for_stdin(&progress, start_ns, e) != 0)
            return -1;
        uint8_t *to = buffer_reserve(ret_input, PIECE_BYTES);
        if (to == NULL)
            return request_too_large(e, "standard input");
        n = read(STDIN_FILENO, to, PIECE_BYTES);
        if (n > 0)
            buffer_commit(ret_input, (size_t)n);
    } while (n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN)));
    progress_end(&progress);
    return n == 0 ? 0 : error_errno(e, errno, "standard input");
}

/* JSON carries text: bytes that are not text would arrive as something else. */
static int put_text(struct json_writer *w, const char *key, const char *text, const char *what,
                    struct error *e)
{
    if (!utf8_valid(text, strlen(text))) {
        (void)error_set(e, ERR_USAGE, "%s is not UTF-8", what);
        return error_remedy(e, "Put bytes that are not text into a file (--file, `cloche cp`).");
    }
    json_put_text(w, key, text);
    return 0;
}

static size_t name_size(const char *item)
{
    return strcspn(item, "=");
}

/* Whether a later item sets the same variable: the last one wins. */
static bool is_overridden(const struct argument_items *env, size_t index)
{
    const char *item = env->items[index];
    size_t size = name_size(item);

    for (size_t i = index + 1; i < env->count; i++) {
        if (name_size(env->items[i]) == size && memcmp(env->items[i], item, size) == 0)
            return true;
    }
    return false;
}

/* "K=V", or "K" for our own value of it. */
static int put_variable(struct json_writer *w, const char *item, struct error *e)
{
    size_t size = name_size(item);
    const char *equals = item[size] == '=' ? item + size : NULL;
    char name[256];

    if (size == 0 || size >= sizeof(name))
        return error_set(e, ERR_USAGE, "--env %.100s: not NAME=VALUE", item);
    memcpy(name, item, size);
    name[size] = '\0';
    const char *value = equals != NULL ? equals + 1 : getenv(name);
    if (value == NULL) {
        (void)error_set(e, ERR_USAGE, "--env %s: there is no such variable here", name);
        return error_remedy(e, "Give it a value: --env %s=VALUE.", name);
    }
    if (!utf8_valid(name, size))
        return error_set(e, ERR_USAGE, "--env: a name is not UTF-8");
    return put_text(w, name, value, item, e);
}

static int put_argv(struct json_writer *w, const struct request_command *command, struct error *e)
{
    json_begin_array(w, "argv");
    for (size_t i = 0; i < command->argc; i++) {
        if (put_text(w, NULL, command->argv[i], "an argument of the command", e) != 0)
            return -1;
    }
    json_end_array(w);
    return 0;
}

int request_put_command(struct json_writer *w, const struct request_command *command,
                        const struct buffer *input, struct error *e)
{
    if (command->is_shell) {
        if (put_text(w, "shell", command->argv[0], "the command", e) != 0)
            return -1;
    } else if (put_argv(w, command, e) != 0) {
        return -1;
    }
    if (command->env->count > 0) {
        json_begin_object(w, "env");
        for (size_t i = 0; i < command->env->count; i++) {
            if (!is_overridden(command->env, i) && put_variable(w, command->env->items[i], e) != 0)
                return -1;
        }
        json_end_object(w);
    }
    if (command->cwd != NULL && put_text(w, "cwd", command->cwd, "--cwd", e) != 0)
        return -1;
    if (command->user != NULL && put_text(w, "user", command->user, "--user", e) != 0)
        return -1;
    if (command->umask != NULL && put_text(w, "umask", command->umask, "--umask", e) != 0)
        return -1;
    if (command->timeout_ms > 0)
        json_put_int(w, "timeout_ms", (int64_t)command->timeout_ms);
    if (input != NULL && input->size > 0)
        json_put_bytes(w, "stdin", buffer_bytes(input), input->size);
    return w->failed ? request_too_large(e, "the command with its input") : 0;
}

/* Reads a whole file, which may be a pipe; no more than a request can hold. */
static int read_file(const char *path, struct buffer *ret_content, struct error *e)
{
    FD_AUTO int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(e, errno, "%s", path);
    for (;;) {
        uint8_t *to = buffer_reserve(ret_content, PIECE_BYTES);
        if (to == NULL)
            return request_too_large(e, path);
        ssize_t n = fd_read_full(fd, to, PIECE_BYTES);
        if (n < 0)
            return error_errno(e, errno, "%s", path);
        buffer_commit(ret_content, (size_t)n);
        if (n == 0)
            return 0;
    }
}

int request_put_file(struct json_writer *w, const char *local, const char *guest, struct error *e)
{
    struct buffer content = BUFFER_INIT(HTTP_JSON_BODY_MAX);
    int result = read_file(local, &content, e);

    json_begin_object(w, NULL);
    if (result == 0)
        result = put_text(w, "path", guest, "a file's path", e);
    if (result == 0) {
        json_put_bytes(w, "content", buffer_bytes(&content), content.size);
        json_end_object(w);
        if (w->failed)
            result = request_too_large(e, local);
    }
    buffer_fini(&content);
    return result;
}
