/* priv with a daemon that keeps the protocol and with one that does not. The monitor is played by
 * probe/priv_probe.c. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "ipc/ipc.h"
#include "priv/priv.h"
#include "priv/process.h"
#include "priv_fixture.h"

extern const uint8_t embed_priv_probe[], embed_priv_probe_end[];

#define FIXTURE_AUTO __attribute__((cleanup(fixture_fini))) struct priv_fixture

static void init(struct priv_fixture *f)
{
    fixture_init(f, embed_priv_probe, (size_t)(embed_priv_probe_end - embed_priv_probe));
}

static void start(struct priv_fixture *f)
{
    init(f);
    assert_int_equal(fixture_start(f), 0);
}

static void send_request(struct priv_fixture *f, uint32_t type, uint32_t slot)
{
    struct error e = ERROR_INIT;
    struct priv_request r = fixture_request(type, slot);

    assert_int_equal(ipc_send(f->control, &r, sizeof(r), NULL, 0, &e), 0);
}

static void tell(int socket, enum probe_command command)
{
    char byte = (char)command;

    assert_int_equal(send(socket, &byte, 1, MSG_NOSIGNAL), 1);
}

/* Whether the process's namespace of that kind is another than ours. */
static bool namespace_differs(pid_t pid, const char *kind)
{
    char own[64];
    char path[64];
    struct stat a;
    struct stat b;

    (void)snprintf(own, sizeof(own), "/proc/self/ns/%s", kind);
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, kind);
    return stat(own, &a) == 0 && stat(path, &b) == 0 && a.st_ino != b.st_ino;
}

static void test_jail(void **state)
{
    FIXTURE_AUTO f;
    struct probe_report r;
    FD_AUTO int socket = -1;

    (void)state;
    start(&f);
    pid_t pid = fixture_probe(&f, 3, &socket, &r);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(r.uids[i], f.uid_base + 1 + 3);
        assert_int_equal(r.gids[i], f.uid_base + 1 + 3);
    }
    assert_int_equal(r.group_count, 0);
    assert_int_equal(r.capabilities, 0);
    assert_int_equal(r.no_new_privs, 1);
    assert_int_equal(r.dumpable, 0);
    assert_int_equal(r.death_signal, SIGKILL);
    assert_int_equal(r.seccomp, 2);
    assert_int_equal(r.pid, 1);
    assert_int_equal(r.parent_pid, 0);
    assert_int_equal(r.session, 1);
    assert_int_equal(r.fd_count, 5);
    assert_true(r.fds_expected);
    assert_int_equal(r.root_entries, 0);
    assert_int_equal(r.root_writable, EROFS);
    assert_int_equal(r.dev_kvm, ENOENT);
    assert_int_equal(r.argument_count, 1);
    assert_int_equal(r.environment_count, 0);
    assert_int_equal(r.signals_ignored, 0);
    assert_int_equal(r.signals_blocked, 0);
    assert_int_equal(r.limit_files, 128);
    assert_int_equal(r.limit_core, 0);
    assert_int_equal(r.limit_file_bytes, SANDBOX_DISK_MIB_MAX * MIB);
    assert_int_equal(r.limit_locked, 0);
    assert_true(r.limit_processes <= 1024);
    static const char *const kinds[] = {"mnt", "pid", "net", "ipc", "uts"};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        assert_true(namespace_differs(pid, kinds[i]));
    assert_true(fixture_cgroups(&f, "3") >= 1);
    send_request(&f, PRIV_KILL, 3);
    assert_int_equal(fixture_expect(&f, PRIV_EXITED, 3).wait_status, SIGKILL);
    assert_int_equal(fixture_cgroups(&f, "3"), 0);
    assert_int_equal(fixture_stop(&f), 0);
}

/* Two monitors are of different users and in different namespaces. */
static void test_two_jails(void **state)
{
    FIXTURE_AUTO f;
    struct probe_report a;
    struct probe_report b;
    struct stat net[2];
    FD_AUTO int socket_a = -1;
    FD_AUTO int socket_b = -1;
    char path[64];

    (void)state;
    start(&f);
    pid_t pids[] = {fixture_probe(&f, 0, &socket_a, &a),
                    fixture_probe(&f, SANDBOX_COUNT_MAX - 1, &socket_b, &b)};
    assert_int_not_equal(a.uids[0], b.uids[0]);
    for (unsigned i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof(path), "/proc/%d/ns/net", pids[i]);
        assert_int_equal(stat(path, &net[i]), 0);
    }
    assert_int_not_equal(net[0].st_ino, net[1].st_ino);
    assert_int_equal(fixture_stop(&f), 0);
    assert_false(process_lives(pids[0]) || process_lives(pids[1]));
}

static void test_exit_and_reuse(void **state)
{
    FIXTURE_AUTO f;
    struct probe_report r;
    FD_AUTO int socket = -1;
    FD_AUTO int again = -1;

    (void)state;
    start(&f);
    (void)fixture_probe(&f, 5, &socket, &r);
    tell(socket, PROBE_EXIT);
    assert_int_equal(fixture_expect(&f, PRIV_EXITED, 5).wait_status, 7 << 8);
    /* These crossed with EXITED on the way: legal, and of no effect on what comes next. */
    send_request(&f, PRIV_KILL, 5);
    send_request(&f, PRIV_LIMIT, 5);
    (void)fixture_probe(&f, 5, &again, &r);
    tell(again, PROBE_CRASH);
    struct priv_event event = fixture_expect(&f, PRIV_EXITED, 5);
    assert_true(WIFSIGNALED(event.wait_status));
    assert_false(WCOREDUMP(event.wait_status));
    assert_int_equal(fixture_stop(&f), 0);
}

static void test_forbidden_call(void **state)
{
    FIXTURE_AUTO f;
    struct probe_report r;
    FD_AUTO int socket = -1;

    (void)state;
    start(&f);
    (void)fixture_probe(&f, 1, &socket, &r);
    tell(socket, PROBE_MOUNT);
    assert_int_equal(WTERMSIG(fixture_expect(&f, PRIV_EXITED, 1).wait_status), SIGSYS);
    assert_int_equal(fixture_stop(&f), 0);
}

static void test_memory_cap(void **state)
{
    FIXTURE_AUTO f;
    struct probe_report r;
    FD_AUTO int socket = -1;

    (void)state;
    start(&f);
    (void)fixture_probe(&f, 1, &socket, &r);
    tell(socket, PROBE_EAT);
    struct priv_event event = fixture_expect(&f, PRIV_EXITED, 1);
    assert_int_equal(event.wait_status, SIGKILL);
    assert_non_null(strstr(event.text, "memory cap"));
    assert_int_equal(fixture_stop(&f), 0);
}

static void test_thread_cap(void **state)
{
    FIXTURE_AUTO f;
    struct probe_report r;
    FD_AUTO int socket = -1;
    uint32_t count = 0;

    (void)state;
    start(&f);
    (void)fixture_probe(&f, 1, &socket, &r);
    tell(socket, PROBE_THREADS);
    assert_int_equal(recv(socket, &count, sizeof(count), 0), sizeof(count));
    assert_int_equal(count, 4);
    send_request(&f, PRIV_KILL, 1);
    (void)fixture_expect(&f, PRIV_EXITED, 1);
    assert_int_equal(fixture_stop(&f), 0);
}

static void test_limit_changes(void **state)
{
    FIXTURE_AUTO f;
    struct probe_report r;
    struct error e = ERROR_INIT;
    struct priv_request request = fixture_request(PRIV_LIMIT, 1);
    FD_AUTO int socket = -1;
    uint32_t count = 0;

    (void)state;
    start(&f);
    (void)fixture_probe(&f, 1, &socket, &r);
    request.pids_max = 2;
    request.mem_max_mib = 128;
    assert_int_equal(ipc_send(f.control, &request, sizeof(request), NULL, 0, &e), 0);
    request.mem_max_mib = 32;
    assert_int_equal(ipc_send(f.control, &request, sizeof(request), NULL, 0, &e), 0);
    (void)usleep(50000);
    tell(socket, PROBE_THREADS);
    assert_int_equal(recv(socket, &count, sizeof(count), 0), sizeof(count));
    assert_int_equal(count, 1);
    tell(socket, PROBE_EXIT);
    assert_string_equal(fixture_expect(&f, PRIV_EXITED, 1).text, "");
    assert_int_equal(fixture_stop(&f), 0);
}

static void test_kill_storm(void **state)
{
    FIXTURE_AUTO f;
    struct probe_report r;
    FD_AUTO int socket = -1;
    FD_AUTO int again = -1;

    (void)state;
    start(&f);
    (void)fixture_probe(&f, 9, &socket, &r);
    tell(socket, PROBE_DEAF);
    for (unsigned i = 0; i < 1000; i++)
        send_request(&f, PRIV_KILL, 9);
    assert_int_equal(fixture_expect(&f, PRIV_EXITED, 9).wait_status, SIGKILL);
    (void)fixture_probe(&f, 9, &again, &r);
    assert_int_equal(fixture_stop(&f), 0);
}

/* The daemon does not read: events wait, and every one comes in the end. */
static void test_full_socket(void **state)
{
    FIXTURE_AUTO f;
    int sockets[40];
    unsigned spawned = 0;
    unsigned exited = 0;

    (void)state;
    init(&f);
    f.send_buffer = 1;
    assert_int_equal(fixture_start(&f), 0);
    for (uint32_t i = 0; i < 40; i++) {
        struct probe_report r;

        fixture_spawn(&f, i, &sockets[i]);
        assert_int_equal(recv(sockets[i], &r, sizeof(r), 0), sizeof(r));
        tell(sockets[i], PROBE_EXIT);
    }
    (void)usleep(100000);
    while (exited < 40) {
        struct priv_event event;

        assert_true(fixture_event(&f, &event));
        spawned += event.type == PRIV_SPAWNED;
        exited += event.type == PRIV_EXITED;
    }
    assert_int_equal(spawned, 40);
    for (unsigned i = 0; i < 40; i++)
        (void)close(sockets[i]);
    assert_int_equal(fixture_stop(&f), 0);
}

static void test_bad_program(void **state)
{
    FIXTURE_AUTO f;
    FD_AUTO int socket = -1;

    (void)state;
    init(&f);
    f.program = "this is no program";
    f.program_size = 18;
    assert_int_equal(fixture_start(&f), 0);
    fixture_spawn(&f, 2, &socket);
    struct priv_event event = fixture_expect(&f, PRIV_EXITED, 2);
    assert_int_equal(event.wait_status, -1);
    assert_non_null(strstr(event.text, "cannot execute the monitor"));
    assert_int_equal(fixture_stop(&f), 0);
}

enum extra { EXTRA_NONE, EXTRA_SOCKET, EXTRA_TWO, EXTRA_FILE };

/* What no honest daemon sends. Slot 1 runs a probe, slot 4 was never used. */
static const struct hostile {
    const char *name;
    struct priv_request request;
    size_t size;
    enum extra extra;
} hostile[] = {
    {"short", {.type = PRIV_KILL, .slot = 1}, 8, EXTRA_NONE},
    {"long", {.type = PRIV_KILL, .slot = 1}, sizeof(struct priv_request) + 1, EXTRA_NONE},
    {"type 0", {.type = 0, .slot = 1}, 0, EXTRA_NONE},
    {"an event", {.type = PRIV_EXITED, .slot = 1}, 0, EXTRA_NONE},
    {"slot past the end", {.type = PRIV_KILL, .slot = SANDBOX_COUNT_MAX}, 0, EXTRA_NONE},
    {"slot -1", {.type = PRIV_KILL, .slot = UINT32_MAX}, 0, EXTRA_NONE},
    {"kill of unused slot", {.type = PRIV_KILL, .slot = 4}, 0, EXTRA_NONE},
    {"kill with caps", {.type = PRIV_KILL, .slot = 1, .pids_max = 1}, 0, EXTRA_NONE},
    {"kill with descriptor", {.type = PRIV_KILL, .slot = 1}, 0, EXTRA_SOCKET},
    {"reserved", {.type = PRIV_KILL, .slot = 1, .reserved = 1}, 0, EXTRA_NONE},
    {"limit of unused slot", {PRIV_LIMIT, 4, 64, 100, 5, 0}, 0, EXTRA_NONE},
    {"no memory", {PRIV_LIMIT, 1, 0, 100, 5, 0}, 0, EXTRA_NONE},
    {"all memory", {PRIV_LIMIT, 1, UINT32_MAX, 100, 5, 0}, 0, EXTRA_NONE},
    {"no CPU", {PRIV_LIMIT, 1, 64, 0, 5, 0}, 0, EXTRA_NONE},
    {"all CPUs", {PRIV_LIMIT, 1, 64, UINT32_MAX, 5, 0}, 0, EXTRA_NONE},
    {"no threads", {PRIV_LIMIT, 1, 64, 100, 0, 0}, 0, EXTRA_NONE},
    {"all threads", {PRIV_LIMIT, 1, 64, 100, UINT32_MAX, 0}, 0, EXTRA_NONE},
    {"spawn in a used slot", {PRIV_SPAWN, 1, 64, 100, 5, 0}, 0, EXTRA_SOCKET},
    {"spawn without socket", {PRIV_SPAWN, 4, 64, 100, 5, 0}, 0, EXTRA_NONE},
    {"spawn with two", {PRIV_SPAWN, 4, 64, 100, 5, 0}, 0, EXTRA_TWO},
    {"spawn with a file", {PRIV_SPAWN, 4, 64, 100, 5, 0}, 0, EXTRA_FILE},
    {"a second total", {.type = PRIV_TOTAL, .mem_max_mib = 1}, 0, EXTRA_NONE},
    {"spawn without caps", {.type = PRIV_SPAWN, .slot = 4}, 0, EXTRA_SOCKET},
};

static void test_hostile_daemon(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
        const struct hostile *h = &hostile[i];
        FIXTURE_AUTO f;
        struct probe_report r;
        struct priv_event event;
        struct error e = ERROR_INIT;
        uint8_t bytes[sizeof(struct priv_request) + 1] = {0};
        FD_AUTO int socket = -1;
        int extras[2];

        start(&f);
        pid_t pid = fixture_probe(&f, 1, &socket, &r);
        memcpy(bytes, &h->request, sizeof(h->request));
        assert_int_equal(ipc_pair(extras, &e), 0);
        FD_AUTO int file = open("/dev/null", O_RDWR | O_CLOEXEC);
        assert_int_equal(ipc_send(f.control, bytes, h->size != 0 ? h->size : sizeof(h->request),
                                  h->extra == EXTRA_FILE ? &file : extras,
                                  h->extra == EXTRA_NONE  ? 0
                                  : h->extra == EXTRA_TWO ? 2
                                                          : 1,
                                  &e),
                         0);
        (void)close(extras[0]);
        (void)close(extras[1]);
        int status = fixture_wait(&f);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 1 || process_lives(pid))
            fail_msg("%s: priv ended with %#x", h->name, status);
        while (fixture_event(&f, &event))
            assert_int_equal(event.slot, 1);
        fd_close(&f.control);
    }
}

static void test_signals_do_not_end_it(void **state)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
    FIXTURE_AUTO f;
    struct probe_report r;
    FD_AUTO int socket = -1;

    (void)state;
    start(&f);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        assert_int_equal(kill(f.priv_pid, signals[i]), 0);
    (void)fixture_probe(&f, 0, &socket, &r);
    assert_int_not_equal(getsid(f.priv_pid), getsid(0));
    assert_int_equal(fixture_stop(&f), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jail),           cmocka_unit_test(test_two_jails),
        cmocka_unit_test(test_exit_and_reuse), cmocka_unit_test(test_forbidden_call),
        cmocka_unit_test(test_memory_cap),     cmocka_unit_test(test_thread_cap),
        cmocka_unit_test(test_limit_changes),  cmocka_unit_test(test_kill_storm),
        cmocka_unit_test(test_full_socket),    cmocka_unit_test(test_bad_program),
        cmocka_unit_test(test_hostile_daemon), cmocka_unit_test(test_signals_do_not_end_it),
    };

    if (argc > 1 && strcmp(argv[1], "--role=priv") == 0)
        _exit(priv_main());
    if (geteuid() != 0) {
        print_message("needs root\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
