/* Whose a process is: lent at its start, the table's while it is kept, its followers' after that.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/process/process_table.h"
#include "daemon/process/session.h"
#include "tests/fake_agent.h"

struct fixture {
    uv_loop_t loop;
    struct fake_agent agent;
    struct agent_link *link;
    struct process_memory memory;
    struct process_table table;
    struct process_follower follower;
    unsigned kept; /* by the table, when the follower heard of the end */
    struct fake_frame frame;
};

static void on_broken(void *arg, const struct error *why)
{
    (void)arg;
    (void)why;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error e = ERROR_INIT;

    assert_non_null(f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    int fd = fake_agent_init(&f->agent, &f->loop);
    assert_int_equal(agent_link_new(&f->loop, fd, on_broken, f, &f->link, &e), 0);
    process_table_init(&f->table, &f->memory);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    agent_link_free(f->link);
    process_table_fini(&f->table);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    fake_agent_fini(&f->agent);
    assert_int_equal(f->memory.bytes, 0);
    free(f);
    return 0;
}

static struct process *start(struct fixture *f, bool is_background)
{
    static const char *const argv[] = {"sh", NULL};
    static const struct env env;
    const struct process_spec spec = {.exec = {.argv = argv,
                                               .cwd = "/",
                                               .user = "",
                                               .env = &env,
                                               .has_stdin = true,
                                               .output_bytes_max = UINT64_MAX},
                                      .command = "sh",
                                      .is_background = is_background,
                                      .keeps_stdin = true,
                                      .ring_bytes = PROCESS_RING_BYTES_MIN};
    struct process *p = NULL;
    struct error e = ERROR_INIT;

    assert_int_equal(process_table_start(&f->table, &f->loop, f->link, &spec, &p, &e), 0);
    assert_true(fake_expect(&f->agent, CHANNEL_OPEN, &f->frame));
    return p;
}

static void end(struct fixture *f, uint32_t stream)
{
    fake_exec_end(&f->agent, stream, CHANNEL_EXEC_EXITED, 0);
}

static unsigned count(const struct process_table *t)
{
    const struct process *p;
    unsigned n = 0;

    TAILQ_FOREACH (p, &t->list, entry)
        n++;
    return n;
}

static void on_news(struct process_follower *follower)
{
    struct fixture *f = follower->owner;

    if (follower->process->state == PROCESS_ENDED)
        f->kept = count(&f->table);
}

/* Of a process in the foreground only its followers know any more when they hear of its end. */
static void test_foreground_is_lent(void **state)
{
    struct fixture *f = *state;
    struct process *p = start(f, false);

    assert_int_equal(p->references, 1);
    assert_int_equal(count(&f->table), 1);
    f->follower = (struct process_follower){.owner = f, .on_news = on_news};
    f->kept = 99;
    process_follow(p, &f->follower, 0);
    fake_exec_info(&f->agent, 1, 7);
    end(f, 1);
    assert_int_equal(f->kept, 0);
    assert_int_equal(p->references, 1);
    assert_null(p->table);
    process_table_remove(p); /* it is in none: nothing happens */
    assert_int_equal(p->references, 1);
    process_unfollow(&f->follower);
}

static void test_background_is_kept(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    struct process *p = start(f, true);

    assert_int_equal(p->references, 1);
    fake_exec_info(&f->agent, 1, 7);
    end(f, 1);
    assert_int_equal(p->state, PROCESS_ENDED);
    assert_ptr_equal(process_table_find(&f->table, "7", &e), p);
    process_table_remove(p);
    assert_null(process_table_find(&f->table, "7", &e));
    assert_int_equal(e.code, ERR_PROCESS_NOT_FOUND);
}

/* One that never ran is no process to look for. */
static void test_what_never_ran_is_not_kept(void **state)
{
    struct fixture *f = *state;

    (void)start(f, true);
    fake_failed(&f->agent, 1, ENOENT, "");
    assert_int_equal(count(&f->table), 0);
}

static void test_only_the_newest_are_kept(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    struct process *runs = start(f, true);

    fake_exec_info(&f->agent, 1, 1);
    for (uint32_t i = 0; i < PROCESS_ENDED_MAX + 2; i++) {
        (void)start(f, true);
        fake_exec_info(&f->agent, 2 + i, 2 + i);
        end(f, 2 + i);
    }
    assert_int_equal(count(&f->table), PROCESS_ENDED_MAX + 1);
    assert_ptr_equal(process_table_find(&f->table, "1", &e), runs);
    assert_null(process_table_find(&f->table, "2", &e));
    assert_null(process_table_find(&f->table, "3", &e));
    assert_non_null(process_table_find(&f->table, "4", &e));
}

/* A session lends as the table does: the command's one reference is the session's. */
static void test_session_lends(void **state)
{
    struct fixture *f = *state;
    const struct session_command command = {.text = "true", .output_bytes_max = UINT64_MAX};
    struct session *session = NULL;
    struct process *p = NULL;
    struct error e = ERROR_INIT;
    struct process *shell = start(f, true);

    assert_int_equal(session_new(&f->loop, &f->table, "main", shell, &session, &e), 0);
    assert_int_equal(session_run(session, &command, &p, &e), 0);
    assert_int_equal(p->references, 1);
    assert_null(p->table);
    f->follower = (struct process_follower){.owner = f, .on_news = on_news};
    process_follow(p, &f->follower, 0);
    fake_exec_info(&f->agent, 1, 7);
    end(f, 1);
    assert_int_equal(p->state, PROCESS_ENDED);
    assert_int_equal(p->references, 1);
    process_unfollow(&f->follower);
}

#define TABLE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TABLE_TEST(test_foreground_is_lent),
        TABLE_TEST(test_background_is_kept),
        TABLE_TEST(test_what_never_ran_is_not_kept),
        TABLE_TEST(test_only_the_newest_are_kept),
        TABLE_TEST(test_session_lends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
