#include "guest/exec/command_start.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "guest/channel/service.h"
#include "guest/exec/accounts.h"
#include "guest/exec/spawn.h"
#include "guest/exec/terminal.h"

#define SEARCH_PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define ACCOUNTS_BYTES_MAX  (1 * MIB)
#define WARM_BYTES          8192u
#define FLAGS_KNOWN         ((uint32_t)(CHANNEL_EXEC_STDIN | CHANNEL_EXEC_PTY))

/*
 * The request in the form that execve(2) wants. One set is enough: the process has been started
 * when command_start returns, and strings cannot need more than the request has bytes, as the NUL
 * at the end of each takes less than its length in front did.
 */
static struct {
    uint32_t flags;
    uint16_t rows;
    uint16_t columns;
    uint64_t limits[CHANNEL_LIMIT_COUNT + 1]; /* by kind; 0: none */
    const char *user;
    const char *cwd;
    char *argv[CHANNEL_ARGS_MAX + 1];
    char *envp[CHANNEL_ARGS_MAX + 1];
    char strings[CHANNEL_OPEN_MAX];
    size_t strings_used;
} request;

static struct spawn_plan plan;

void command_warm_up(void)
{
    memset(request.strings, 0, WARM_BYTES);
    memset(request.argv, 0, WARM_BYTES / 2);
    memset(request.envp, 0, WARM_BYTES / 2);
    memset(&plan, 0, sizeof(plan));
}

static char *copy_string(struct wire_reader *r, size_t size_max)
{
    size_t size = 0;
    const char *bytes = wire_get_string(r, size_max, &size);

    if (bytes == NULL || size >= sizeof(request.strings) - request.strings_used) {
        r->bad = true;
        return NULL;
    }
    char *copy = request.strings + request.strings_used;
    memcpy(copy, bytes, size);
    copy[size] = '\0';
    request.strings_used += size + 1;
    return copy;
}

static uint32_t copy_list(struct wire_reader *r, char **list)
{
    uint32_t count = wire_get_u32(r);

    if (count > CHANNEL_ARGS_MAX)
        r->bad = true;
    for (uint32_t i = 0; i < count && !r->bad; i++)
        list[i] = copy_string(r, CHANNEL_OPEN_MAX);
    list[r->bad ? 0 : count] = NULL;
    return count;
}

static void read_limits(struct wire_reader *r)
{
    uint32_t count = wire_get_u32(r);

    memset(request.limits, 0, sizeof(request.limits));
    if (count > CHANNEL_LIMIT_COUNT)
        r->bad = true;
    for (uint32_t i = 0; i < count && !r->bad; i++) {
        uint32_t kind = wire_get_u32(r);
        uint64_t value = wire_get_u64(r);

        if (kind < 1 || kind > CHANNEL_LIMIT_COUNT || value == 0)
            r->bad = true;
        else
            request.limits[kind] = value;
    }
}

static int read_request(struct wire_reader *r)
{
    request.strings_used = 0;
    request.flags = wire_get_u32(r);
    request.rows = wire_get_u16(r);
    request.columns = wire_get_u16(r);
    plan.umask = wire_get_u32(r);
    request.user = copy_string(r, ACCOUNT_NAME_BYTES - 1);
    request.cwd = copy_string(r, CHANNEL_PATH_MAX - 1);
    read_limits(r);
    uint32_t argc = copy_list(r, request.argv);
    (void)copy_list(r, request.envp);
    if (r->bad || r->left != 0 || argc == 0 || request.argv[0][0] == '\0' ||
        request.cwd[0] != '/' || (plan.umask > 0777 && plan.umask != CHANNEL_UMASK_DEFAULT) ||
        (request.flags & ~FLAGS_KNOWN) != 0)
        return -1;
    return 0;
}

static const char *search_path(void)
{
    for (char *const *entry = request.envp; *entry != NULL; entry++) {
        if (strncmp(*entry, "PATH=", 5) == 0)
            return *entry + 5;
    }
    return SEARCH_PATH_DEFAULT;
}

/* A whole small file; the caller frees. NULL with errno where it cannot be read or is too large. */
static char *read_accounts_file(const char *path, size_t *ret_size)
{
    FD_AUTO int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *text = fd < 0 ? NULL : malloc(ACCOUNTS_BYTES_MAX);

    if (text == NULL)
        return NULL;
    ssize_t n = fd_read_full(fd, text, ACCOUNTS_BYTES_MAX);
    if (n < 0 || (size_t)n == ACCOUNTS_BYTES_MAX) {
        free(text);
        errno = n < 0 ? errno : EFBIG;
        return NULL;
    }
    *ret_size = (size_t)n;
    return text;
}

/* Fills the plan's user and groups. Returns 0 or errno; a guest without /etc/group is fine. */
static int find_user(void)
{
    struct account account;
    size_t size = 0;
    char *text = read_accounts_file("/etc/passwd", &size);

    if (text == NULL && errno != ENOENT)
        return errno;
    bool found = accounts_find(text, size, request.user, &account);
    free(text);
    if (!found)
        return EINVAL;
    size = 0;
    text = read_accounts_file("/etc/group", &size);
    plan.group_count = accounts_groups(text, size, &account, plan.groups, SPAWN_GROUPS_MAX);
    free(text);
    plan.uid = account.uid;
    plan.gid = account.gid;
    plan.change_user = true;
    return 0;
}

/* A pipe of which we keep one end, non-blocking, and the child gets the other. */
static int make_pipe(int *ret_ours, int *ret_childs, bool we_read)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -1;
    *ret_ours = fds[we_read ? 0 : 1];
    *ret_childs = fds[we_read ? 1 : 0];
    return fcntl(*ret_ours, F_SETFL, O_NONBLOCK);
}

/* Two descriptors of the master, so that input and output are each watched, and closed, alone. */
static int make_terminal(struct service *v, struct stream *s, int childs_fds[3])
{
    struct command *c = &s->command;
    uid_t owner = plan.change_user ? plan.uid : geteuid();

    if (terminal_open(owner, request.rows, request.columns, &c->output_fds[0], &childs_fds[0]) < 0)
        return -1;
    childs_fds[1] = childs_fds[2] = childs_fds[0];
    if (c->takes_stdin)
        c->stdin_fd = fcntl(c->output_fds[0], F_DUPFD_CLOEXEC, 0);
    if (c->takes_stdin && c->stdin_fd < 0)
        return -1;
    return service_watch(v, s->id, SERVICE_TAG_STDOUT, c->output_fds[0], EPOLLIN | EPOLLET);
}

static int make_stdio(struct service *v, struct stream *s, int childs_fds[3])
{
    static const enum service_tag tags[] = {SERVICE_TAG_STDOUT, SERVICE_TAG_STDERR};
    struct command *c = &s->command;

    if (c->is_terminal)
        return make_terminal(v, s, childs_fds);
    if (c->takes_stdin && make_pipe(&c->stdin_fd, &childs_fds[0], false) < 0)
        return -1;
    for (unsigned i = 0; i < COMMAND_OUTPUTS; i++) {
        if (make_pipe(&c->output_fds[i], &childs_fds[1 + i], true) < 0 ||
            service_watch(v, s->id, tags[i], c->output_fds[i], EPOLLIN | EPOLLET) < 0)
            return -1;
    }
    return 0;
}

/* The limits that the kernel keeps for each process. */
static void plan_rlimits(void)
{
    static const struct {
        enum channel_limit_kind kind;
        int resource;
    } table[] = {{CHANNEL_LIMIT_CPU, RLIMIT_CPU},
                 {CHANNEL_LIMIT_FILE, RLIMIT_FSIZE},
                 {CHANNEL_LIMIT_OPEN, RLIMIT_NOFILE}};

    plan.rlimit_count = 0;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        uint64_t value = request.limits[table[i].kind];

        if (value > 0)
            plan.rlimits[plan.rlimit_count++] =
                (struct spawn_rlimit){.resource = table[i].resource, .value = value};
    }
}

/* Into a cgroup of its own where there are any. One that was used before may have been changed by
 * the tenant so that nothing can be born in it: then a fresh one is tried. */
static pid_t spawn_in_group(struct service *v, struct command *c)
{
    uint64_t memory_bytes = request.limits[CHANNEL_LIMIT_MEMORY];
    uint64_t processes = request.limits[CHANNEL_LIMIT_PROCESSES];

    plan.cgroup_fd = -1;
    if (!execgroups_available(&v->groups)) {
        plan.step = SPAWN_STEP_LIMIT;
        plan.error = ENOTSUP;
        return memory_bytes > 0 || processes > 0 ? -1 : spawn_process(&plan);
    }
    for (int attempt = 0;; attempt++) {
        if (execgroups_take(&v->groups, attempt > 0, &c->group) < 0) {
            plan.step = SPAWN_STEP_CLONE;
            plan.error = errno;
            return -1;
        }
        if (execgroup_limit(&c->group, memory_bytes, processes) < 0) {
            plan.step = SPAWN_STEP_LIMIT;
            plan.error = errno;
            execgroups_drop(&v->groups, &c->group);
            return -1;
        }
        plan.cgroup_fd = c->group.dir_fd;
        pid_t pid = spawn_process(&plan);
        if (pid > 0) {
            c->has_group = true;
            return pid;
        }
        if (plan.step != SPAWN_STEP_CLONE) {
            execgroups_put(&v->groups, &c->group);
            return -1;
        }
        execgroups_drop(&v->groups, &c->group);
        if (attempt > 0)
            return -1;
    }
}

static void fail_spawn(struct service *v, struct stream *s)
{
    const char *why = strerror(plan.error);

    switch (plan.step) {
    case SPAWN_STEP_CLONE:
        stream_fail(v, s, plan.error, "a new process: %s", why);
        return;
    case SPAWN_STEP_STDIO:
        stream_fail(v, s, plan.error, "stdin, stdout and stderr: %s", why);
        return;
    case SPAWN_STEP_TERMINAL:
        stream_fail(v, s, plan.error, "the controlling terminal: %s", why);
        return;
    case SPAWN_STEP_USER:
        stream_fail(v, s, plan.error, "user %s: %s", request.user, why);
        return;
    case SPAWN_STEP_CWD:
        stream_fail(v, s, plan.error, "cwd %s: %s", request.cwd, why);
        return;
    case SPAWN_STEP_LIMIT:
        stream_fail(v, s, plan.error, "limits: %s", why);
        return;
    case SPAWN_STEP_EXEC:
        break;
    }
    if (plan.error == ENOENT && strchr(request.argv[0], '/') == NULL)
        why = "not found in PATH";
    else if (plan.error == ENOENT && access(request.argv[0], F_OK) == 0)
        why = "the file is there, but not the interpreter that it asks for";
    stream_fail(v, s, plan.error, "exec %s: %s", request.argv[0], why);
}

static void put_info(struct service *v, struct stream *s)
{
    uint8_t bytes[4];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u32(&w, (uint32_t)s->command.pid);
    port_put(&v->port, s->id, CHANNEL_INFO, CHANNEL_LANE_IN, bytes, sizeof(bytes));
    if (s->command.is_terminal)
        port_put(&v->port, s->id, CHANNEL_EOF, CHANNEL_LANE_ERR, NULL, 0);
}

/* The child has what it needs; of a terminal all three are the same. */
static void close_childs(const struct service *v, const struct command *c, int childs_fds[3])
{
    for (int i = 0; i < (c->is_terminal ? 1 : 3); i++) {
        if (childs_fds[i] != v->null_fd)
            fd_close(&childs_fds[i]);
    }
}

int command_start(struct service *v, struct stream *s, struct wire_reader *r)
{
    struct command *c = &s->command;
    int childs_fds[3] = {v->null_fd, -1, -1};

    *c = (struct command){.stdin_fd = -1,
                          .output_fds = {-1, -1},
                          .stdin_waiting = BUFFER_INIT(CHANNEL_WINDOW_BYTES +
                                                       1)}; /* a window and an end-of-file key */
    if (read_request(r) < 0)
        return -1;
    plan.argv = request.argv;
    plan.envp = request.envp;
    plan.cwd = request.cwd;
    plan.search_path = search_path();
    plan.change_user = false;
    plan_rlimits();
    if (request.user[0] != '\0') {
        int error = find_user();
        if (error != 0) {
            stream_fail(v, s, error, "user %s: %s", request.user,
                        error == EINVAL ? "no such user in /etc/passwd" : strerror(error));
            return 0;
        }
    }
    c->takes_stdin = (request.flags & CHANNEL_EXEC_STDIN) != 0;
    c->is_terminal = plan.is_terminal = (request.flags & CHANNEL_EXEC_PTY) != 0;
    c->started_ns = clock_mono_ns();
    int made = make_stdio(v, s, childs_fds);
    int error = errno;
    if (made == 0) {
        memcpy(plan.stdio_fds, childs_fds, sizeof(childs_fds));
        c->pid = spawn_in_group(v, c);
    }
    close_childs(v, c, childs_fds);
    if (made < 0) {
        stream_fail(v, s, error, "%s: %s", c->is_terminal ? "a terminal" : "pipes",
                    strerror(error));
    } else if (c->pid < 0) {
        c->pid = 0;
        fail_spawn(v, s);
    } else {
        put_info(v, s);
    }
    return 0;
}
