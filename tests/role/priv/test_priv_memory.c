/* Memory beyond one monitor's own cap: what all of them may use together, and whom the kernel takes
 * when the host has no more. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "ipc/ipc.h"
#include "priv/priv.h"
#include "priv_fixture.h"

extern const uint8_t embed_priv_probe[], embed_priv_probe_end[];

#define FIXTURE_AUTO __attribute__((cleanup(fixture_fini))) struct priv_fixture

/* priv, told a total; 0: told nothing. */
static void start(struct priv_fixture *f, uint32_t total_mib)
{
    const struct priv_request total = {.type = PRIV_TOTAL, .mem_max_mib = total_mib};
    struct error e = ERROR_INIT;

    fixture_init(f, embed_priv_probe, (size_t)(embed_priv_probe_end - embed_priv_probe));
    f->no_total = true;
    assert_int_equal(fixture_start(f), 0);
    if (total_mib != 0)
        assert_int_equal(ipc_send(f->control, &total, sizeof(total), NULL, 0, &e), 0);
}

static long oom_score_adj_of(pid_t pid)
{
    char path[64];
    char text[16] = "";

    (void)snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", pid);
    FD_AUTO int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(fd_read_full(fd, text, sizeof(text) - 1) > 0);
    return strtol(text, NULL, 10);
}

/* The kernel takes a monitor before it takes a role, on which all monitors hang. */
static void test_oom_order(void **state)
{
    FIXTURE_AUTO f;
    struct probe_report r;
    FD_AUTO int socket = -1;

    (void)state;
    start(&f, FIXTURE_TOTAL_MIB);
    pid_t pid = fixture_probe(&f, 3, &socket, &r);
    assert_int_equal(oom_score_adj_of(pid), 500);
    assert_int_equal(oom_score_adj_of(f.priv_pid), oom_score_adj_of(getpid()));
    assert_int_equal(fixture_stop(&f), 0);
}

static uint64_t read_total(const struct priv_fixture *f)
{
    char text[32];

    assert_true(fixture_read_cgroup(f, NULL, "memory.limit_in_bytes", text, sizeof(text)) ||
                fixture_read_cgroup(f, NULL, "memory.max", text, sizeof(text)));
    return strtoull(text, NULL, 10);
}

/* Two monitors within their own caps, which are 64 MiB: together they run into the total. */
static void test_total_cap(void **state)
{
    FIXTURE_AUTO f;
    struct probe_report r;
    struct priv_event event;
    const char hold = PROBE_HOLD;
    int sockets[2];

    (void)state;
    start(&f, 96);
    (void)fixture_probe(&f, 0, &sockets[0], &r);
    (void)fixture_probe(&f, 1, &sockets[1], &r);
    assert_int_equal(read_total(&f), 96 * MIB);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(send(sockets[i], &hold, 1, MSG_NOSIGNAL), 1);
    assert_true(fixture_event(&f, &event));
    assert_int_equal(event.type, PRIV_EXITED);
    assert_int_equal(event.wait_status, SIGKILL);
    assert_int_equal(fixture_stop(&f), 0);
    for (unsigned i = 0; i < 2; i++)
        (void)close(sockets[i]);
}

/* More than the host has would be no limit. */
static void test_total_is_clamped(void **state)
{
    uint64_t host_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    FIXTURE_AUTO f;
    struct probe_report r;
    FD_AUTO int socket = -1;

    (void)state;
    start(&f, UINT32_MAX);
    (void)fixture_probe(&f, 0, &socket, &r);
    assert_int_equal(read_total(&f), host_bytes / MIB * MIB);
    assert_int_equal(fixture_stop(&f), 0);
}

static void test_spawn_without_total(void **state)
{
    FIXTURE_AUTO f;
    FD_AUTO int socket = -1;

    (void)state;
    start(&f, 0);
    fixture_spawn(&f, 0, &socket);
    int status = fixture_wait(&f);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oom_order),
        cmocka_unit_test(test_total_cap),
        cmocka_unit_test(test_total_is_clamped),
        cmocka_unit_test(test_spawn_without_total),
    };

    if (argc > 1 && strcmp(argv[1], "--role=priv") == 0)
        _exit(priv_main());
    if (geteuid() != 0) {
        print_message("needs root\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
