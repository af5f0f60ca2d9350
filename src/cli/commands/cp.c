/*
 * cloche cp: a file or a tree (cp_tree.h) into a sandbox or out of it, streamed, so of any size. A
 * file that arrives here is written beside its place and renamed, so that a copy cut short leaves
 * the old one alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/client/client.h"
#include "cli/commands/commands.h"
#include "cli/commands/cp_place.h"
#include "cli/commands/cp_tree.h"
#include "cli/common/arguments.h"
#include "cli/common/interrupt.h"
#include "cli/common/places.h"
#include "cloche/limits.h"
#include "json/json.h"

#define PIECE_BYTES (64 * KIB)
#define TEMP_SUFFIX ".cloche-XXXXXX"

/* The name that a copy gets in a directory; "" for a directory that is "here" ("." or "x/.."),
 * whose content is copied then. Slashes at the path's end do not count. */
static void take_name(const char *path, char ret_name[CHANNEL_PATH_MAX])
{
    size_t end = strlen(path);

    while (end > 0 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    memcpy(ret_name, path + begin, end - begin);
    ret_name[end - begin] = '\0';
    if (strcmp(ret_name, ".") == 0 || strcmp(ret_name, "..") == 0)
        ret_name[0] = '\0';
}

/* A destination that is a directory gets the source's name. */
static int complete_destination(const struct cp_place *from, bool is_tree, struct cp_place *to,
                                struct error *e)
{
    size_t used = strlen(to->path);
    bool slash = to->path[used - 1] == '/';
    char name[CHANNEL_PATH_MAX];

    if (!slash && !cp_place_is_directory(to))
        return 0;
    take_name(from->path, name);
    if (is_tree && name[0] == '\0')
        return 0;
    if (strcmp(name, "-") == 0 || name[0] == '\0')
        return error_set(e, ERR_USAGE, "%s: a name is needed for what is copied there", to->path);
    int n = snprintf(to->path + used, sizeof(to->path) - used, "%s%s", slash ? "" : "/", name);
    if (n < 0 || (size_t)n >= sizeof(to->path) - used)
        return error_set(e, ERR_USAGE, "the destination's path is too long");
    return 0;
}

/* Is it a directory that is to be copied? What goes to a stream is left to the daemon to judge. */
static int find_tree(const char *socket_path, const struct cp_place *from,
                     const struct cp_place *to, bool *ret_is_tree, struct error *e)
{
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    JSON_AUTO cJSON *reply = NULL;
    int result = 0;

    *ret_is_tree = cp_place_is_directory(from);
    if (from->id[0] == '\0' || strcmp(to->path, "-") == 0)
        return 0;
    result = cp_place_target(from, "/files/stat", "&follow=true", &target, e);
    if (result == 0)
        result = client_call(socket_path, "GET", (const char *)buffer_bytes(&target), &reply, e);
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(reply, "type");
    *ret_is_tree = cJSON_IsString(type) && strcmp(type->valuestring, "directory") == 0;
    buffer_fini(&target);
    return result;
}

static int put(const char *socket_path, const struct cp_place *from, const struct cp_place *to,
               struct error *e)
{
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    bool is_stdin = strcmp(from->path, "-") == 0;
    FD_AUTO int opened = is_stdin ? -1 : open(from->path, O_RDONLY | O_CLOEXEC);
    struct client c;
    struct stat st;
    char query[32];
    int fd = is_stdin ? STDIN_FILENO : opened;
    int result = -1;

    if (fd < 0 || fstat(fd, &st) != 0)
        return error_errno(e, errno, "%s", from->path);
    bool regular = S_ISREG(st.st_mode);
    (void)snprintf(query, sizeof(query), "&mode=%03o",
                   regular && !is_stdin ? (unsigned)(st.st_mode & 0777) : 0644u);
    if (cp_place_target(to, "/files", query, &target, e) == 0 &&
        client_open(&c, socket_path, e) == 0) {
        const struct client_request request = {.method = "PUT",
                                               .target = (const char *)buffer_bytes(&target),
                                               .content_type = "application/octet-stream",
                                               .has_file = true,
                                               .file_fd = fd,
                                               .size = regular && !is_stdin ? (uint64_t)st.st_size
                                                                            : UINT64_MAX};
        result = client_send(&c, &request, e);
        if (result == 0)
            result = client_finish(&c, e);
        client_close(&c);
    }
    buffer_fini(&target);
    return result;
}

/* Moves the reply's body to `fd`. */
static int drain(struct client *c, int fd, const char *name, struct error *e)
{
    static char piece[PIECE_BYTES];

    for (;;) {
        ssize_t n = client_read(c, piece, sizeof(piece), e);
        if (n <= 0)
            return (int)n;
        int result = interrupt_write(fd, piece, (size_t)n, e);
        if (result < 0)
            return error_wrap(e, "%s", name);
        if (result > 0)
            return error_set(e, ERR_UNREACHABLE, "nobody reads %s any more", name);
    }
}

static int drain_to_file(struct client *c, const char *path, struct error *e)
{
    char temp[CHANNEL_PATH_MAX + sizeof(TEMP_SUFFIX)];
    mode_t mask = umask(0);

    (void)umask(mask);
    (void)snprintf(temp, sizeof(temp), "%s" TEMP_SUFFIX, path);
    FD_AUTO int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return error_errno(e, errno, "%s", path);
    int result = drain(c, fd, path, e);
    if (result == 0 && (fchmod(fd, 0666 & ~mask) != 0 || rename(temp, path) != 0))
        result = error_errno(e, errno, "%s", path);
    if (result != 0)
        (void)unlink(temp);
    return result;
}

/* Devices, pipes and the like are written to; everything else is replaced. */
static int receive_file(struct client *c, const char *path, struct error *e)
{
    struct stat st;

    if (strcmp(path, "-") == 0)
        return drain(c, STDOUT_FILENO, "standard output", e);
    if (stat(path, &st) != 0 || S_ISREG(st.st_mode))
        return drain_to_file(c, path, e);
    FD_AUTO int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(e, errno, "%s", path);
    return drain(c, fd, path, e);
}

static int get(const char *socket_path, const struct cp_place *from, const struct cp_place *to,
               struct error *e)
{
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    struct client c;
    int result = -1;

    if (cp_place_target(from, "/files", "", &target, e) == 0 &&
        client_open(&c, socket_path, e) == 0) {
        const struct client_request request = {.method = "GET",
                                               .target = (const char *)buffer_bytes(&target),
                                               .accept = "application/octet-stream"};
        result = client_send(&c, &request, e);
        if (result == 0)
            result = receive_file(&c, to->path, e);
        client_close(&c);
    }
    buffer_fini(&target);
    return result;
}

static int copy(const char *socket_path, const struct cp_place *from, struct cp_place *to,
                struct error *e)
{
    bool is_in = to->id[0] != '\0';
    bool is_tree = false;

    if (find_tree(socket_path, from, to, &is_tree, e) != 0 ||
        complete_destination(from, is_tree, to, e) != 0)
        return -1;
    if (is_tree)
        return is_in ? cp_put_tree(socket_path, from, to, e)
                     : cp_get_tree(socket_path, from, to, e);
    return is_in ? put(socket_path, from, to, e) : get(socket_path, from, to, e);
}

static int run_cp(const struct command *command, int argc, char **argv, struct error *e)
{
    const char *socket_option = NULL;
    const struct argument_option options[] = {
        {.name = "socket", .value = "S", .text = &socket_option, .help = "the daemon's socket"},
        {.name = NULL},
    };
    static struct cp_place from, to;
    struct argument_parser p;
    const char *paths[2];
    size_t count;

    arguments_init(&p, command, options, argc, argv);
    if (arguments_parse_all(&p, paths, 2, &count, e) != 0)
        return -1;
    if (p.help)
        return 0;
    if (count != 2)
        return arguments_refuse(command, e, "from where to where?");
    if (cp_place_parse(command, paths[0], &from, e) != 0 ||
        cp_place_parse(command, paths[1], &to, e) != 0)
        return -1;
    if ((from.id[0] != '\0') == (to.id[0] != '\0'))
        return arguments_refuse(command, e,
                                "one of the two places is in a sandbox, as in ID:/path");
    return copy(place_socket(socket_option), &from, &to, e);
}

const struct command command_cp = {
    .name = "cp",
    .summary = "copy a file or a directory into a sandbox or out of it",
    .usage = "SRC DST [OPTION]...",
    .examples = "One of SRC and DST is ID:/path; `-` is standard input or output. A DST that is a\n"
                "directory here, or that ends in a slash, keeps the source's name; else DST is\n"
                "the copy's name. Of a directory all that is in it comes along, and is added to\n"
                "what DST has already; `DIR/.` copies the content alone. Owners are not kept;\n"
                "fifos, sockets and devices are left out.\n"
                "\n"
                "  cloche cp data.csv sb_...:/workspace/\n"
                "  cloche cp sb_...:/workspace/report.json .\n"
                "  cloche cp sb_...:/workspace/log.txt - | tail\n"
                "  cloche cp src sb_...:/workspace/           makes /workspace/src\n"
                "  cloche cp sb_...:/workspace/out results    makes results, or results/out\n",
    .run = run_cp,
};
