/* priv that is killed at every point, and the next one that finds what is left. */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
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

static void tell(int socket, enum probe_command command)
{
    char byte = (char)command;

    assert_int_equal(send(socket, &byte, 1, MSG_NOSIGNAL), 1);
}

/* kill -9 of priv: its monitors die with it, and the next start removes the cgroups. */
static void test_killed_priv(void **state)
{
    FIXTURE_AUTO f;
    struct probe_report r;
    int sockets[4];
    pid_t pids[4];

    (void)state;
    start(&f);
    for (uint32_t i = 0; i < 4; i++) {
        pids[i] = fixture_probe(&f, i, &sockets[i], &r);
        tell(sockets[i], PROBE_DEAF);
    }
    assert_int_equal(kill(f.priv_pid, SIGKILL), 0);
    (void)fixture_stop(&f);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(process_ends(pids[i]));
        (void)close(sockets[i]);
    }
    assert_true(fixture_cgroups(&f, "2") >= 1);
    assert_int_equal(fixture_start(&f), 0);
    assert_int_equal(fixture_cgroups(&f, "2"), 0);
    assert_int_equal(fixture_stop(&f), 0);
}

/* kill -9 while monitors are being started, at whatever point that hits. */
static void test_killed_while_starting(void **state)
{
    FIXTURE_AUTO f;

    (void)state;
    init(&f);
    for (unsigned round = 0; round < 20; round++) {
        int sockets[8];
        struct pollfd p;

        assert_int_equal(fixture_start(&f), 0);
        for (uint32_t i = 0; i < 8; i++)
            fixture_spawn(&f, i, &sockets[i]);
        (void)usleep(round * 300);
        assert_int_equal(kill(f.priv_pid, SIGKILL), 0);
        (void)fixture_stop(&f);
        /* A monitor that lived on would hold its end of its control socket. */
        for (unsigned i = 0; i < 8; i++) {
            char byte[sizeof(struct probe_report)];

            p = (struct pollfd){.fd = sockets[i], .events = POLLRDHUP};
            assert_int_equal(poll(&p, 1, 5000), 1);
            while (recv(sockets[i], byte, sizeof(byte), 0) > 0)
                continue;
            (void)close(sockets[i]);
        }
    }
    assert_int_equal(fixture_start(&f), 0);
    assert_int_equal(fixture_stop(&f), 0);
}

static pid_t start_sleeper(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        for (;;)
            (void)pause();
    }
    return pid;
}

/* A journal that names two processes: one as it is, one with another start time. */
static void test_leftover_process(void **state)
{
    FIXTURE_AUTO f;
    struct error e = ERROR_INIT;
    struct journal_header header = {0};
    pid_t ours = start_sleeper();
    pid_t other = start_sleeper();
    uint64_t start_time;
    FD_AUTO int proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)state;
    init(&f);
    header.instance = f.instance;
    header.writer.pid = 1;
    assert_int_equal(process_boot_id(proc_fd, header.boot_id), 0);
    assert_int_equal(journal_start(f.journal_fd, &header, &e), 0);
    assert_int_equal(process_start_time(proc_fd, ours, &start_time), 0);
    struct journal_process p = {.slot = 3, .pid = ours, .start_time = start_time};
    assert_int_equal(journal_put(f.journal_fd, &header, &p, &e), 0);
    p = (struct journal_process){.slot = 4, .pid = other, .start_time = start_time - 1};
    assert_int_equal(journal_put(f.journal_fd, &header, &p, &e), 0);
    assert_int_equal(fixture_start(&f), 0);
    assert_false(process_lives(ours));
    assert_true(process_lives(other));
    (void)kill(other, SIGKILL);
    (void)waitpid(ours, NULL, 0);
    (void)waitpid(other, NULL, 0);
    assert_int_equal(fixture_stop(&f), 0);
}

/* The journal is rubbish: what is in cgroups of the instance's name goes all the same. */
static void test_corrupt_journal(void **state)
{
    FIXTURE_AUTO f;
    struct probe_report r;
    char rubbish[1000];
    FD_AUTO int socket = -1;

    (void)state;
    start(&f);
    pid_t pid = fixture_probe(&f, 6, &socket, &r);
    assert_int_equal(kill(f.priv_pid, SIGKILL), 0);
    (void)fixture_stop(&f);
    assert_true(process_ends(pid));
    pid_t left = start_sleeper();
    fixture_enter_cgroups(&f, "6", left);
    memset(rubbish, 0x5a, sizeof(rubbish));
    assert_int_equal(ftruncate(f.journal_fd, 0), 0);
    assert_int_equal(fd_pwrite_full(f.journal_fd, rubbish, sizeof(rubbish), 0), 0);
    assert_int_equal(fixture_start(&f), 0);
    assert_false(process_lives(left));
    (void)waitpid(left, NULL, 0);
    assert_int_equal(fixture_cgroups(&f, "6"), 0);
    assert_int_equal(fixture_stop(&f), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_priv),
        cmocka_unit_test(test_killed_while_starting),
        cmocka_unit_test(test_leftover_process),
        cmocka_unit_test(test_corrupt_journal),
    };

    if (argc > 1 && strcmp(argv[1], "--role=priv") == 0)
        _exit(priv_main());
    if (geteuid() != 0) {
        print_message("needs root\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
