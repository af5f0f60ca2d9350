#include "daemon/machine/boot.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "daemon/machine/machine.h"
#include "daemon/machine/monitor.h"
#include "daemon/machine/template.h"
#include "embed.h"

#define PROGRESS_MS 5000u

/*
 * Steps, each ending in a callback that starts the next. Who has cancelled it is told nothing; the
 * step under way runs out (a monitor is killed), and behind it all is freed.
 */
enum boot_state {
    BOOT_PREPARING,  /* a worker makes files and memory */
    BOOT_FORMATTING, /* mke2fs, a child process */
    BOOT_RUNNING,    /* the monitor, until its guest has parked */
    BOOT_PARKED,     /* the monitor, until it has left all behind and ended */
    BOOT_SAVING,     /* a worker writes it to disk */
};

struct boot {
    const struct machine *machine;
    const struct template *template;
    struct snapshot_key key;
    boot_done_fn done;
    void *context;
    enum boot_state state;
    bool cancelled;
    uint64_t started_ns;
    struct snapshot snapshot;
    int initrd_fd;
    struct monitor *monitor; /* RUNNING, PARKED */
    uv_process_t mke2fs;     /* FORMATTING */
    uv_timer_t timer;        /* RUNNING, PARKED */
    uv_work_t work;          /* PREPARING, SAVING */
    struct error error;      /* of the step that failed; code ERR_NONE as long as all is well */
    struct error not_saved;  /* the same of what can fail and do no harm */
};

/* In a worker: the memory of a guest that failed to boot takes the kernel a while. */
static void free_work(uv_work_t *work)
{
    struct boot *b = work->data;

    snapshot_fini(&b->snapshot);
    fd_close(&b->initrd_fd);
}

static void free_done(uv_work_t *work, int status)
{
    (void)status;
    free(work->data);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct boot *b = handle->data;

    (void)uv_queue_work(b->machine->loop, &b->work, free_work, free_done);
}

/* The last step: tells the owner and frees everything. */
static void finish(struct boot *b)
{
    if (!b->cancelled && b->error.code == ERR_NONE) {
        const struct snapshot given = b->snapshot;

        b->snapshot = (struct snapshot)SNAPSHOT_INIT;
        b->done(&given, NULL, b->context);
    } else if (!b->cancelled) {
        b->done(NULL, &b->error, b->context);
    }
    uv_close((uv_handle_t *)&b->timer, on_timer_closed);
}

/* --- save --------------------------------------------------------------------------------------
 */

/* What was not sealed must not be given out; what was not saved works from memory all the same, and
 * only the next start of the daemon has to boot again. */
static void save_work(uv_work_t *work)
{
    struct boot *b = work->data;

    if (snapshot_seal(&b->snapshot, &b->error) == 0 &&
        snapshot_save(&b->snapshot, &b->key, b->machine->snapshots_fd, &b->not_saved) != 0)
        (void)error_wrap(&b->not_saved, "snapshot %s", b->key.name);
}

static void save_done(uv_work_t *work, int status)
{
    struct boot *b = work->data;

    (void)status;
    if (b->not_saved.code != ERR_NONE)
        log_failure(&b->not_saved, "a snapshot cannot be kept on disk");
    else if (b->error.code == ERR_NONE)
        log_info("template %s: %u vCPU, %u MiB memory, %u MiB disk is ready after %.1f s",
                 b->template->name, b->key.vcpus, b->key.mem_mib, b->key.disk_mib,
                 (double)(clock_mono_ns() - b->started_ns) / 1e9);
    finish(b);
}

/* --- boot --------------------------------------------------------------------------------------
 */

static void on_parked(struct monitor *m, void *context)
{
    struct boot *b = context;

    (void)m;
    b->state = BOOT_PARKED;
}

static void on_built(struct monitor *m, void *context)
{
    struct error e = ERROR_INIT;

    (void)context;
    if (monitor_go(m, NULL, &e) != 0) {
        log_failure(&e, "a monitor that was to boot");
        monitor_kill(m);
    }
}

static void on_exited(struct monitor *m, const struct monitor_end *end, void *context)
{
    struct boot *b = context;
    char text[VMM_TEXT_MAX + 128];

    (void)m;
    (void)uv_timer_stop(&b->timer);
    monitor_end_text(end, text, sizeof(text));
    if (b->error.code == ERR_NONE && b->state != BOOT_PARKED) {
        (void)error_set(&b->error, ERR_BOOT_FAILED, "template %s did not boot: %.300s",
                        b->template->name, text);
        (void)error_cause(&b->error, "%.250s", strlen(text) > 300 ? text + 300 : "");
    }
    if (b->error.code != ERR_NONE || b->cancelled) {
        finish(b);
        return;
    }
    b->state = BOOT_SAVING;
    (void)uv_queue_work(b->machine->loop, &b->work, save_work, save_done);
}

static void on_tick(uv_timer_t *timer)
{
    struct boot *b = timer->data;
    uint64_t seconds = (clock_mono_ns() - b->started_ns) / NS_PER_S;

    if (seconds >= b->machine->boot_timeout_s) {
        (void)uv_timer_stop(timer);
        (void)error_set(&b->error, ERR_BOOT_TIMEOUT, "template %s did not boot within %u s",
                        b->template->name, b->machine->boot_timeout_s);
        (void)error_remedy(&b->error, "raise boot_timeout_s in the configuration");
        monitor_kill(b->monitor);
    } else {
        log_info("template %s: still booting (%llu s)", b->template->name,
                 (unsigned long long)seconds);
    }
}

static int start_monitor(struct boot *b, struct error *e)
{
    static const struct monitor_events events = {
        .built = on_built, .parked = on_parked, .exited = on_exited};
    const struct monitor_spec spec = {.mode = VMM_MODE_BOOT,
                                      .vcpus = b->key.vcpus,
                                      .mem_mib = b->key.mem_mib,
                                      .fds = {[VMM_FD_MEMORY] = b->snapshot.mem_fd,
                                              [VMM_FD_STATE] = b->snapshot.state_fd,
                                              [VMM_FD_ROOT] = b->template->root_fd,
                                              [VMM_FD_SCRATCH] = b->snapshot.scratch_fd,
                                              [VMM_FD_CHANNEL] = -1,
                                              [VMM_FD_KERNEL] = b->machine->templates->kernel_fd,
                                              [VMM_FD_INITRD] = b->initrd_fd}};
    b->monitor = monitor_start(b->machine, &spec, &events, b, e);
    if (b->monitor == NULL)
        return -1;
    b->state = BOOT_RUNNING;
    (void)uv_timer_start(&b->timer, on_tick, PROGRESS_MS, PROGRESS_MS);
    return 0;
}

/* --- format ------------------------------------------------------------------------------------
 */

static void on_mke2fs_closed(uv_handle_t *handle)
{
    struct boot *b = handle->data;

    if (b->cancelled || b->error.code != ERR_NONE || start_monitor(b, &b->error) != 0)
        finish(b);
}

static void on_mke2fs_exit(uv_process_t *process, int64_t status, int signal)
{
    struct boot *b = process->data;

    if (status != 0 || signal != 0)
        (void)error_set(&b->error, ERR_INTERNAL,
                        "mke2fs could not format a scratch disk of %u MiB (status %d, signal %d)",
                        b->key.disk_mib, (int)status, signal);
    uv_close((uv_handle_t *)process, on_mke2fs_closed);
}

/*
 * No journal and no checksums: the disk dies with the sandbox, and a guest kernel that is
 * interpreted would pay for both. The whole disk is the sandbox's, so nothing is reserved for root.
 */
static void start_mke2fs(struct boot *b)
{
    /* clang-format off */
    static const char *const args[] = {
        "mke2fs", "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-E", "root_owner=0:0",
        "-O", "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,huge_file,"
              "large_file,sparse_super", "-L", "scratch", "/proc/self/fd/3", NULL};
    /* clang-format on */
    static const char *const environment[] = {"PATH=/usr/sbin:/sbin:/usr/bin:/bin", NULL};
    uv_stdio_container_t stdio[4] = {{.flags = UV_IGNORE},
                                     {.flags = UV_IGNORE},
                                     {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
                                     {.flags = UV_INHERIT_FD, .data.fd = b->snapshot.scratch_fd}};
    const uv_process_options_t options = {.file = "mke2fs",
                                          .args = (char **)(uintptr_t)args,
                                          .env = (char **)(uintptr_t)environment,
                                          .exit_cb = on_mke2fs_exit,
                                          .stdio = stdio,
                                          .stdio_count = 4};

    b->state = BOOT_FORMATTING;
    b->mke2fs.data = b;
    int status = uv_spawn(b->machine->loop, &b->mke2fs, &options);
    if (status != 0) {
        (void)error_set(&b->error, ERR_INTERNAL, "mke2fs cannot be started");
        (void)error_cause(&b->error, "%s", uv_strerror(status));
        (void)error_remedy(&b->error, "install the package e2fsprogs");
        uv_close((uv_handle_t *)&b->mke2fs, on_mke2fs_closed);
    }
}

/* --- prepare -----------------------------------------------------------------------------------
 */

static void prepare_work(uv_work_t *work)
{
    struct boot *b = work->data;
    size_t size = (size_t)(embed_initramfs_end - embed_initramfs);

    if (snapshot_prepare(&b->snapshot, &b->key, b->machine->tmp_fd, &b->error) != 0)
        return;
    b->initrd_fd = memfd_create("cloche-initramfs", MFD_CLOEXEC);
    if (b->initrd_fd < 0 || fd_write_full(b->initrd_fd, embed_initramfs, size) != 0)
        (void)error_errno(&b->error, errno, "cannot hold the guest's initramfs in memory");
}

static void prepare_done(uv_work_t *work, int status)
{
    struct boot *b = work->data;

    (void)status;
    if (b->cancelled || b->error.code != ERR_NONE)
        finish(b);
    else
        start_mke2fs(b);
}

struct boot *boot_start(const struct machine *machine, const struct template *t,
                        const struct snapshot_key *key, boot_done_fn done, void *context)
{
    struct boot *b = calloc(1, sizeof(*b));

    if (b == NULL)
        return NULL;
    *b = (struct boot){.machine = machine,
                       .template = t,
                       .key = *key,
                       .snapshot = SNAPSHOT_INIT,
                       .done = done,
                       .context = context,
                       .state = BOOT_PREPARING,
                       .started_ns = clock_mono_ns(),
                       .initrd_fd = -1};
    (void)uv_timer_init(machine->loop, &b->timer);
    b->timer.data = b;
    b->work.data = b;
    log_info(
        "template %s: booting for %u vCPU, %u MiB memory, %u MiB disk (once; later ones restore)",
        t->name, key->vcpus, key->mem_mib, key->disk_mib);
    (void)uv_queue_work(machine->loop, &b->work, prepare_work, prepare_done);
    return b;
}

void boot_cancel(struct boot *b)
{
    b->cancelled = true;
    if (b->state == BOOT_RUNNING || b->state == BOOT_PARKED)
        monitor_kill(b->monitor);
}
