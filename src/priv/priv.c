/*
 * The main loop of priv. Everything is opened while priv has the host's files in sight, then it
 * hardens itself (harden.h) and only then takes requests.
 *
 * It lives exactly as long as the daemon's end of the control socket. Signals that a terminal or a
 * service manager sends to all processes of the service are ignored: if priv ended before the
 * daemon, the daemon could not stop its sandboxes in order.
 */
#include "priv/priv.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "priv/harden.h"
#include "priv/process.h"
#include "priv/recover.h"
#include "priv/request.h"
#include "priv/slot.h"
#include "priv/state.h"

#define END_TIMEOUT_MS 5000u
#define EVENTS_MAX     64

/* A whole megabyte, half of it for 1,024 slots, would be much for a stack. */
static struct priv priv;

static void ignore_signals(void)
{
    static const int ignored[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGUSR1, SIGUSR2};
    sigset_t none;

    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        (void)signal(ignored[i], SIG_IGN);
    /* Inherited "ignore" would make the kernel reap our children. */
    (void)signal(SIGCHLD, SIG_DFL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static int check_handover(struct priv *p, struct error *e)
{
    int wanted = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

    if (geteuid() != 0)
        return error_set(e, ERR_USAGE, "this role is started by `cloche serve`, as root");
    for (int fd = HANDOVER_PRIV_CONTROL; fd < HANDOVER_PRIV_END; fd++)
        if (fd_set_cloexec(fd, 1) != 0)
            return error_set(e, ERR_USAGE, "this role is started by `cloche serve`");
    if (handover_read(HANDOVER_PRIV_SETTINGS, &p->settings, e) != 0)
        return -1;
    int seals = fcntl(HANDOVER_PRIV_PROGRAM, F_GET_SEALS);
    if (seals < 0 || (seals & wanted) != wanted)
        return error_set(e, ERR_USAGE, "the monitor's program is not sealed");
    if (fd_set_nonblocking(HANDOVER_PRIV_CONTROL, 1) != 0)
        return error_errno(e, errno, "the control socket cannot be used");
    /* The state directory's lock is the daemon's as well, which could let go of it. */
    if (flock(HANDOVER_PRIV_JOURNAL, LOCK_EX | LOCK_NB) != 0)
        return error_errno(e, errno, "the journal is in use by another priv");
    return 0;
}

static int open_all(struct priv *p, struct error *e)
{
    int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

    p->proc_fd = open("/proc", flags);
    p->dev_fd = open("/dev", flags);
    p->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    p->self_pidfd = process_open(getpid());
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (p->proc_fd < 0 || p->dev_fd < 0 || p->null_fd < 0 || p->self_pidfd < 0 || p->epoll_fd < 0)
        return error_errno(e, errno, "cannot open what starting monitors takes");
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)WATCH_CONTROL << 32};
    if (epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, HANDOVER_PRIV_CONTROL, &event) != 0)
        return error_errno(e, errno, "the control socket cannot be watched");
    return 0;
}

static int set_up(struct priv *p, struct error *e)
{
    p->host_mem_mib =
        (uint32_t)((uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / MIB);
    for (size_t i = 0; i < SANDBOX_COUNT_MAX; i++)
        p->slots[i] = (struct slot){.pidfd = -1, .report_fd = -1};
    if (check_handover(p, e) != 0)
        return -1;
    log_init("priv", (enum log_level)p->settings.log_level);
    (void)prctl(PR_SET_NAME, "cloche-priv", 0, 0, 0);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    (void)setsid();
    (void)umask(077);
    ignore_signals();
    tzset(); /* reads a file, which is out of reach below; the log's time stamps would */
    if (open_all(p, e) != 0 || cgroup_tree_init(&p->cgroups, p->settings.instance, e) != 0)
        return -1;
    if (p->cgroups.lack[0] != '\0')
        log_warn("caps that do not hold outside the guest: %s", p->cgroups.lack);
    if (recover_run(p, e) != 0 || harden_mounts(e) != 0 || harden_rights(e) != 0 ||
        harden_calls(e) != 0) {
        cgroup_tree_fini(&p->cgroups);
        return -1;
    }
    return 0;
}

static void dispatch(struct priv *p, const struct epoll_event *event)
{
    uint32_t slot = (uint32_t)event->data.u64;

    switch ((enum watch)(event->data.u64 >> 32)) {
    case WATCH_CONTROL:
        if ((event->events & EPOLLOUT) != 0)
            slot_flush_all(p);
        if ((event->events & ~(uint32_t)EPOLLOUT) != 0)
            request_receive(p);
        break;
    case WATCH_REPORT:
        slot_on_report(p, slot);
        break;
    case WATCH_PROCESS:
        slot_on_process(p, slot);
        break;
    }
}

static void loop(struct priv *p)
{
    struct epoll_event events[EVENTS_MAX];

    while (!p->closed && !p->failed) {
        int n = epoll_wait(p->epoll_fd, events, EVENTS_MAX, slot_retry_all(p));

        if (n < 0 && errno != EINTR)
            priv_fail(p, "cannot wait for events: %s", strerror(errno));
        for (int i = 0; i < n && !p->closed && !p->failed; i++)
            dispatch(p, &events[i]);
    }
}

/*
 * The daemon's socket, unless another daemon has bound its own there meanwhile. `cloche serve`
 * holds the directory's lock while it looks for a stale socket and binds its own.
 */
static void unlink_socket(const struct priv *p)
{
    struct stat st;
    const char *name = p->settings.socket_name;

    if (name[0] == '\0' || strchr(name, '/') != NULL)
        return;
    (void)flock(HANDOVER_PRIV_SOCKET_DIR, LOCK_EX | LOCK_NB);
    if (fstatat(HANDOVER_PRIV_SOCKET_DIR, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISSOCK(st.st_mode) && st.st_dev == p->settings.socket_dev &&
        st.st_ino == p->settings.socket_ino)
        (void)unlinkat(HANDOVER_PRIV_SOCKET_DIR, name, 0);
}

static int tear_down(struct priv *p)
{
    struct error e = ERROR_INIT;
    unsigned left = slot_end_all(p, END_TIMEOUT_MS);

    cgroup_tree_fini(&p->cgroups);
    unlink_socket(p);
    if (left > 0) {
        log_error("%u sandboxes could not be removed; the next start will try again", left);
        return 1;
    }
    if (journal_end(HANDOVER_PRIV_JOURNAL, &e) != 0)
        log_failure(&e, "end");
    return p->failed ? 1 : 0;
}

int priv_main(void)
{
    struct priv *p = &priv;
    struct error e = ERROR_INIT;

    log_init("priv", LOG_INFO);
    if (set_up(p, &e) != 0) {
        log_failure(&e, "cannot start");
        return error_exit_code(e.code);
    }
    log_debug("ready as %s", p->cgroups.name);
    if (write(HANDOVER_PRIV_READY, "", 1) != 1)
        p->closed = true;
    (void)close(HANDOVER_PRIV_READY);
    loop(p);
    return tear_down(p);
}
