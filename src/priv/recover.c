/*
 * At start: removes what an earlier instance on this state directory left. The lock says that it
 * has ended; its monitors are tied to it by the kernel, so commonly only cgroups are left. What the
 * journal names is killed if it is still the same process, then everything in cgroups of this
 * instance's name.
 */
#include "priv/recover.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "priv/process.h"
#include "priv/state.h"

#define LEFTOVER_TIMEOUT_MS 5000

/* Kills one process of the journal; returns true when it was there and is gone now. */
static bool end_process(struct priv *p, const struct journal_process *process)
{
    uint64_t start_time;
    FD_AUTO int pidfd = process->pid > 0 ? process_open(process->pid) : -1;

    /* The pidfd first, the start time second: if they match, this is the process and stays it. */
    if (pidfd < 0 || process_start_time(p->proc_fd, process->pid, &start_time) != 0 ||
        start_time != process->start_time)
        return false;
    if (process_kill(pidfd) != 0 && errno != ESRCH) {
        log_warn("leftover process %d cannot be killed: %s", process->pid, strerror(errno));
        return false;
    }
    if (process_wait(pidfd, LEFTOVER_TIMEOUT_MS) != 0) {
        log_warn("leftover process %d does not end", process->pid);
        return false;
    }
    return true;
}

static unsigned end_processes(struct priv *p, const struct journal_content *content)
{
    unsigned ended = 0;

    /* Of an earlier boot, or copied from elsewhere: its pids mean nothing here. */
    if (memcmp(content->header.boot_id, p->journal.boot_id, JOURNAL_BOOT_BYTES) != 0 ||
        content->header.instance != p->journal.instance)
        return 0;
    for (size_t i = 0; i < content->count; i++)
        ended += end_process(p, &content->processes[i]);
    return ended;
}

int recover_run(struct priv *p, struct error *e)
{
    static struct journal_content content;
    struct error damage = ERROR_INIT;
    uint64_t start_time;

    if (process_boot_id(p->proc_fd, p->journal.boot_id) != 0)
        return error_errno(e, errno, "cannot read the boot id");
    if (process_start_time(p->proc_fd, getpid(), &start_time) != 0)
        return error_errno(e, errno, "cannot read this process's start time");
    p->journal.instance = p->settings.instance;
    p->journal.writer = (struct journal_process){.pid = getpid(), .start_time = start_time};
    if (journal_load(HANDOVER_PRIV_JOURNAL, &content, &damage) != 0)
        log_warn("%s; cleaning up by cgroup names and what can be read", damage.message);
    unsigned ended = end_processes(p, &content);
    int removed = cgroup_purge(&p->cgroups, LEFTOVER_TIMEOUT_MS);
    if (removed < 0)
        log_warn("some leftover cgroups below %s cannot be removed", p->cgroups.name);
    if (ended > 0 || removed > 0)
        log_info("removed leftovers of an earlier instance: %u processes, %d cgroups", ended,
                 removed);
    return journal_start(HANDOVER_PRIV_JOURNAL, &p->journal, e);
}
