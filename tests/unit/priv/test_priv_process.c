/* Start times out of /proc/PID/stat, whatever a process calls itself. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "priv/process.h"

#define REST " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 "

static int parse(const char *text, uint64_t *ret)
{
    size_t size = strlen(text);
    char *exact = malloc(size > 0 ? size : 1);

    memcpy(exact, text, size);
    int r = process_stat_parse(exact, size, ret);
    free(exact);
    return r;
}

static void test_stat(void **state)
{
    uint64_t value = 0;

    (void)state;
    assert_int_equal(parse("42 (sh)" REST "987654 99 100\n", &value), 0);
    assert_int_equal(value, 987654);
    assert_int_equal(parse("42 (a) R 1 (b) c)" REST "5 6\n", &value), 0);
    assert_int_equal(value, 5);
    assert_int_equal(parse("42 ()" REST "18446744073709551615 6\n", &value), 0);
    assert_int_equal(value, UINT64_MAX);
}

static void test_bad_stat(void **state)
{
    static const char *const texts[] = {
        "",
        ")",
        "42",
        "42 (sh)",
        "42 (sh)" REST,
        "42 (sh)" REST "x ",
        "42 (sh)" REST "-1 ",
        "42 (sh)" REST "12",
        "42 (sh)" REST "18446744073709551616 ",
        "42 (sh) S 1 2 3",
        "(((",
        "42 sh" REST "5 6\n",
    };
    uint64_t value = 7;

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (parse(texts[i], &value) == 0)
            fail_msg("'%s' was taken", texts[i]);
        assert_int_equal(value, 7);
    }
}

static void test_live(void **state)
{
    uint64_t a = 0;
    uint64_t b = 0;
    uint8_t id[2][16];
    FD_AUTO int proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)state;
    assert_int_equal(process_start_time(proc_fd, getpid(), &a), 0);
    assert_int_equal(process_start_time(proc_fd, getpid(), &b), 0);
    assert_true(a > 0);
    assert_int_equal(a, b);
    assert_int_equal(process_start_time(proc_fd, 1 << 22, &b), -1);
    assert_int_equal(process_boot_id(proc_fd, id[0]), 0);
    assert_int_equal(process_boot_id(proc_fd, id[1]), 0);
    assert_memory_equal(id[0], id[1], 16);
}

static void test_kill_and_wait(void **state)
{
    int status;
    pid_t pid = fork();

    (void)state;
    if (pid == 0)
        for (;;)
            (void)pause();
    FD_AUTO int fd = process_open(pid);
    assert_true(fd >= 0);
    assert_int_equal(process_wait(fd, 1), -1);
    assert_int_equal(process_kill(fd), 0);
    assert_int_equal(process_wait(fd, 5000), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(process_kill(fd), -1);
    assert_int_equal(errno, ESRCH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stat),
        cmocka_unit_test(test_bad_stat),
        cmocka_unit_test(test_live),
        cmocka_unit_test(test_kill_and_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
