/* The parts of `cloche serve` before it becomes the daemon: options, state directory, socket,
 * settings. Those that change owners need root. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/log.h"
#include "cloche/limits.h"
#include "ipc/handover.h"
#include "serve/inputs.h"
#include "serve/listen.h"
#include "serve/options.h"
#include "serve/state_dir.h"

#define UID 2099000000u

struct fixture {
    char dir[64];
};

static int set_up(void **state)
{
    static struct fixture f;

    (void)snprintf(f.dir, sizeof(f.dir), "/tmp/cloche-test-serve-XXXXXX");
    *state = &f;
    return mkdtemp(f.dir) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {
        "state/lock",    "state/journal", "state/foreign", "state/snapshots",
        "state/scratch", "state/tmp",     "state",         "link",
        "run/sock",      "run",           "a/b",           "a",
        "file",          "fifo"};
    char path[128];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", f->dir, names[i]);
        (void)remove(path);
    }
    return rmdir(f->dir);
}

static bool lacks_root(void)
{
    if (geteuid() == 0)
        return false;
    print_message("needs root\n");
    return true;
}

static const char *in(const struct fixture *f, const char *name)
{
    static char path[4][128];
    static unsigned next;
    char *p = path[next++ % 4];

    (void)snprintf(p, 128, "%s/%s", f->dir, name);
    return p;
}

static void make_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    (void)close(fd);
}

static int parse(struct serve_options *o, struct error *e, const char *a, const char *b)
{
    char name[] = "serve";
    char first[256];
    char second[256];
    char *argv[] = {name, first, second, NULL};

    (void)snprintf(first, sizeof(first), "%s", a != NULL ? a : "");
    (void)snprintf(second, sizeof(second), "%s", b != NULL ? b : "");
    return options_parse(a == NULL ? 1 : b == NULL ? 2 : 3, argv, o, e);
}

static void test_options(void **state)
{
    struct serve_options o;
    struct error e = ERROR_INIT;

    (void)state;
    assert_int_equal(parse(&o, &e, NULL, NULL), 0);
    assert_string_equal(o.state_dir, SERVE_STATE_DIR);
    assert_string_equal(o.socket, SERVE_SOCKET);
    assert_int_equal(o.uid_base, SERVE_UID_BASE);
    assert_int_equal(o.log_level, LOG_INFO);
    assert_false(o.config_given || o.help);
    assert_null(o.images);
    assert_int_equal(parse(&o, &e, "--config=/x", NULL), 0);
    assert_true(o.config_given);
    assert_int_equal(parse(&o, &e, "--log-level", "debug"), 0);
    assert_int_equal(o.log_level, LOG_DEBUG);
    assert_int_equal(parse(&o, &e, "--uid-base", "5000"), 0);
    assert_int_equal(o.uid_base, 5000);
    assert_int_equal(parse(&o, &e, "--socket-group", "0"), 0);
    assert_int_equal(parse(&o, &e, "--help", NULL), 0);
    assert_true(o.help);
}

static void test_bad_options(void **state)
{
    static const char *const bad[][2] = {
        {"--nonsense", NULL},
        {"--state-dir", NULL},
        {"--state-dir", ""},
        {"extra", NULL},
        {"--log-level", "loud"},
        {"--uid-base", "0"},
        {"--uid-base", "-1"},
        {"--uid-base", "5x"},
        {"--uid-base", "4294967295"},
        {"--uid-base", "18446744073709551616"},
        {"--socket-group", "no-such-group"},
        {"--help=yes", NULL},
        {"-x", NULL},
        {"--socket",
         "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct serve_options o;
        struct error e = ERROR_INIT;

        assert_int_equal(parse(&o, &e, bad[i][0], bad[i][1]), -1);
        assert_int_equal(e.code, ERR_USAGE);
        assert_true(e.message[0] != '\0');
    }
}

static void test_state_dir(void **state)
{
    struct fixture *f = *state;
    struct state_dir d;
    struct state_dir second;
    struct error e = ERROR_INIT;
    struct stat st;

    if (lacks_root())
        skip();
    assert_int_equal(state_dir_open(in(f, "state"), UID, 0, &d, &e), 0);
    assert_int_equal(stat(in(f, "state"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(st.st_uid, 0);
    assert_int_equal(fstat(d.scratch_fd, &st), 0);
    assert_int_equal(st.st_uid, UID);
    assert_int_equal(st.st_mode & 07777, 0700);
    /* A second one finds the lock taken, and says by whom; also through another name. */
    assert_int_equal(symlink(in(f, "state"), in(f, "link")), 0);
    assert_int_equal(state_dir_open(in(f, "link"), UID, 50, &second, &e), -1);
    assert_int_equal(e.code, ERR_ALREADY_RUNNING);
    char pid[16];
    (void)snprintf(pid, sizeof(pid), "pid %d ", getpid());
    assert_non_null(strstr(e.message, pid));
    assert_true(e.remedy[0] != '\0');
    uint64_t instance = d.instance;
    state_dir_close(&d);
    assert_int_equal(state_dir_open(in(f, "link"), UID, 0, &d, &e), 0);
    assert_int_equal(d.instance, instance);
    state_dir_close(&d);
    /* The snapshots in it could not be read by another uid. */
    assert_int_equal(state_dir_open(in(f, "link"), UID + 1, 0, &d, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    assert_non_null(strstr(e.remedy, "--uid-base"));
}

static void test_foreign_state_dir(void **state)
{
    struct fixture *f = *state;
    struct state_dir d;
    struct error e = ERROR_INIT;
    struct stat st;

    if (lacks_root())
        skip();
    /* Somebody's folder with something in it: neither used nor changed. */
    assert_int_equal(mkdir(in(f, "state"), 0755), 0);
    make_file(in(f, "state/foreign"));
    assert_int_equal(state_dir_open(in(f, "state"), UID, 0, &d, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    assert_int_equal(stat(in(f, "state"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    /* Another user's, even an empty one. */
    assert_int_equal(unlink(in(f, "state/foreign")), 0);
    assert_int_equal(chown(in(f, "state"), UID, UID), 0);
    assert_int_equal(state_dir_open(in(f, "state"), UID, 0, &d, &e), -1);
    assert_int_equal(chown(in(f, "state"), 0, 0), 0);
    /* Parts that are links lead out of it. */
    assert_int_equal(symlink("/tmp", in(f, "state/scratch")), 0);
    assert_int_equal(chmod(in(f, "state"), 0700), 0);
    assert_int_equal(state_dir_open(in(f, "state"), UID, 0, &d, &e), -1);
    assert_int_equal(unlink(in(f, "state/scratch")), 0);
    assert_int_equal(stat("/tmp", &st), 0);
    assert_int_equal(st.st_uid, 0);
    /* A file in its place. */
    make_file(in(f, "file"));
    assert_int_equal(state_dir_open(in(f, "file"), UID, 0, &d, &e), -1);
    assert_int_equal(state_dir_open(in(f, "file/below"), UID, 0, &d, &e), -1);
}

static void test_make_path(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    struct stat st;

    assert_int_equal(state_make_path(in(f, "a//b/"), &e), 0);
    assert_int_equal(state_make_path(in(f, "a/b"), &e), 0);
    assert_int_equal(stat(in(f, "a/b"), &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    assert_int_equal(state_make_path("", &e), -1);
}

static void test_listen(void **state)
{
    struct fixture *f = *state;
    struct listen_socket s;
    struct listen_socket second;
    struct error e = ERROR_INIT;
    struct stat st;

    if (lacks_root())
        skip();
    assert_int_equal(listen_open(in(f, "run/sock"), 0, &s, &e), 0);
    assert_int_equal(stat(in(f, "run/sock"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    /* Somebody listens: untouched. */
    assert_int_equal(listen_check(in(f, "run/sock"), 30, &e), -1);
    assert_int_equal(e.code, ERR_ALREADY_RUNNING);
    assert_int_equal(listen_open(in(f, "run/sock"), 0, &second, &e), -1);
    assert_int_equal(e.code, ERR_ALREADY_RUNNING);
    /* Nobody does any more: replaced. The old one's unlink leaves the new one alone. */
    fd_close(&s.fd);
    assert_int_equal(listen_check(in(f, "run/sock"), 0, &e), 0);
    assert_int_equal(listen_open(in(f, "run/sock"), UID, &second, &e), 0);
    s.ino = s.ino == second.ino ? s.ino + 1 : s.ino;
    listen_unlink(&s);
    assert_int_equal(stat(in(f, "run/sock"), &st), 0);
    assert_int_equal(st.st_gid, UID);
    listen_unlink(&second);
    assert_int_equal(stat(in(f, "run/sock"), &st), -1);
    listen_close(&s);
    listen_close(&second);
}

static void test_listen_on_other_things(void **state)
{
    struct fixture *f = *state;
    struct listen_socket s;
    struct error e = ERROR_INIT;
    struct stat st;

    make_file(in(f, "file"));
    assert_int_equal(listen_open(in(f, "file"), 0, &s, &e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    assert_int_equal(stat(in(f, "file"), &st), 0);
    /* A dangling link is not followed. */
    assert_int_equal(symlink(in(f, "a"), in(f, "link")), 0);
    assert_int_equal(listen_open(in(f, "link"), 0, &s, &e), -1);
    assert_int_equal(stat(in(f, "a"), &st), -1);
    static const char *const bad[] = {"", "/", "dir/", "dir/..", "."};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(listen_open(bad[i], 0, &s, &e), -1);
}

static void test_inputs(void **state)
{
    struct fixture *f = *state;
    struct error e = ERROR_INIT;
    char path[PATH_MAX];
    int fd = -2;

    assert_int_equal(inputs_open_config(in(f, "absent"), false, &fd, &e), 0);
    assert_int_equal(fd, -1);
    assert_int_equal(inputs_open_config(in(f, "absent"), true, &fd, &e), -1);
    assert_int_equal(inputs_open_config(f->dir, true, &fd, &e), -1);
    assert_int_equal(mkfifo(in(f, "fifo"), 0600), 0);
    assert_int_equal(inputs_open_config(in(f, "fifo"), true, &fd, &e), -1);
    assert_int_equal(inputs_open_images(in(f, "absent"), &fd, path, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_true(e.remedy[0] != '\0');
    /* mkdtemp's 0700: the daemon could not read it. */
    assert_int_equal(inputs_open_images(f->dir, &fd, path, &e), -1);
    assert_int_equal(chmod(f->dir, 0755), 0);
    assert_int_equal(inputs_open_images(f->dir, &fd, path, &e), 0);
    assert_string_equal(path, f->dir);
    fd_close(&fd);
}

static void test_settings(void **state)
{
    static struct handover_settings s = {.magic = HANDOVER_MAGIC,
                                         .version = HANDOVER_VERSION,
                                         .log_level = LOG_DEBUG,
                                         .uid_base = UID,
                                         .priv_pid = 77,
                                         .socket_path = "/run/x"};
    static struct handover_settings back;
    struct error e = ERROR_INIT;

    (void)state;
    FD_AUTO int fd = handover_seal(&s, &e);
    assert_true(fd >= 0);
    assert_int_equal(handover_read(fd, &back, &e), 0);
    assert_memory_equal(&s, &back, sizeof(s));
    assert_int_equal(pwrite(fd, "x", 1, 0), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    /* Neither unsealed nor of another build. */
    FD_AUTO int open_fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(fd_pwrite_full(open_fd, &s, sizeof(s), 0), 0);
    assert_int_equal(handover_read(open_fd, &back, &e), -1);
    s.version++;
    FD_AUTO int other = handover_seal(&s, &e);
    assert_int_equal(handover_read(other, &back, &e), -1);
    s.version--;
    memset(s.state_path, 'x', sizeof(s.state_path));
    FD_AUTO int endless = handover_seal(&s, &e);
    assert_int_equal(handover_read(endless, &back, &e), -1);
    assert_int_equal(handover_read(-1, &back, &e), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test_setup_teardown(test_state_dir, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_foreign_state_dir, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_make_path, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_listen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_listen_on_other_things, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_inputs, set_up, tear_down),
        cmocka_unit_test(test_settings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
