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

/* Is there a process with exactly these two arguments? */
static bool is_running(const char *program, const char *argument)
{
    char expected[64], path[300], text[64];
    DIR *dir = opendir("/proc");
    bool found = false;
    int size = snprintf(expected, sizeof(expected), "%s%c%s", program, '\0', argument) + 1;

    assert_non_null(dir);
    for (struct dirent *entry = readdir(dir); entry != NULL && !found; entry = readdir(dir)) {
        (void)snprintf(path, sizeof(path), "/proc/%s/cmdline", entry->d_name);
        int fd = open(path, O_RDONLY);
        if (fd < 0)
            continue;
        found = read(fd, text, sizeof(text)) == size && memcmp(text, expected, (size_t)size) == 0;
        (void)close(fd);
    }
    (void)closedir(dir);
    return found;
}

static void wait_until_gone(const char *program, const char *argument)
{
    for (int i = 0; i < 200 && is_running(program, argument); i++)
        (void)usleep(10000);
    assert_false(is_running(program, argument));
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
    (void)usleep(100000);
    peer_send(p, id, CHANNEL_RESET, 0, NULL, 0);
    peer_finish(p, id, &r);
    assert_int_equal(r.kind, CHANNEL_EXEC_SIGNALED);
    assert_int_equal(r.code, SIGKILL);
    wait_until_gone("sleep", "86401");
    peer_result_fini(&r);
}

/* A background process that holds stdout does not keep END from coming; its output of the grace
 * still does. */
static void test_background_process_is_killed(void **state)
{
    struct peer *p = *state;
    struct peer_result r;

    if (p->cgroup[0] == '\0')
        skip();
    run(p, "(sleep 0.05; echo late; exec setsid sleep 86402) & echo main", &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "main\nlate\n"));
    assert_int_equal(r.code, 0);
    peer_result_fini(&r);
    wait_until_gone("sleep", "86402");
    /* One that holds no pipe is killed without grace, and END still waits for its end. */
    run(p, "setsid sleep 86403 >/dev/null 2>&1 & exit 5", &r);
    assert_int_equal(r.code, 5);
    peer_result_fini(&r);
    wait_until_gone("sleep", "86403");
}

static void test_background_without_cgroup(void **state)
{
    struct peer_result r;

    run(*state, "sleep 86404 & echo main", &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "main\n"));
    peer_result_fini(&r);
    wait_until_gone("sleep", "86404");
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
    uint32_t first = peer_shell(p, "echo up; sleep 1; echo more; exit 4", false);
    peer_result_init(&r);
    do {
        assert_true(peer_receive(p, &f));
        (void)peer_take(&r, &f);
    } while (f.h.type != CHANNEL_DATA);
    (void)snprintf(script, sizeof(script), "exec 5>/proc/%u/fd/1; echo held >&2; sleep 60", r.pid);
    uint32_t second = peer_shell(p, script, false);
    peer_finish(p, first, &r);
    assert_true(peer_lane_is(&r, CHANNEL_LANE_OUT, "up\nmore\n"));
    assert_int_equal(r.code, 4);
    peer_send(p, second, CHANNEL_RESET, 0, NULL, 0);
    peer_result_init(&other);
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
        cmocka_unit_test_setup_teardown(test_background_without_cgroup, set_up_without_cgroup,
                                        tear_down),
        KILL_TEST(test_pipe_held_by_another_command),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
