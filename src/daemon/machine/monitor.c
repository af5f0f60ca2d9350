#include "daemon/machine/monitor.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "base/fd.h"
#include "base/log.h"
#include "daemon/machine/machine.h"
#include "daemon/machine/priv_link.h"
#include "ipc/ipc.h"

#define EVENTS_PER_TURN 8 /* more than there are kinds */

struct monitor {
    const struct machine *machine;
    uv_poll_t poll;
    int control_fd;
    int channel_fd;
    uint32_t slot;
    uint32_t vcpus;
    uint32_t mem_mib;
    pid_t pid;
    uint32_t seen; /* a bit for each event that came */
    bool running;
    const struct monitor_events *events;
    void *context;
    struct monitor_end end;
};

static void on_poll_closed(uv_handle_t *handle)
{
    struct monitor *m = handle->data;

    fd_close(&m->control_fd);
    free(m);
}

static bool has_seen(const struct monitor *m, uint32_t type)
{
    return (m->seen & UINT32_C(1) << type) != 0;
}

static void on_nonsense(struct monitor *m, uint32_t type)
{
    log_error("monitor in slot %u: event %u out of order", m->slot, type);
    (void)uv_poll_stop(&m->poll);
    monitor_kill(m);
}

/* Each event comes once at most. */
static void on_event(struct monitor *m, struct vmm_event *event)
{
    if (event->type >= 32 || has_seen(m, event->type)) {
        on_nonsense(m, event->type);
        return;
    }
    m->seen |= UINT32_C(1) << event->type;
    switch (event->type) {
    case VMM_BUILT:
        if (m->events->built != NULL)
            m->events->built(m, m->context);
        return;
    case VMM_PARKED:
        if (m->events->parked != NULL)
            m->events->parked(m, m->context);
        return;
    case VMM_FIRST:
        if (m->events->first != NULL)
            m->events->first(m, event->mono_ns, m->context);
        return;
    case VMM_READY:
        if (m->events->ready != NULL)
            m->events->ready(m, event->mono_ns, m->context);
        return;
    case VMM_GONE:
        m->end.reason = (enum vmm_gone_reason)event->reason;
        m->end.detail = event->detail;
        event->text[sizeof(event->text) - 1] = '\0';
        memcpy(m->end.text, event->text, sizeof(m->end.text));
        return;
    default:
        on_nonsense(m, event->type);
        return;
    }
}

/* Reads what has come, but leaves a turn to others: nothing says that a monitor ever stops sending.
 * Ends with the stream, which `exited` will follow. */
static void read_events(struct monitor *m)
{
    for (unsigned turn = 0; turn < EVENTS_PER_TURN; turn++) {
        struct error e = ERROR_INIT;
        struct vmm_event event;
        int n = ipc_recv(m->control_fd, &event, sizeof(event), NULL, 0, NULL, &e);

        if (n < 0 && errno == EAGAIN)
            return;
        if (n != (int)sizeof(event)) {
            (void)uv_poll_stop(&m->poll);
            monitor_kill(m);
            return;
        }
        on_event(m, &event);
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    read_events(poll->data);
}

static void on_spawned(void *context, int pid)
{
    struct monitor *m = context;

    m->pid = pid;
    m->end.started = true;
}

static void on_exited(void *context, int wait_status, const char *text)
{
    struct monitor *m = context;

    m->slot = UINT32_MAX;
    /* Its last words may still be in the socket. */
    if (uv_is_active((uv_handle_t *)&m->poll)) {
        (void)uv_poll_stop(&m->poll);
        read_events(m);
    }
    m->end.wait_status = wait_status;
    if (wait_status < 0) {
        m->end.started = false;
        (void)snprintf(m->end.text, sizeof(m->end.text), "%s", text);
    }
    fd_close(&m->channel_fd);
    m->events->exited(m, &m->end, m->context);
    uv_close((uv_handle_t *)&m->poll, on_poll_closed);
}

static int send_config(struct monitor *m, const struct monitor_spec *spec, int channel_fd,
                       struct error *e)
{
    const struct vmm_config config = {
        .type = VMM_CONFIG, .mode = spec->mode, .vcpus = spec->vcpus, .mem_mib = spec->mem_mib};
    size_t count = spec->mode == VMM_MODE_BOOT ? VMM_FD_COUNT_BOOT : VMM_FD_COUNT_RESTORE;
    int fds[VMM_FD_COUNT_BOOT];

    memcpy(fds, spec->fds, sizeof(fds));
    fds[VMM_FD_CHANNEL] = channel_fd;
    return ipc_send(m->control_fd, &config, sizeof(config), fds, count, e);
}

static struct priv_caps caps_of(const struct monitor *m, uint32_t cpu_quota_percent)
{
    return (struct priv_caps){.mem_max_mib = m->mem_mib + VMM_OVERHEAD_MIB,
                              .cpu_quota_percent = cpu_quota_percent,
                              .pids_max = m->vcpus + VMM_PIDS_EXTRA};
}

/* Both socket pairs, CONFIG and the request to priv; the far ends are closed again here. */
static int launch(struct monitor *m, const struct monitor_spec *spec, struct error *e)
{
    const struct priv_owner owner = {.spawned = on_spawned, .exited = on_exited, .context = m};
    const struct priv_caps caps = caps_of(m, spec->vcpus * 100);
    FD_AUTO int far_control = -1;
    FD_AUTO int far_channel = -1;
    int pair[2];

    if (ipc_pair(pair, e) != 0)
        return -1;
    m->control_fd = pair[0];
    far_control = pair[1];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return error_errno(e, errno, "cannot make a channel for a guest");
    m->channel_fd = pair[0];
    far_channel = pair[1];
    if (fd_set_nonblocking(m->control_fd, 1) != 0)
        return error_errno(e, errno, "cannot use a control socket");
    if (send_config(m, spec, far_channel, e) != 0)
        return -1;
    return priv_link_spawn(m->machine->priv, &caps, far_control, &owner, &m->slot, e);
}

struct monitor *monitor_start(const struct machine *machine, const struct monitor_spec *spec,
                              const struct monitor_events *events, void *context, struct error *e)
{
    struct monitor *m = calloc(1, sizeof(*m));

    if (m == NULL) {
        (void)error_errno(e, ENOMEM, "cannot start a monitor");
        return NULL;
    }
    *m = (struct monitor){.machine = machine,
                          .control_fd = -1,
                          .channel_fd = -1,
                          .slot = UINT32_MAX,
                          .vcpus = spec->vcpus,
                          .mem_mib = spec->mem_mib,
                          .events = events,
                          .context = context};
    if (launch(m, spec, e) != 0) {
        fd_close(&m->control_fd);
        fd_close(&m->channel_fd);
        free(m);
        return NULL;
    }
    (void)uv_poll_init(machine->loop, &m->poll, m->control_fd);
    m->poll.data = m;
    (void)uv_poll_start(&m->poll, UV_READABLE, on_poll);
    return m;
}

void monitor_set_events(struct monitor *m, const struct monitor_events *events, void *context)
{
    m->events = events;
    m->context = context;
}

int monitor_go(struct monitor *m, const struct identity_page *identity, struct error *e)
{
    struct vmm_start start = {.type = VMM_START};

    assert(has_seen(m, VMM_BUILT) && !m->running);
    m->running = true;
    if (identity != NULL)
        start.identity = *identity;
    int result = ipc_send(m->control_fd, &start, sizeof(start), NULL, 0, e);
    explicit_bzero(&start, sizeof(start));
    return result;
}

int monitor_take_channel(struct monitor *m)
{
    return fd_take(&m->channel_fd);
}

void monitor_set_cpu_quota(struct monitor *m, uint32_t percent)
{
    const struct priv_caps caps = caps_of(m, percent);

    if (m->slot != UINT32_MAX)
        priv_link_limit(m->machine->priv, m->slot, &caps);
}

void monitor_kill(struct monitor *m)
{
    if (m->slot != UINT32_MAX)
        priv_link_kill(m->machine->priv, m->slot);
}

pid_t monitor_pid(const struct monitor *m)
{
    return m->pid;
}

void monitor_end_text(const struct monitor_end *end, char *ret_text, size_t size)
{
    int status = end->wait_status;

    if (!end->started)
        (void)snprintf(ret_text, size, "its process could not be started: %s", end->text);
    else if (end->reason != 0)
        (void)snprintf(ret_text, size, "%s", end->text);
    else if (WIFSIGNALED(status))
        (void)snprintf(ret_text, size, "its monitor was killed by signal %d (%s)", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    else
        (void)snprintf(ret_text, size, "its monitor ended with status %d", WEXITSTATUS(status));
}
