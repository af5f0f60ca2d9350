#include "priv/slot.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "ipc/ipc.h"
#include "priv/child.h"
#include "priv/process.h"
#include "priv/state.h"

#define RETRY_MS_FIRST 1u
#define RETRY_MS_MAX   1000u

#define PROCESSES_PER_UID_MAX 1024u

static int watch(struct priv *p, int fd, enum watch kind, uint32_t slot)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)kind << 32 | slot};

    return epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

/* Other children may hold copies up to their exec, so closing alone would not end the watching. */
static void unwatch(struct priv *p, int *fd)
{
    if (*fd >= 0)
        (void)epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, *fd, NULL);
    fd_close(fd);
}

static void watch_room(struct priv *p, bool on)
{
    struct epoll_event event = {.events = on ? EPOLLIN | EPOLLOUT : EPOLLIN,
                                .data.u64 = (uint64_t)WATCH_CONTROL << 32};

    if (p->writing == on)
        return;
    p->writing = on;
    (void)epoll_ctl(p->epoll_fd, EPOLL_CTL_MOD, HANDOVER_PRIV_CONTROL, &event);
}

/* False when the event has to wait, or nobody will take it any more. */
static bool send_event(struct priv *p, const struct priv_event *event)
{
    struct error e = ERROR_INIT;

    if (p->closed)
        return false;
    if (ipc_send(HANDOVER_PRIV_CONTROL, event, sizeof(*event), NULL, 0, &e) == 0)
        return true;
    if (errno == EAGAIN)
        watch_room(p, true);
    else
        p->closed = true;
    return false;
}

static void flush(struct priv *p, uint32_t slot)
{
    struct slot *s = &p->slots[slot];

    if (s->spawned_due) {
        struct priv_event event = {.type = PRIV_SPAWNED, .slot = slot, .pid = s->pid};

        if (!send_event(p, &event))
            return;
        s->spawned_due = false;
    }
    if (s->exited_due) {
        struct priv_event event = {
            .type = PRIV_EXITED, .slot = slot, .pid = s->pid, .wait_status = s->wait_status};

        (void)snprintf(event.text, sizeof(event.text), "%s", s->text);
        if (!send_event(p, &event))
            return;
        s->exited_due = false;
        s->state = SLOT_ENDED;
    }
}

void slot_flush_all(struct priv *p)
{
    watch_room(p, false);
    for (uint32_t slot = 0; slot < SANDBOX_COUNT_MAX && !p->writing && !p->closed; slot++)
        flush(p, slot);
}

static void set_text(struct slot *s, const struct error *e)
{
    (void)snprintf(s->text, sizeof(s->text), "%.170s%s%.80s%s", e->message, e->cause[0] ? " (" : "",
                   e->cause, e->cause[0] ? ")" : "");
}

/* The process is gone, or was never there: removes the cgroups, then the record, then tells. */
static void finish(struct priv *p, uint32_t slot)
{
    struct slot *s = &p->slots[slot];
    struct error e = ERROR_INIT;

    if (s->retry_ns != 0)
        p->retry_count--;
    s->retry_ns = 0;
    if (cgroup_remove(&p->cgroups, slot) != 0) {
        if (s->retry_ms >= RETRY_MS_MAX / 2 && s->retry_ms < RETRY_MS_MAX)
            log_warn("cgroup of slot %u cannot be removed yet: %s", slot, strerror(errno));
        s->retry_ms = s->retry_ms == 0 ? RETRY_MS_FIRST : s->retry_ms * 2;
        if (s->retry_ms > RETRY_MS_MAX)
            s->retry_ms = RETRY_MS_MAX;
        s->retry_ns = clock_mono_ns() + s->retry_ms * NS_PER_MS;
        p->retry_count++;
        return;
    }
    if (journal_clear(HANDOVER_PRIV_JOURNAL, slot, &e) != 0)
        log_failure(&e, "slot");
    s->exited_due = true;
    flush(p, slot);
}

int slot_retry_all(struct priv *p)
{
    uint64_t next_ns = UINT64_MAX;
    uint64_t now_ns = clock_mono_ns();

    for (uint32_t slot = 0; slot < SANDBOX_COUNT_MAX && p->retry_count > 0; slot++) {
        struct slot *s = &p->slots[slot];

        if (s->retry_ns != 0 && s->retry_ns <= now_ns)
            finish(p, slot);
        if (s->retry_ns != 0 && s->retry_ns < next_ns)
            next_ns = s->retry_ns;
    }
    if (next_ns == UINT64_MAX)
        return -1;
    return next_ns <= now_ns ? 0 : (int)((next_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

/*
 * The pids cgroup counts a monitor's threads. RLIMIT_NPROC counts those of its uid, which another
 * daemon of this host may use as well (same uid base), so it is exact only where it has to stand
 * in.
 */
static uint32_t processes_max(const struct priv *p, const struct cgroup_caps *caps)
{
    bool counted = (p->cgroups.controllers & 1u << CGROUP_PIDS) != 0;

    return counted ? PROCESSES_PER_UID_MAX : caps->pids_max;
}

static int try_start(struct priv *p, uint32_t slot, const struct cgroup_caps *caps, int control_fd,
                     struct error *e)
{
    struct slot *s = &p->slots[slot];
    struct journal_process record = {.slot = slot};
    __attribute__((cleanup(cgroup_entry_fini))) struct cgroup_entry cgroups = CGROUP_ENTRY_INIT;

    if (journal_put(HANDOVER_PRIV_JOURNAL, &p->journal, &record, e) != 0 ||
        cgroup_make(&p->cgroups, slot, caps, &cgroups, e) != 0)
        return -1;
    /* An open of its own: a shared one would let monitors change each other's file status. */
    FD_AUTO int kvm_fd = openat(p->dev_fd, "kvm", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (kvm_fd < 0)
        return error_errno(e, errno, "cannot open /dev/kvm");
    struct child_plan plan = {.control_fd = control_fd,
                              .kvm_fd = kvm_fd,
                              .null_fd = p->null_fd,
                              .program_fd = HANDOVER_PRIV_PROGRAM,
                              .proc_fd = p->proc_fd,
                              .parent_pidfd = p->self_pidfd,
                              .cgroups = &cgroups,
                              .uid = p->settings.uid_base + 1 + slot,
                              .processes_max = processes_max(p, caps)};
    if (child_start(&plan, &s->pidfd, &s->pid, &s->report_fd, e) != 0)
        return -1;
    record.pid = s->pid;
    /* Without a start time the record names nobody; the cgroups still lead to the process. */
    (void)process_start_time(p->proc_fd, s->pid, &record.start_time);
    /* From here the process exists, so what fails ends it in the usual way. */
    if (journal_put(HANDOVER_PRIV_JOURNAL, &p->journal, &record, e) != 0 ||
        watch(p, s->pidfd, WATCH_PROCESS, slot) != 0 ||
        watch(p, s->report_fd, WATCH_REPORT, slot) != 0)
        priv_fail(p, "cannot keep track of a monitor: %s", strerror(errno));
    return 0;
}

void slot_start(struct priv *p, uint32_t slot, const struct cgroup_caps *caps, int control_fd)
{
    struct slot *s = &p->slots[slot];
    struct error e = ERROR_INIT;

    *s = (struct slot){.state = SLOT_STARTING, .pidfd = -1, .report_fd = -1};
    if (try_start(p, slot, caps, control_fd, &e) == 0)
        return;
    log_failure(&e, "spawn");
    s->state = SLOT_ENDING;
    s->wait_status = -1;
    set_text(s, &e);
    finish(p, slot);
}

void slot_limit(struct priv *p, uint32_t slot, const struct cgroup_caps *caps)
{
    struct slot *s = &p->slots[slot];
    struct error e = ERROR_INIT;

    if (cgroup_limit(&p->cgroups, slot, caps, &e) == 0)
        return;
    log_failure(&e, "limit");
    set_text(s, &e);
}

void slot_kill(struct priv *p, uint32_t slot)
{
    struct slot *s = &p->slots[slot];

    s->killed = true;
    if (process_kill(s->pidfd) != 0 && errno != ESRCH)
        priv_fail(p, "cannot kill the monitor of slot %u: %s", slot, strerror(errno));
}

void slot_on_report(struct priv *p, uint32_t slot)
{
    struct slot *s = &p->slots[slot];
    struct child_report report;
    struct error e = ERROR_INIT;

    if (s->report_fd < 0)
        return;
    ssize_t n = read(s->report_fd, &report, sizeof(report));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    unwatch(p, &s->report_fd);
    if (n == (ssize_t)sizeof(report)) {
        report.what[sizeof(report.what) - 1] = '\0';
        (void)error_errno(&e, report.error, "%s", report.what);
        log_failure(&e, "spawn");
        s->wait_status = -1;
        set_text(s, &e);
        return; /* the child is about to exit */
    }
    if (s->state == SLOT_STARTING && !s->killed) {
        s->state = SLOT_RUNNING;
        s->spawned_due = true;
        flush(p, slot);
    }
}

static int32_t wait_status_of(const siginfo_t *info)
{
    if (info->si_code == CLD_EXITED)
        return (info->si_status & 0xff) << 8;
    return (info->si_status & 0x7f) | (info->si_code == CLD_DUMPED ? 0x80 : 0);
}

/* Reaps the slot's process; false while it still runs. */
static bool reap(struct priv *p, uint32_t slot)
{
    struct slot *s = &p->slots[slot];
    siginfo_t info = {0};

    if (waitid(P_PIDFD, (id_t)s->pidfd, &info, WEXITED | WNOHANG) != 0) {
        if (errno != EINTR)
            priv_fail(p, "cannot wait for the monitor of slot %u: %s", slot, strerror(errno));
        return false;
    }
    if (info.si_pid == 0)
        return false;
    if (s->wait_status != -1)
        s->wait_status = wait_status_of(&info);
    if (s->wait_status == SIGKILL && !s->killed && cgroup_had_oom(&p->cgroups, slot))
        (void)snprintf(s->text, sizeof(s->text), "the memory cap of its cgroup was reached");
    unwatch(p, &s->pidfd);
    unwatch(p, &s->report_fd);
    s->state = SLOT_ENDING;
    return true;
}

void slot_on_process(struct priv *p, uint32_t slot)
{
    /* Both may be ready at once: why the start failed must not be lost. */
    slot_on_report(p, slot);
    if (p->slots[slot].pidfd >= 0 && reap(p, slot))
        finish(p, slot);
}

unsigned slot_end_all(struct priv *p, unsigned timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + timeout_ms * NS_PER_MS;
    unsigned left;

    p->closed = true;
    for (uint32_t slot = 0; slot < SANDBOX_COUNT_MAX; slot++)
        if (p->slots[slot].pidfd >= 0 && p->slots[slot].state != SLOT_UNUSED)
            (void)process_kill(p->slots[slot].pidfd);
    do {
        left = 0;
        for (uint32_t slot = 0; slot < SANDBOX_COUNT_MAX; slot++) {
            struct slot *s = &p->slots[slot];

            if (s->state == SLOT_UNUSED || s->state == SLOT_ENDED)
                continue;
            if (s->pidfd >= 0 && process_wait(s->pidfd, 1) == 0)
                (void)reap(p, slot);
            if (s->pidfd < 0 && cgroup_remove(&p->cgroups, slot) == 0)
                s->state = SLOT_ENDED;
            else
                left++;
        }
        if (left > 0)
            (void)usleep(RETRY_MS_FIRST * 1000);
    } while (left > 0 && clock_mono_ns() < end_ns);
    return left;
}
