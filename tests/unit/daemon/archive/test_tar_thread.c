/*
 * A transfer's thread, seen from the loop: what it is given and what it tells, that it ends once
 * however it ends, and that neither a thread nor a descriptor is left of it.
 */
#include <dirent.h>
#include <uv.h>

#include "daemon/archive/tar_thread.h"
#include "tar_fixture.h"

#define SENT_MAX     (24 * MIB)
#define FAULT_OFFSET MIB /* more than a socket holds */

struct client {
    uv_loop_t loop;
    uv_idle_t idle; /* keeps sending, as a client does that reads no reply yet */
    struct tar_thread *thread;
    const uint8_t *data;
    size_t size, sent;
    bool is_stuck; /* until on_writable */
    bool is_finished;
    bool pauses;  /* on each on_data, until the next turn */
    bool is_slow; /* sends as much as goes; pauses until the thread has had time to get stuck too */
    unsigned stuck_turns;
    bool is_paused;
    struct buffer out;
    unsigned ends;
    struct error why;
};

static size_t count_entries(const char *path)
{
    DIR *dir = opendir(path);
    size_t count = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    (void)closedir(dir);
    return count;
}

/* A thread that was joined may still be listed for a moment. */
static void expect_none_left(size_t threads, size_t fds)
{
    while (count_entries("/proc/self/task") != threads)
        (void)usleep(1000);
    assert_int_equal(count_entries("/proc/self/fd"), fds);
}

static void on_data(void *arg, const uint8_t *data, size_t size)
{
    struct client *c = arg;

    assert_int_equal(c->ends, 0);
    assert_false(c->is_paused);
    assert_int_equal(buffer_append(&c->out, data, size), 0);
    if (c->pauses) {
        tar_thread_pause(c->thread);
        c->is_paused = true;
    }
}

static void on_writable(void *arg)
{
    struct client *c = arg;

    assert_true(c->is_stuck && c->ends == 0);
    c->is_stuck = false;
}

static void on_end(void *arg, const struct error *why)
{
    struct client *c = arg;

    assert_int_equal(c->ends, 0);
    c->ends++;
    c->thread = NULL;
    if (why != NULL)
        c->why = *why;
    (void)uv_idle_stop(&c->idle);
}

static void on_idle(uv_idle_t *idle)
{
    struct client *c = idle->data;
    size_t left = c->size - c->sent;
    size_t piece = left < 8 * KIB || c->is_slow ? left : 8 * KIB;

    if (c->is_paused && (!c->is_slow || left == 0 || c->stuck_turns > 1)) {
        c->is_paused = false;
        tar_thread_resume(c->thread);
    }
    c->stuck_turns = c->is_stuck && c->is_paused ? c->stuck_turns + 1 : 0;
    if (c->stuck_turns > 0)
        (void)usleep(1000);
    if (piece > 0 && !c->is_stuck) {
        size_t taken = tar_thread_send(c->thread, c->data + c->sent, piece);
        assert_true(taken <= piece);
        c->is_stuck = taken < piece;
        c->sent += taken;
    } else if (piece == 0 && !c->is_finished) {
        tar_thread_finish(c->thread);
        c->is_finished = true;
    }
}

static void begin(struct client *c, const void *data, size_t size)
{
    static const struct tar_thread_calls calls = {
        .on_data = on_data, .on_writable = on_writable, .on_end = on_end};
    struct error e = ERROR_INIT;

    c->data = data;
    c->size = size;
    c->out = (struct buffer)BUFFER_INIT(OUT_MAX);
    assert_int_equal(uv_loop_init(&c->loop), 0);
    assert_int_equal(uv_idle_init(&c->loop, &c->idle), 0);
    c->idle.data = c;
    assert_int_equal(uv_idle_start(&c->idle, on_idle), 0);
    assert_int_equal(tar_thread_new(&c->loop, TAR_UNPACK, &calls, c, &c->thread, &e), 0);
}

/* All handles close by themselves, or this does not return. */
static void finish(struct client *c)
{
    uv_close((uv_handle_t *)&c->idle, NULL);
    (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&c->loop), 0);
    buffer_fini(&c->out);
}

static struct buffer endless_map(void)
{
    static const char records[] = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
                                  "27 GNU.sparse.realsize=100\n";
    struct tar t = begin_tar();

    put_plain(&t, "before", '0', NULL);
    put(&t, &(struct header){
                .name = "pax", .type = 'x', .content = records, .size = sizeof(records) - 1});
    put(&t, &(struct header){.name = "holes", .type = '0', .size_text = "00777777777"});
    assert_int_equal(buffer_append_text(&t.bytes, "99999999\n"), 0);
    while (t.bytes.size < SENT_MAX)
        assert_int_equal(buffer_append_text(&t.bytes, "0\n0\n"), 0);
    return t.bytes;
}

static void test_whole(void **state)
{
    struct tar t = begin_tar();
    char *content = calloc(1, 2 * MIB);

    (void)state;
    assert_non_null(content);
    put(&t, &(struct header){.name = "f", .type = '0', .content = content, .size = 2 * MIB});
    end_tar(&t);
    for (int pauses = 0; pauses < 2; pauses++) {
        struct client c = {.pauses = pauses};
        begin(&c, buffer_bytes(&t.bytes), t.bytes.size);
        while (c.ends == 0)
            (void)uv_run(&c.loop, UV_RUN_ONCE);
        assert_int_equal(c.why.code, ERR_NONE);
        assert_true(c.out.size > 2 * MIB && c.out.size < 2 * MIB + 100);
        finish(&c);
    }
    free(content);
    buffer_fini(&t.bytes);
}

static void on_timer(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

/* With nothing to send and nothing to take it costs the loop no turn. */
static void test_idle(void **state)
{
    struct client c = {0};
    uv_timer_t timer;
    bool is_over = false;
    unsigned turns = 0;

    (void)state;
    begin(&c, NULL, 0);
    (void)uv_idle_stop(&c.idle);
    assert_int_equal(uv_timer_init(&c.loop, &timer), 0);
    timer.data = &is_over;
    assert_int_equal(uv_timer_start(&timer, on_timer, 50, 0), 0);
    for (; !is_over; turns++)
        (void)uv_run(&c.loop, UV_RUN_ONCE);
    assert_true(turns <= 2);
    uv_close((uv_handle_t *)&timer, NULL);
    tar_thread_abandon(c.thread);
    finish(&c);
}

/* The bound of a header strikes while the client goes on: it is told, once, and what it still sends
 * is swallowed until then; nothing is left of the thread. */
static void test_refused_midway(void **state)
{
    struct buffer archive = endless_map();
    size_t threads = count_entries("/proc/self/task"), fds = count_entries("/proc/self/fd");

    (void)state;
    for (int pauses = 0; pauses < 2; pauses++) {
        struct client c = {.pauses = pauses};
        begin(&c, buffer_bytes(&archive), archive.size);
        while (c.ends == 0)
            (void)uv_run(&c.loop, UV_RUN_ONCE);
        assert_int_equal(c.why.code, ERR_ARCHIVE_REFUSED);
        assert_non_null(strstr(c.why.message, "\"holes\""));
        assert_true(c.out.size > 0 && c.out.size < 100); /* "before" */
        finish(&c);
        expect_none_left(threads, fds);
    }
    buffer_fini(&archive);
}

/* The thread's end shows as an error on the socket when it comes while a send waits: who has paused
 * is given nothing all the same, and the rest of what came out when it goes on. */
static void test_refused_while_paused(void **state)
{
    struct tar t = begin_tar();
    char *content = calloc(1, FAULT_OFFSET);
    struct client c = {.pauses = true, .is_slow = true};

    (void)state;
    assert_non_null(content);
    put(&t, &(struct header){.name = "f", .type = '0', .content = content, .size = FAULT_OFFSET});
    while (t.bytes.size < 4 * MIB)
        assert_int_equal(buffer_append_text(&t.bytes, "no header"), 0);
    begin(&c, buffer_bytes(&t.bytes), t.bytes.size);
    while (c.ends == 0)
        (void)uv_run(&c.loop, UV_RUN_ONCE);
    assert_int_equal(c.why.code, ERR_ARCHIVE_REFUSED);
    assert_true(c.out.size > FAULT_OFFSET && c.out.size < FAULT_OFFSET + 100);
    finish(&c);
    free(content);
    buffer_fini(&t.bytes);
}

/* Given up at any time, before the bound strikes and after it. */
static void test_abandoned(void **state)
{
    struct buffer archive = endless_map();
    size_t threads = count_entries("/proc/self/task"), fds = count_entries("/proc/self/fd");

    (void)state;
    for (size_t turns = 0; turns < 40; turns++) {
        struct client c = {0};
        begin(&c, buffer_bytes(&archive), archive.size);
        for (size_t i = 0; i < turns && c.ends == 0; i++)
            (void)uv_run(&c.loop, UV_RUN_ONCE);
        tar_thread_abandon(c.thread);
        (void)uv_idle_stop(&c.idle);
        unsigned ends = c.ends;
        finish(&c);
        assert_int_equal(c.ends, ends);
        expect_none_left(threads, fds);
    }
    tar_thread_abandon(NULL);
    buffer_fini(&archive);
}

/* As many as there may be, one that may not, and again as many when they have gone. */
static void test_too_many(void **state)
{
    static const struct tar_thread_calls calls = {
        .on_data = on_data, .on_writable = on_writable, .on_end = on_end};
    struct tar_thread *threads[TAR_THREADS_MAX], *another = NULL;
    uv_loop_t loop;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    for (int round = 0; round < 2; round++) {
        struct error e = ERROR_INIT;
        for (unsigned i = 0; i < TAR_THREADS_MAX; i++)
            assert_int_equal(tar_thread_new(&loop, TAR_PACK, &calls, NULL, &threads[i], &e), 0);
        assert_int_equal(tar_thread_new(&loop, TAR_PACK, &calls, NULL, &another, &e), -1);
        assert_int_equal(e.code, ERR_NO_CAPACITY);
        assert_true(another == NULL && e.remedy[0] != '\0');
        for (unsigned i = 0; i < TAR_THREADS_MAX; i++)
            tar_thread_abandon(threads[i]);
        (void)uv_run(&loop, UV_RUN_DEFAULT);
    }
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),          cmocka_unit_test(test_idle),
        cmocka_unit_test(test_refused_midway), cmocka_unit_test(test_refused_while_paused),
        cmocka_unit_test(test_abandoned),      cmocka_unit_test(test_too_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
