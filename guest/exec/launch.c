#include "guest/exec/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "guest/exec/accounts.h"
#include "guest/exec/spawn.h"
#include "guest/exec/terminal.h"

/* Made before the snapshot; more are made when so many commands run at once. */
#define GROUPS_READY        4u
#define SEARCH_PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define ACCOUNTS_BYTES_MAX  (1 * MIB)
#define WARM_BYTES          8192u
#define FLAGS_KNOWN         ((uint32_t)(CHANNEL_EXEC_STDIN | CHANNEL_EXEC_PTY))

/*
 * The request in the form that execve(2) wants. One set is enough: the process has been started
 * when launch() returns, and strings cannot need more than the request has bytes, as the NUL at
 * the end of each takes less than its length in front did.
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

int launcher_init(struct launcher *l, const char *cgroup_path, struct error *e)
{
    execgroups_init(&l->groups, cgroup_path, GROUPS_READY);
    l->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (l->null_fd < 0)
        return error_errno(e, errno, "/dev/null");
    /* In a guest the first use of a page is dear: the memory that every request needs is touched
     * before the snapshot. */
    memset(request.strings, 0, WARM_BYTES);
    memset(request.argv, 0, WARM_BYTES / 2);
    memset(request.envp, 0, WARM_BYTES / 2);
    memset(&plan, 0, sizeof(plan));
    return 0;
}

void launcher_fini(struct launcher *l)
{
    execgroups_fini(&l->groups);
    fd_close(&l->null_fd);
}

static char *copy_string(struct wire_reader *reader, size_t size_max)
{
    size_t size = 0;
    const char *bytes = wire_get_string(reader, size_max, &size);

    if (bytes == NULL || size >= sizeof(request.strings) - request.strings_used) {
        reader->bad = true;
        return NULL;
    }
    char *copy = request.strings + request.strings_used;
    memcpy(copy, bytes, size);
    copy[size] = '\0';
    request.strings_used += size + 1;
    return copy;
}

static uint32_t copy_list(struct wire_reader *reader, char **list)
{
    uint32_t count = wire_get_u32(reader);

    if (count > CHANNEL_ARGS_MAX)
        reader->bad = true;
    for (uint32_t i = 0; i < count && !reader->bad; i++)
        list[i] = copy_string(reader, CHANNEL_OPEN_MAX);
    list[reader->bad ? 0 : count] = NULL;
    return count;
}

static void read_limits(struct wire_reader *reader)
{
    uint32_t count = wire_get_u32(reader);

    memset(request.limits, 0, sizeof(request.limits));
    if (count > CHANNEL_LIMIT_COUNT)
        reader->bad = true;
    for (uint32_t i = 0; i < count && !reader->bad; i++) {
        uint32_t kind = wire_get_u32(reader);
        uint64_t value = wire_get_u64(reader);

        if (kind < 1 || kind > CHANNEL_LIMIT_COUNT || value == 0)
            reader->bad = true;
        else
            request.limits[kind] = value;
    }
}

static int read_request(struct wire_reader *reader)
{
    request.strings_used = 0;
    request.flags = wire_get_u32(reader);
    request.rows = wire_get_u16(reader);
    request.columns = wire_get_u16(reader);
    plan.umask = wire_get_u32(reader);
    request.user = copy_string(reader, ACCOUNT_NAME_BYTES - 1);
    request.cwd = copy_string(reader, CHANNEL_PATH_MAX - 1);
    read_limits(reader);
    uint32_t argc = copy_list(reader, request.argv);
    (void)copy_list(reader, request.envp);
    if (reader->bad || reader->left != 0 || argc == 0 || request.argv[0][0] == '\0' ||
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

static int make_terminal(struct child *child, int childs_fds[3])
{
    uid_t owner = plan.change_user ? plan.uid : geteuid();

    if (terminal_open(owner, request.rows, request.columns, &child->output_fds[0], &childs_fds[0]) <
        0)
        return -1;
    childs_fds[1] = childs_fds[2] = childs_fds[0];
    if (child->takes_stdin)
        child->stdin_fd = fcntl(child->output_fds[0], F_DUPFD_CLOEXEC, 0);
    return child->takes_stdin && child->stdin_fd < 0 ? -1 : 0;
}

static int make_stdio(struct child *child, int childs_fds[3])
{
    if (child->is_terminal)
        return make_terminal(child, childs_fds);
    if (child->takes_stdin && make_pipe(&child->stdin_fd, &childs_fds[0], false) < 0)
        return -1;
    for (unsigned i = 0; i < CHILD_OUTPUTS; i++) {
        if (make_pipe(&child->output_fds[i], &childs_fds[1 + i], true) < 0)
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
static pid_t spawn_in_group(struct execgroups *groups, struct child *child)
{
    uint64_t memory_bytes = request.limits[CHANNEL_LIMIT_MEMORY];
    uint64_t processes = request.limits[CHANNEL_LIMIT_PROCESSES];

    plan.cgroup_fd = -1;
    if (!execgroups_available(groups)) {
        plan.step = SPAWN_STEP_LIMIT;
        plan.error = ENOTSUP;
        return memory_bytes > 0 || processes > 0 ? -1 : spawn_process(&plan);
    }
    for (int attempt = 0;; attempt++) {
        if (execgroups_take(groups, attempt > 0, &child->group) < 0) {
            plan.step = SPAWN_STEP_CLONE;
            plan.error = errno;
            return -1;
        }
        if (execgroup_limit(&child->group, memory_bytes, processes) < 0) {
            plan.step = SPAWN_STEP_LIMIT;
            plan.error = errno;
            execgroups_drop(groups, &child->group);
            return -1;
        }
        plan.cgroup_fd = child->group.dir_fd;
        pid_t pid = spawn_process(&plan);
        if (pid > 0) {
            child->has_group = true;
            return pid;
        }
        if (plan.step != SPAWN_STEP_CLONE) {
            execgroups_put(groups, &child->group);
            return -1;
        }
        execgroups_drop(groups, &child->group);
        if (attempt > 0)
            return -1;
    }
}

__attribute__((format(printf, 3, 4))) static int fail(struct launch_failure *failure, int status,
                                                      const char *format, ...)
{
    va_list ap;

    failure->status = status;
    va_start(ap, format);
    (void)vsnprintf(failure->text, sizeof(failure->text), format, ap);
    va_end(ap);
    return 1;
}

static int fail_spawn(struct launch_failure *failure)
{
    const char *why = strerror(plan.error);

    switch (plan.step) {
    case SPAWN_STEP_CLONE:
        return fail(failure, plan.error, "a new process: %s", why);
    case SPAWN_STEP_STDIO:
        return fail(failure, plan.error, "stdin, stdout and stderr: %s", why);
    case SPAWN_STEP_TERMINAL:
        return fail(failure, plan.error, "the controlling terminal: %s", why);
    case SPAWN_STEP_USER:
        return fail(failure, plan.error, "user %s: %s", request.user, why);
    case SPAWN_STEP_CWD:
        return fail(failure, plan.error, "cwd %s: %s", request.cwd, why);
    case SPAWN_STEP_LIMIT:
        return fail(failure, plan.error, "limits: %s", why);
    case SPAWN_STEP_EXEC:
        break;
    }
    if (plan.error == ENOENT && strchr(request.argv[0], '/') == NULL)
        why = "not found in PATH";
    else if (plan.error == ENOENT && access(request.argv[0], F_OK) == 0)
        why = "the file is there, but not the interpreter that it asks for";
    return fail(failure, plan.error, "exec %s: %s", request.argv[0], why);
}

/* The child has what it needs; of a terminal all three are the same. */
static void close_childs(const struct launcher *l, const struct child *child, int childs_fds[3])
{
    for (int i = 0; i < (child->is_terminal ? 1 : 3); i++) {
        if (childs_fds[i] != l->null_fd)
            fd_close(&childs_fds[i]);
    }
}

static int start(struct launcher *l, struct child *child, struct launch_failure *ret_failure)
{
    int childs_fds[3] = {l->null_fd, -1, -1};

    child->started_ns = clock_mono_ns();
    int made = make_stdio(child, childs_fds);
    int error = errno;

    if (made == 0) {
        memcpy(plan.stdio_fds, childs_fds, sizeof(childs_fds));
        child->pid = spawn_in_group(&l->groups, child);
    }
    close_childs(l, child, childs_fds);
    if (made < 0)
        return fail(ret_failure, error, "%s: %s", child->is_terminal ? "a terminal" : "pipes",
                    strerror(error));
    if (child->pid > 0)
        return 0;
    child->pid = 0;
    return fail_spawn(ret_failure);
}

int launch(struct launcher *l, struct wire_reader *reader, struct child *ret_child,
           struct launch_failure *ret_failure)
{
    *ret_child = (struct child){.stdin_fd = -1, .output_fds = {-1, -1}};
    if (read_request(reader) < 0)
        return -1;
    plan.argv = request.argv;
    plan.envp = request.envp;
    plan.cwd = request.cwd;
    plan.search_path = search_path();
    plan.change_user = false;
    plan_rlimits();
    if (request.user[0] != '\0') {
        int error = find_user();
        if (error != 0)
            return fail(ret_failure, error, "user %s: %s", request.user,
                        error == EINVAL ? "no such user in /etc/passwd" : strerror(error));
    }
    ret_child->takes_stdin = (request.flags & CHANNEL_EXEC_STDIN) != 0;
    ret_child->is_terminal = plan.is_terminal = (request.flags & CHANNEL_EXEC_PTY) != 0;
    return start(l, ret_child, ret_failure);
}

void child_close(struct child *child)
{
    fd_close(&child->stdin_fd);
    for (unsigned i = 0; i < CHILD_OUTPUTS; i++)
        fd_close(&child->output_fds[i]);
}
