#include "cli/client/own_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cli/client/client.h"
#include "cli/common/interrupt.h"
#include "cli/common/places.h"
#include "cli/common/progress.h"
#include "cli/common/spawn.h"

#define START_TIMEOUT_S 60u
#define STOP_TIMEOUT_S  20u
#define POLL_MS         20
#define LOG_TAIL_BYTES  2000
#define REMOVE_FDS      16
/* No pool: this daemon serves one command. */
#define CONFIG "{\"warm\":[],\"pool_min\":0,\"pool_max\":0}\n"

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    (void)remove(path);
    return 0;
}

static int write_file(const char *path, const char *text, struct error *e)
{
    FD_AUTO int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0 || fd_write_full(fd, text, strlen(text)) != 0)
        return error_errno(e, errno, "%s", path);
    return 0;
}

/* Whether the default state directory is nobody's at the moment: it is locked while in use. */
static bool state_is_free(const char *path)
{
    char lock[PATH_MAX];

    (void)snprintf(lock, sizeof(lock), "%s/lock", path);
    FD_AUTO int fd = open(lock, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? errno == ENOENT : flock(fd, LOCK_EX | LOCK_NB) == 0;
}

void own_daemon_print_log(const struct own_daemon *d)
{
    char text[LOG_TAIL_BYTES + 1];

    if (d->directory[0] == '\0')
        return;
    FD_AUTO int fd = open(d->log_path, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    off_t start = size > LOG_TAIL_BYTES ? size - LOG_TAIL_BYTES : 0;
    ssize_t n = fd < 0 ? -1 : fd_pread_full(fd, text, LOG_TAIL_BYTES, start);

    if (n > 0)
        fprintf(stderr, "cloche: the end of the daemon's log:\n%.*s", (int)n, text);
}

/* Whether it has ended; it is reaped then. */
static bool has_ended(struct own_daemon *d)
{
    if (d->pid > 0 && waitpid(d->pid, NULL, WNOHANG) == d->pid)
        d->pid = 0;
    return d->pid == 0;
}

static int launch(struct own_daemon *d, struct error *e)
{
    const char *named = getenv("CLOCHE_STATE_DIR");
    const char *state = named != NULL && named[0] != '\0' ? named : PLACE_STATE_DIR;
    char private_state[96], config[96];

    (void)snprintf(private_state, sizeof(private_state), "%s/state", d->directory);
    (void)snprintf(config, sizeof(config), "%s/config.json", d->directory);
    if (!state_is_free(state))
        state = private_state;
    if (write_file(config, CONFIG, e) != 0)
        return -1;
    FD_AUTO int log = open(d->log_path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0)
        return error_errno(e, errno, "%s", d->log_path);
    const char *const argv[] = {"cloche",       "serve",    "--state-dir", state, "--socket",
                                d->socket_path, "--config", config,        NULL};
    pid_t pid = spawn_self(argv, -1, log, e);
    if (pid < 0)
        return -1;
    d->pid = pid;
    return 0;
}

/* Waits until its socket takes a connection. */
static int wait_until_up(struct own_daemon *d, struct error *e)
{
    struct progress progress = {.what = "starting a daemon for this command"};
    uint64_t start_ns = clock_mono_ns();
    unsigned told_s = 0;

    for (;;) {
        struct error not_yet = ERROR_INIT;
        struct client c;
        if (client_open(&c, d->socket_path, &not_yet) == 0) {
            client_close(&c);
            progress_end(&progress);
            return 0;
        }
        unsigned s = (unsigned)((clock_mono_ns() - start_ns) / NS_PER_S);
        if (has_ended(d) || s >= START_TIMEOUT_S) {
            progress_end(&progress);
            own_daemon_print_log(d);
            (void)error_set(e, ERR_UNREACHABLE, "no daemon answers, and one for this command %s",
                            d->pid == 0 ? "ended at once" : "did not start in time");
            return error_remedy(e, "`cloche doctor` tells what this host lacks.");
        }
        if (s != told_s)
            progress_tick(&progress, s);
        told_s = s;
        if (interrupt_wait(NULL, 0, POLL_MS, e) < 0)
            return -1;
    }
}

int own_daemon_start(struct own_daemon *ret_daemon, struct error *e)
{
    struct own_daemon d = {.directory = "/tmp/cloche-run-XXXXXX"};

    if (mkdtemp(d.directory) == NULL)
        return error_errno(e, errno, "a temporary directory");
    (void)snprintf(d.socket_path, sizeof(d.socket_path), "%s/cloche.sock", d.directory);
    (void)snprintf(d.log_path, sizeof(d.log_path), "%s/log", d.directory);
    if (launch(&d, e) != 0 || wait_until_up(&d, e) != 0) {
        own_daemon_stop(&d);
        return -1;
    }
    *ret_daemon = d;
    return 0;
}

void own_daemon_stop(struct own_daemon *d)
{
    struct error ignored = ERROR_INIT;
    uint64_t end_ns = clock_mono_ns() + STOP_TIMEOUT_S * NS_PER_S;

    if (d->directory[0] == '\0')
        return;
    interrupt_ignore();
    if (d->pid > 0)
        (void)kill(d->pid, SIGTERM);
    while (!has_ended(d) && clock_mono_ns() < end_ns)
        (void)(interrupt_wait(NULL, 0, POLL_MS, &ignored) < 0);
    if (d->pid > 0) {
        (void)kill(d->pid, SIGKILL);
        (void)waitpid(d->pid, NULL, 0);
    }
    (void)nftw(d->directory, remove_entry, REMOVE_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    d->directory[0] = '\0';
}
