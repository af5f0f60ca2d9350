/* How the agent ends commands: signals, RESET, and what a command leaves behind. */
#include "test_agent_peer.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>

static int set_up(void **state)
{
    struct peer *p = calloc(1, sizeof(*p));

    peer_start(p, true);
    *state = p;
    return 0;
}

static int set_up_without_cgroup(void **state)
{
    struct peer *p = calloc(1, sizeof(*p));

    peer_start(p, false);
    *state = p;
    return 0;
}

static int set_up_with_a_long_grace(void **state)
{
    peer_grace_ns = PEER_WAIT_MS * NS_PER_MS;
    int result = set_up(state);
    peer_grace_ns = 0;
    return result;
}

static int tear_down(void **state)
{
    peer_stop(*state, 0);
    free(*state);
    return 0;
}

static void run(struct peer *p, const char *script, struct peer_result *r)
{
    peer_result_init(r);
    peer_finish(p, peer_shell(p, script, false), r);
}

static void test_signal_reaches_the_group(void **state)
{
    static struct peer_frame f;
    struct peer *p = *state;
    struct peer_result r;
    uint32_t id =
        peer_shell(p, "trap 'echo term; exit 3' TERM; echo up; sleep 60 & wait; echo no", false);

    peer_result_init(&r);
    do {
        assert_true(peer_receive(p, &f));
        (void)peer_take(&r, &f);
    } while (f.h.type != CHANNEL_DATA);
    peer_send_u32(p, id, CHANNEL_SIGNAL, 0, 4711); /* no such signal: nothing */
    peer_send_u32(p, id, CHANNEL_SIGNAL, 0, SIGTERM);
    peer_finish(p, id, &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "up\nterm\n"));
    assert_int_equal(r.code, 3);
    peer_result_fini(&r);
}

/* How many processes have exactly these two arguments. One that has ended has no arguments. */
static unsigned count_running(const char *program, const char *argument)
{
    char expected[64], path[300], text[64];
    DIR *dir = opendir("/proc");
    unsigned count = 0;
    int size = snprintf(expected, sizeof(expected), "%s%c%s", program, '\0', argument) + 1;

    assert_non_null(dir);
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        (void)snprintf(path, sizeof(path), "/proc/%s/cmdline", entry->d_name);
        int fd = open(path, O_RDONLY);
        if (fd < 0)
            continue;
        count += read(fd, text, sizeof(text)) == size && memcmp(text, expected, (size_t)size) == 0;
        (void)close(fd);
    }
    (void)closedir(dir);
    return count;
}

static void wait_until_running(const char *program, const char *argument, unsigned count)
{
    for (int i = 0; i < PEER_WAIT_MS / 10 && count_running(program, argument) != count; i++)
        (void)usleep(10000);
    assert_int_equal(count_running(program, argument), count);
}

/* setsid, double fork, a parent that is gone: RESET reaches all of them. */
static void test_reset_kills_every_descendant(void **state)
{
    static struct peer_frame f;
    struct peer *p = *state;
    struct peer_result r;
    uint32_t id = peer_shell(p,
                             "setsid sleep 86401 & (setsid sh -c 'sleep 86401 & sleep 86401' &)"
                             "; echo up; sleep 86401",
                             false);

    if (p->cgroup[0] == '\0')
        skip();
    peer_result_init(&r);
    do {
        assert_true(peer_receive(p, &f));
        (void)peer_take(&r, &f);
    } while (f.h.type != CHANNEL_DATA);
    wait_until_running("sleep", "86401", 4);
    peer_send(p, id, CHANNEL_RESET, 0, NULL, 0);
    peer_finish(p, id, &r);
    assert_int_equal(r.kind, CHANNEL_EXEC_SIGNALED);
    assert_int_equal(r.code, SIGKILL);
    assert_int_equal(count_running("sleep", "86401"), 0);
    peer_result_fini(&r);
}

/* A background process that holds stdout does not keep END from coming, and is gone then. */
static void test_background_process_is_killed(void **state)
{
    struct peer *p = *state;
    struct peer_result r;

    if (p->cgroup[0] == '\0')
        skip();
    run(p, "setsid sleep 86402 & echo main", &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "main\n"));
    assert_int_equal(r.code, 0);
    peer_result_fini(&r);
    assert_int_equal(count_running("sleep", "86402"), 0);
    /* One that holds no pipe is killed without grace, and END still waits for its end. */
    run(p, "setsid sleep 86403 >/dev/null 2>&1 & exit 5", &r);
    assert_int_equal(r.code, 5);
    peer_result_fini(&r);
    assert_int_equal(count_running("sleep", "86403"), 0);
}

/* What it writes within the grace still comes; here that is as long as it takes. */
static void test_background_process_has_a_grace(void **state)
{
    struct peer_result r;

    run(*state, "(sleep 0.1; echo late) & echo main", &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "main\nlate\n"));
    assert_int_equal(r.code, 0);
    peer_result_fini(&r);
}

static void test_background_without_cgroup(void **state)
{
    struct peer_result r;

    run(*state, "sleep 86404 & echo main", &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "main\n"));
    peer_result_fini(&r);
    wait_until_running("sleep", "86404", 0); /* nobody waits for its end there */
}

/* A pipe that a process of another command holds open does not keep END from coming. */
static void test_pipe_held_by_another_command(void **state)
{
    static struct peer_frame f;
    struct peer *p = *state;
    struct peer_result r, other;
    char script[128];

    if (p->cgroup[0] == '\0')
        skip();
    uint32_t first = peer_shell(p, "echo up; read line; echo more; exit 4", true);
    peer_result_init(&r);
    do {
        assert_true(peer_receive(p, &f));
        (void)peer_take(&r, &f);
    } while (f.h.type != CHANNEL_DATA);
    (void)snprintf(script, sizeof(script), "exec 5>/proc/%u/fd/1; echo held >&2; sleep 60", r.pid);
    uint32_t second = peer_shell(p, script, false);
    peer_result_init(&other);
    do {
        assert_true(peer_receive(p, &f));
        (void)peer_take(&other, &f);
    } while (f.h.type != CHANNEL_DATA);
    assert_true(peer_lane_is(&other, CHANNEL_LANE_ERR, "held\n"));
    peer_send(p, first, CHANNEL_DATA, 0, "\n", 1);
    peer_finish(p, first, &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "up\nmore\n"));
    assert_int_equal(r.code, 4);
    peer_send(p, second, CHANNEL_RESET, 0, NULL, 0);
    peer_finish(p, second, &other);
    peer_result_fini(&other);
    peer_result_fini(&r);
}

#define KILL_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        KILL_TEST(test_signal_reaches_the_group),
        KILL_TEST(test_reset_kills_every_descendant),
        KILL_TEST(test_background_process_is_killed),
        cmocka_unit_test_setup_teardown(test_background_process_has_a_grace,
                                        set_up_with_a_long_grace, tear_down),
        cmocka_unit_test_setup_teardown(test_background_without_cgroup, set_up_without_cgroup,
                                        tear_down),
        KILL_TEST(test_pipe_held_by_another_command),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
