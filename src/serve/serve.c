/*
 * The start of a daemon, in one line of descent:
 *
 *   check    options, root, KVM, images, config: nothing has been made yet
 *   take     state directory and its lock, then the socket
 *   start    priv, which first removes what an earlier instance left
 *   descend  drop root, become the daemon
 *
 * Parsing is left to the daemon, which has nothing to lose: the config file is opened here and read
 * there. The process keeps its pid, so whoever started `cloche serve` has the daemon's.
 */
#include "serve/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "embed.h"
#include "ipc/handover.h"
#include "ipc/ipc.h"
#include "serve/inputs.h"
#include "serve/listen.h"
#include "serve/options.h"
#include "serve/spawn.h"
#include "serve/state_dir.h"

/* For an earlier daemon that is about to end. */
#define STOPPING_WAIT_MS 3000u

/* Clients, and for each sandbox a few in the daemon, two in priv. */
#define FDS_MAX 65536u

struct serve {
    struct serve_options options;
    struct handover_settings settings;
    struct state_dir state;
    struct listen_socket socket;
    int images_fd;
    int config_fd;
    int own_fd;     /* this binary */
    int monitor_fd; /* the monitor's */
    int settings_fd;
    int daemon_fd; /* ends of the socket pair between daemon and priv */
    int priv_fd;
    pid_t priv_pid;
};

static int check(struct serve *s, struct error *e)
{
    if (geteuid() != 0) {
        (void)error_set(e, ERR_USAGE, "only root can run the daemon");
        return error_remedy(e, "it starts monitors as users of their own, and drops root for all "
                               "else; try: sudo cloche serve");
    }
    if (inputs_check_kvm(e) != 0 ||
        inputs_open_images(s->options.images, &s->images_fd, s->settings.images_path, e) != 0 ||
        inputs_open_config(s->options.config, s->options.config_given, &s->config_fd, e) != 0 ||
        listen_check(s->options.socket, STOPPING_WAIT_MS, e) != 0)
        return -1;
    s->own_fd = spawn_own_program(e);
    if (s->own_fd < 0)
        return -1;
    s->monitor_fd = spawn_seal_program(embed_vmm, (size_t)(embed_vmm_end - embed_vmm), e);
    return s->monitor_fd < 0 ? -1 : 0;
}

static void set_limits(void)
{
    struct rlimit none = {0};
    struct rlimit files;

    (void)setrlimit(RLIMIT_CORE, &none);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < FDS_MAX) {
        files.rlim_cur = FDS_MAX;
        if (files.rlim_max < FDS_MAX)
            files.rlim_max = FDS_MAX;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
}

static void fill_settings(struct serve *s)
{
    struct handover_settings *t = &s->settings;

    t->magic = HANDOVER_MAGIC;
    t->version = HANDOVER_VERSION;
    t->log_level = s->options.log_level;
    t->uid_base = s->options.uid_base;
    t->has_config = s->config_fd >= 0;
    t->instance = s->state.instance;
    t->socket_dev = s->socket.dev;
    t->socket_ino = s->socket.ino;
    (void)snprintf(t->socket_name, sizeof(t->socket_name), "%s", s->socket.name);
    (void)snprintf(t->socket_path, sizeof(t->socket_path), "%s", s->options.socket);
    (void)snprintf(t->state_path, sizeof(t->state_path), "%s", s->state.path);
    (void)snprintf(t->config_path, sizeof(t->config_path), "%s", s->options.config);
}

static int start_priv(struct serve *s, int *ret_ready_fd, struct error *e)
{
    int ready[2];
    int pair[2];

    FD_AUTO int settings_fd = handover_seal(&s->settings, e);
    if (settings_fd < 0 || ipc_pair(pair, e) != 0)
        return -1;
    s->daemon_fd = pair[0];
    s->priv_fd = pair[1];
    if (pipe2(ready, O_CLOEXEC) != 0)
        return error_errno(e, errno, "cannot make a pipe");
    const struct spawn_fd fds[] = {
        {s->priv_fd, HANDOVER_PRIV_CONTROL},
        {settings_fd, HANDOVER_PRIV_SETTINGS},
        {s->monitor_fd, HANDOVER_PRIV_PROGRAM},
        {s->state.lock_fd, HANDOVER_PRIV_LOCK},
        {s->state.journal_fd, HANDOVER_PRIV_JOURNAL},
        {s->socket.dir_fd, HANDOVER_PRIV_SOCKET_DIR},
        {ready[1], HANDOVER_PRIV_READY},
    };
    int r = spawn_priv(s->own_fd, fds, sizeof(fds) / sizeof(fds[0]), &s->priv_pid, e);
    fd_close(&ready[1]);
    fd_close(&s->priv_fd);
    *ret_ready_fd = ready[0];
    return r;
}

/*
 * Between bind and priv's start nobody would remove the socket if this process were interrupted, so
 * that waits. From then on priv does, whatever becomes of us.
 */
static int take_socket_and_start(struct serve *s, struct error *e)
{
    sigset_t all;
    sigset_t old;
    FD_AUTO int ready_fd = -1;
    char byte;

    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &old);
    int r = listen_open(s->options.socket, s->options.socket_group, &s->socket, e);
    if (r == 0) {
        fill_settings(s);
        r = start_priv(s, &ready_fd, e);
        if (r != 0)
            listen_unlink(&s->socket);
    }
    (void)sigprocmask(SIG_SETMASK, &old, NULL);
    if (r != 0)
        return -1;
    if (fd_read_full(ready_fd, &byte, 1) != 1) {
        listen_unlink(&s->socket);
        return error_set(e, ERR_INTERNAL, "priv, which starts monitors, did not start");
    }
    s->settings.priv_pid = s->priv_pid;
    s->settings_fd = handover_seal(&s->settings, e);
    return s->settings_fd < 0 ? -1 : 0;
}

static int become_daemon(struct serve *s, struct error *e)
{
    const struct spawn_fd fds[] = {
        {s->daemon_fd, HANDOVER_DAEMON_PRIV},
        {s->settings_fd, HANDOVER_DAEMON_SETTINGS},
        {s->socket.fd, HANDOVER_DAEMON_LISTEN},
        {s->state.lock_fd, HANDOVER_DAEMON_LOCK},
        {s->state.snapshots_fd, HANDOVER_DAEMON_SNAPSHOTS},
        {s->state.scratch_fd, HANDOVER_DAEMON_SCRATCH},
        {s->state.tmp_fd, HANDOVER_DAEMON_TMP},
        {s->images_fd, HANDOVER_DAEMON_IMAGES},
        {s->config_fd, HANDOVER_DAEMON_CONFIG},
    };

    return spawn_become_daemon(s->own_fd, s->options.uid_base, fds, sizeof(fds) / sizeof(fds[0]),
                               e);
}

static int run(struct serve *s, struct error *e)
{
    if (check(s, e) != 0)
        return -1;
    set_limits();
    if (state_dir_open(s->options.state_dir, s->options.uid_base, STOPPING_WAIT_MS, &s->state, e) !=
        0)
        return -1;
    if (take_socket_and_start(s, e) != 0)
        return -1;
    return become_daemon(s, e);
}

/* A program started with closed standard descriptors would get others in their place. */
static int open_standard_fds(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd < 0)
        return -1;
    /* Neither daemon nor priv reads anything from whoever started them. */
    if (dup2(fd, STDIN_FILENO) < 0)
        return -1;
    return close(fd);
}

int serve_main(int argc, char **argv)
{
    static struct serve s = {.images_fd = -1,
                             .config_fd = -1,
                             .own_fd = -1,
                             .monitor_fd = -1,
                             .settings_fd = -1,
                             .daemon_fd = -1,
                             .priv_fd = -1};
    struct error e = ERROR_INIT;
    char text[1200];

    if (options_parse(argc, argv, &s.options, &e) == 0) {
        if (s.options.help)
            return fputs(options_help, stdout) < 0 ? 1 : 0;
        if (open_standard_fds() != 0)
            (void)error_errno(&e, errno, "cannot open /dev/null");
        else
            (void)run(&s, &e);
    }
    error_format(&e, text, sizeof(text));
    (void)fprintf(stderr, "cloche serve: %s\n", text);
    /* The socket's end goes with it: priv cleans up and ends. */
    fd_close(&s.daemon_fd);
    if (s.priv_pid > 0)
        (void)waitpid(s.priv_pid, NULL, 0);
    return error_exit_code(e.code);
}
