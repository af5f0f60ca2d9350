#include "priv_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "ipc/handover.h"
#include "ipc/ipc.h"
#include "serve/spawn.h"

#define TIMEOUT_MS 10000

void fixture_init(struct priv_fixture *f, const void *program, size_t program_size)
{
    char path[96];

    *f = (struct priv_fixture){
        .program = program, .program_size = program_size, .journal_fd = -1, .control = -1};
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/cloche-test-priv-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->instance = clock_real_ns() ^ (uint64_t)getpid() << 48;
    f->uid_base = UINT32_C(2010000000) + (uint32_t)getpid() % 60000 * (SANDBOX_COUNT_MAX + 1);
    (void)snprintf(path, sizeof(path), "%s/journal", f->dir);
    f->journal_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(f->journal_fd >= 0);
}

/* A bound socket, as serve leaves it for priv to unlink. */
static int bind_socket(const struct priv_fixture *f, struct stat *ret_stat)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/sock", f->dir);
    (void)unlink(address.sun_path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(stat(address.sun_path, ret_stat), 0);
    return fd;
}

int fixture_start(struct priv_fixture *f)
{
    struct error e = ERROR_INIT;
    struct handover_settings settings = {.magic = HANDOVER_MAGIC,
                                         .version = HANDOVER_VERSION,
                                         .log_level = LOG_ERROR,
                                         .uid_base = f->uid_base,
                                         .instance = f->instance,
                                         .socket_name = "sock"};
    struct stat st;
    int pair[2];
    int ready[2];
    char byte;

    int listen_fd = bind_socket(f, &st);
    settings.socket_dev = st.st_dev;
    settings.socket_ino = st.st_ino;
    fd_close(&listen_fd);
    FD_AUTO int dir_fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FD_AUTO int lock_fd = openat(dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    FD_AUTO int settings_fd = handover_seal(&settings, &e);
    FD_AUTO int program_fd = spawn_seal_program(f->program, f->program_size, &e);
    FD_AUTO int own_fd = spawn_own_program(&e);
    assert_true(settings_fd >= 0 && program_fd >= 0 && own_fd >= 0);
    /* A child of a killed priv holds a copy until it notices; serve waits likewise. */
    assert_int_equal(flock(lock_fd, LOCK_EX), 0);
    assert_int_equal(ipc_pair(pair, &e), 0);
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    if (f->send_buffer > 0)
        (void)setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &f->send_buffer, sizeof(f->send_buffer));
    const struct spawn_fd fds[] = {
        {pair[1], HANDOVER_PRIV_CONTROL},       {settings_fd, HANDOVER_PRIV_SETTINGS},
        {program_fd, HANDOVER_PRIV_PROGRAM},    {lock_fd, HANDOVER_PRIV_LOCK},
        {f->journal_fd, HANDOVER_PRIV_JOURNAL}, {dir_fd, HANDOVER_PRIV_SOCKET_DIR},
        {ready[1], HANDOVER_PRIV_READY},
    };
    assert_int_equal(spawn_priv(own_fd, fds, sizeof(fds) / sizeof(fds[0]), &f->priv_pid, &e), 0);
    (void)close(pair[1]);
    (void)close(ready[1]);
    f->control = pair[0];
    bool is_ready = fd_read_full(ready[0], &byte, 1) == 1;
    (void)close(ready[0]);
    if (is_ready && !f->no_total) {
        const struct priv_request total = {.type = PRIV_TOTAL, .mem_max_mib = FIXTURE_TOTAL_MIB};

        assert_int_equal(ipc_send(f->control, &total, sizeof(total), NULL, 0, &e), 0);
    }
    return is_ready ? 0 : -1;
}

int fixture_wait(struct priv_fixture *f)
{
    int status = -1;
    uint64_t end_ns = clock_mono_ns() + TIMEOUT_MS * NS_PER_MS;

    while (waitpid(f->priv_pid, &status, WNOHANG) == 0) {
        if (clock_mono_ns() > end_ns) {
            (void)kill(f->priv_pid, SIGKILL);
            (void)waitpid(f->priv_pid, &status, 0);
            fail_msg("priv did not end");
        }
        (void)usleep(2000);
    }
    f->priv_pid = 0;
    return status;
}

int fixture_stop(struct priv_fixture *f)
{
    fd_close(&f->control);
    return fixture_wait(f);
}

void fixture_fini(struct priv_fixture *f)
{
    char path[96];
    struct stat st;

    if (f->priv_pid > 0)
        (void)fixture_stop(f);
    fd_close(&f->control);
    assert_int_equal(fixture_cgroups(f, NULL), 0);
    (void)snprintf(path, sizeof(path), "%s/sock", f->dir);
    assert_int_equal(stat(path, &st), -1);
    assert_int_equal(fstat(f->journal_fd, &st), 0);
    assert_int_equal(st.st_size, 0);
    fd_close(&f->journal_fd);
    (void)snprintf(path, sizeof(path), "%s/journal", f->dir);
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s/lock", f->dir);
    (void)unlink(path);
    assert_int_equal(rmdir(f->dir), 0);
}

struct priv_request fixture_request(uint32_t type, uint32_t slot)
{
    struct priv_request r = {.type = type, .slot = slot};

    if (type != PRIV_KILL) {
        r.mem_max_mib = 64;
        r.cpu_quota_percent = 100;
        r.pids_max = 5;
    }
    return r;
}

void fixture_spawn(struct priv_fixture *f, uint32_t slot, int *ret_socket)
{
    struct error e = ERROR_INIT;
    struct priv_request r = fixture_request(PRIV_SPAWN, slot);
    int pair[2];

    assert_int_equal(ipc_pair(pair, &e), 0);
    assert_int_equal(ipc_send(f->control, &r, sizeof(r), &pair[1], 1, &e), 0);
    (void)close(pair[1]);
    *ret_socket = pair[0];
}

bool fixture_event(struct priv_fixture *f, struct priv_event *ret_event)
{
    struct error e = ERROR_INIT;
    struct pollfd p = {.fd = f->control, .events = POLLIN};

    assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
    int n = ipc_recv(f->control, ret_event, sizeof(*ret_event), NULL, 0, NULL, &e);
    if (n <= 0)
        return false;
    assert_int_equal(n, sizeof(*ret_event));
    return true;
}

struct priv_event fixture_expect(struct priv_fixture *f, uint32_t type, uint32_t slot)
{
    struct priv_event event = {0};

    assert_true(fixture_event(f, &event));
    if (event.type != type)
        print_message("event %u, slot %u: %s\n", event.type, event.slot, event.text);
    assert_int_equal(event.type, type);
    assert_int_equal(event.slot, slot);
    return event;
}

pid_t fixture_probe(struct priv_fixture *f, uint32_t slot, int *ret_socket,
                    struct probe_report *ret_report)
{
    fixture_spawn(f, slot, ret_socket);
    struct priv_event event = fixture_expect(f, PRIV_SPAWNED, slot);
    assert_int_equal(recv(*ret_socket, ret_report, sizeof(*ret_report), 0), sizeof(*ret_report));
    assert_true(event.pid > 0);
    return event.pid;
}

/* The layout of this host, as priv finds it. */
static const struct cgroup_layout *find_layout(void)
{
    static char text[256 * 1024];
    static struct cgroup_layout layout;
    FD_AUTO int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd_read_full(fd, text, sizeof(text));

    assert_true(n > 0);
    cgroup_layout_parse(text, (size_t)n, &layout);
    return &layout;
}

bool fixture_read_cgroup(const struct priv_fixture *f, const char *slot, const char *file,
                         char *ret_text, size_t size)
{
    const struct cgroup_layout *layout = find_layout();

    for (unsigned i = 0; i < layout->count; i++) {
        char path[PATH_MAX + 96];

        (void)snprintf(path, sizeof(path), "%s/cloche-%016" PRIx64 "/%s/%s",
                       layout->hierarchies[i].path, f->instance, slot != NULL ? slot : ".", file);
        FD_AUTO int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd >= 0 ? fd_read_full(fd, ret_text, size - 1) : -1;
        if (n > 0) {
            ret_text[n] = '\0';
            return true;
        }
    }
    return false;
}

unsigned fixture_cgroups(const struct priv_fixture *f, const char *slot)
{
    const struct cgroup_layout *layout = find_layout();
    unsigned count = 0;

    for (unsigned i = 0; i < layout->count; i++) {
        char path[PATH_MAX + 64];
        struct stat st;

        (void)snprintf(path, sizeof(path), "%s/cloche-%016" PRIx64 "/%s",
                       layout->hierarchies[i].path, f->instance, slot != NULL ? slot : "");
        count += stat(path, &st) == 0;
    }
    return count;
}

void fixture_enter_cgroups(const struct priv_fixture *f, const char *slot, pid_t pid)
{
    const struct cgroup_layout *layout = find_layout();

    for (unsigned i = 0; i < layout->count; i++) {
        char path[PATH_MAX + 64];

        (void)snprintf(path, sizeof(path), "%s/cloche-%016" PRIx64 "/%s/cgroup.procs",
                       layout->hierarchies[i].path, f->instance, slot);
        FD_AUTO int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd >= 0)
            assert_true(dprintf(fd, "%d", pid) > 0);
    }
}

bool process_lives(pid_t pid)
{
    FD_AUTO int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return fd >= 0 && poll(&p, 1, 0) == 0;
}

bool process_ends(pid_t pid)
{
    for (unsigned i = 0; i < 500; i++) {
        if (!process_lives(pid))
            return true;
        (void)usleep(10000);
    }
    return false;
}
