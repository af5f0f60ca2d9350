/* DIFF: what has changed below directories that stand for the layers of an overlay. */
#include "test_agent_peer.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

struct fixture {
    struct peer peer;
    char dir[64];
};

/* Runs a shell in the test's directory. */
static void sh(struct fixture *f, const char *script)
{
    char text[2048];

    (void)snprintf(text, sizeof(text), "cd %s && (%s)", f->dir, script);
    pid_t pid = vfork();
    if (pid == 0) {
        (void)execl("/bin/sh", "sh", "-ec", text, NULL);
        _exit(127);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static int open_layer(const struct fixture *f, const char *name)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    return open(path, O_PATH | O_DIRECTORY);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/cloche-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    sh(f, "mkdir upper lower tmp lower/etc; echo t >lower/etc/conf; echo t >lower/etc/gone");
    peer_layers = (struct layers){.upper_fd = open_layer(f, "upper"),
                                  .lower_fd = open_layer(f, "lower"),
                                  .tmp_fd = open_layer(f, "tmp")};
    peer_start(&f->peer, false);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    peer_stop(&f->peer, 0);
    close(peer_layers.upper_fd);
    close(peer_layers.lower_fd);
    close(peer_layers.tmp_fd);
    peer_layers = (struct layers)LAYERS_NONE;
    sh(f, "rm -rf upper lower tmp");
    (void)rmdir(f->dir);
    free(f);
    return 0;
}

static uint32_t begin(struct fixture *f)
{
    uint8_t bytes[2];
    struct wire_writer w;
    struct peer_frame frame;
    uint32_t id = f->peer.next_stream++;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u16(&w, CHANNEL_OP_DIFF);
    peer_send(&f->peer, id, CHANNEL_OPEN, 0, bytes, sizeof(bytes));
    assert_true(peer_receive(&f->peer, &frame));
    assert_int_equal(frame.h.type, CHANNEL_INFO);
    return id;
}

/* The events as text, a line each, sorted: "+path", "~path", "-path", a slash behind directories.
 */
static void finish(struct fixture *f, uint32_t id, const char *wanted)
{
    static const char marks[] = "?+~-";
    char lines[64][CHANNEL_PATH_MAX + 4];
    struct buffer text = BUFFER_INIT(sizeof(lines));
    struct peer_result r;
    struct wire_reader in;
    size_t count = 0;

    peer_result_init(&r);
    peer_send(&f->peer, id, CHANNEL_EOF, 0, NULL, 0);
    r.has_info = true;
    peer_finish(&f->peer, id, &r);
    assert_int_equal(r.status, 0);
    assert_int_equal(r.flags, 0);
    wire_reader_init(&in, buffer_bytes(&r.lanes[CHANNEL_LANE_IN]), r.lanes[CHANNEL_LANE_IN].size);
    while (in.left > 0) {
        size_t size = 0, from_size = 0;
        uint32_t kind = wire_get_u32(&in);
        uint32_t is_directory = wire_get_u32(&in);
        const char *path = wire_get_string(&in, CHANNEL_PATH_MAX, &size);
        (void)wire_get_string(&in, CHANNEL_PATH_MAX, &from_size);
        assert_false(in.bad);
        assert_in_range(kind, CHANNEL_EVENT_CREATED, CHANNEL_EVENT_DELETED);
        assert_int_equal(from_size, 0);
        assert_true(count < 64);
        (void)snprintf(lines[count++], sizeof(lines[0]), "%c%.*s%s\n", marks[kind], (int)size, path,
                       is_directory ? "/" : "");
    }
    qsort(lines, count, sizeof(lines[0]),
          (int (*)(const void *, const void *))(void (*)(void))strcmp);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(buffer_append_text(&text, lines[i]), 0);
    assert_int_equal(buffer_append(&text, "", 1), 0);
    assert_string_equal((const char *)buffer_bytes(&text), wanted);
    buffer_fini(&text);
    peer_result_fini(&r);
}

static void test_changes(void **state)
{
    struct fixture *f = *state;

    sh(f, "mkdir -p upper/w/old; echo 1 >upper/w/same; echo 1 >upper/w/changed; echo 1 >upper/w/rm;"
          "echo 1 >upper/w/old/x; echo 1 >tmp/t; mkdir tmp/d; ln -s same upper/w/link");
    uint32_t id = begin(f);
    sh(f, "echo 22 >upper/w/changed; rm upper/w/rm; rm -r upper/w/old; mkdir -p upper/w/new/er;"
          "echo 1 >upper/w/new/y; echo 2 >>tmp/t; rmdir tmp/d; ln -sf other upper/w/link;"
          "chmod 700 upper/w");
    finish(f, id,
           "+/w/new/\n+/w/new/er/\n+/w/new/y\n-/tmp/d/\n-/w/old/\n-/w/old/x\n-/w/rm\n"
           "~/tmp/t\n~/w/\n~/w/changed\n~/w/link\n");
}

/* What an overlay does in its upper directory: copies what is changed, marks what is deleted. */
static void test_files_of_the_template(void **state)
{
    struct fixture *f = *state;

    if (getuid() != 0)
        skip();
    uint32_t id = begin(f);
    sh(f, "mkdir upper/etc; echo changed >upper/etc/conf; mknod upper/etc/gone c 0 0;"
          "echo 1 >upper/etc/new");
    finish(f, id, "+/etc/new\n-/etc/gone\n~/etc/conf\n");
    id = begin(f);
    sh(f, "rm upper/etc/gone; echo back >upper/etc/gone; rm upper/etc/conf;"
          "mknod upper/etc/conf c 0 0");
    finish(f, id, "+/etc/gone\n-/etc/conf\n");
    id = begin(f);
    finish(f, id, "");
}

static void test_several_at_once_and_given_up(void **state)
{
    struct fixture *f = *state;
    uint32_t first = begin(f);
    struct peer_result r;

    sh(f, "echo 1 >upper/a");
    uint32_t second = begin(f);
    sh(f, "echo 1 >upper/b");
    uint32_t third = begin(f);
    finish(f, second, "+/b\n");
    finish(f, first, "+/a\n+/b\n");
    peer_result_init(&r);
    peer_send(&f->peer, third, CHANNEL_RESET, 0, NULL, 0);
    r.has_info = true;
    peer_finish(&f->peer, third, &r);
    assert_int_equal(r.status, ECANCELED);
    peer_result_fini(&r);
}

/* More than one reply may tell is left out and said so: past that the host would take the guest for
 * hostile. */
static void test_more_than_can_be_told(void **state)
{
    struct fixture *f = *state;
    struct peer_result r;
    uint32_t id = begin(f);

    sh(f, "a=$(printf '%0250d' 0); d=upper/$a/$a/$a/$a/$a/$a/$a/$a; mkdir -p $d;"
          "(cd $d && i=0; while [ $i -lt 1100 ]; do : >$i; i=$((i + 1)); done)");
    peer_result_init(&r);
    peer_send(&f->peer, id, CHANNEL_EOF, 0, NULL, 0);
    r.has_info = true;
    peer_finish(&f->peer, id, &r);
    assert_int_equal(r.status, 0);
    assert_int_equal(r.flags, CHANNEL_END_MORE);
    assert_int_equal(r.bytes, r.lanes[CHANNEL_LANE_IN].size);
    assert_in_range(r.bytes, FILE_RECORDS_BYTES_MAX - 2 * 4096, FILE_RECORDS_BYTES_MAX);
    peer_result_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_changes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_files_of_the_template, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_several_at_once_and_given_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_more_than_can_be_told, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
