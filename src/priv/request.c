/*
 * The requests of priv, as a table: what may be asked in which state of a slot. The daemon reads
 * guests' and clients' bytes, so it is taken to be in an attacker's hands: the first message that
 * does not fit ends priv and with it every monitor.
 */
#include "priv/request.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "cloche/vmm_proto.h"
#include "ipc/ipc.h"
#include "priv/slot.h"
#include "priv/state.h"

/* Taken per turn of the main loop, so that a flood of requests does not keep it from reaping. */
#define REQUESTS_PER_TURN 32

/* The daemon's caps for one monitor; also what its own uid may ask for at most. */
#define MEM_MAX_MIB_MAX       (SANDBOX_MEM_MIB_MAX + VMM_OVERHEAD_MIB)
#define CPU_QUOTA_PERCENT_MAX (100 * (SANDBOX_VCPUS_MAX + 1))
#define PIDS_MAX_MAX          (SANDBOX_VCPUS_MAX + VMM_PIDS_EXTRA)

enum verdict {
    REFUSE, /* a protocol error */
    DO,
    IGNORE, /* legal, and too late: the process ended while the request was under way */
};

struct rule {
    uint32_t type;
    unsigned fd_count;
    bool has_caps;
    uint8_t verdicts[SLOT_STATES];
    void (*handle)(struct priv *p, const struct priv_request *r, const struct cgroup_caps *caps,
                   int fd);
};

static void on_spawn(struct priv *p, const struct priv_request *r, const struct cgroup_caps *caps,
                     int fd)
{
    slot_start(p, r->slot, caps, fd);
}

static void on_limit(struct priv *p, const struct priv_request *r, const struct cgroup_caps *caps,
                     int fd)
{
    (void)fd;
    slot_limit(p, r->slot, caps);
}

static void on_kill(struct priv *p, const struct priv_request *r, const struct cgroup_caps *caps,
                    int fd)
{
    (void)caps;
    (void)fd;
    slot_kill(p, r->slot);
}

static const struct rule rules[] = {
    /*                          UNUSED  STARTING RUNNING ENDING  ENDED */
    {PRIV_SPAWN, 1, true, /* */ {DO, REFUSE, REFUSE, REFUSE, DO}, on_spawn},
    {PRIV_LIMIT, 0, true, /* */ {REFUSE, DO, DO, IGNORE, IGNORE}, on_limit},
    {PRIV_KILL, 0, false, /* */ {REFUSE, DO, DO, IGNORE, IGNORE}, on_kill},
};
#define RULE_COUNT (sizeof(rules) / sizeof(rules[0]))

static const struct rule *find_rule(uint32_t type)
{
    for (size_t i = 0; i < RULE_COUNT; i++)
        if (rules[i].type == type)
            return &rules[i];
    return NULL;
}

static bool caps_are_good(const struct rule *rule, const struct priv_request *r)
{
    if (!rule->has_caps)
        return r->mem_max_mib == 0 && r->cpu_quota_percent == 0 && r->pids_max == 0;
    return r->mem_max_mib >= 1 && r->mem_max_mib <= MEM_MAX_MIB_MAX && r->cpu_quota_percent >= 1 &&
           r->cpu_quota_percent <= CPU_QUOTA_PERCENT_MAX && r->pids_max >= 1 &&
           r->pids_max <= PIDS_MAX_MAX;
}

static bool is_control_socket(int fd)
{
    int domain = 0;
    int type = 0;
    socklen_t size = sizeof(int);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

/* About no slot, and only once: who could raise it would be free of it. */
static void take_total(struct priv *p, const struct priv_request *r, int fd)
{
    struct error e = ERROR_INIT;
    uint32_t mem_mib = r->mem_max_mib < p->host_mem_mib ? r->mem_max_mib : p->host_mem_mib;

    if (p->has_total || fd >= 0 || r->slot != 0 || r->reserved != 0 || r->mem_max_mib == 0 ||
        r->cpu_quota_percent != 0 || r->pids_max != 0) {
        priv_fail(p, "the daemon sent a total that is wrong, or not the first");
        return;
    }
    p->has_total = true;
    if (cgroup_tree_limit(&p->cgroups, mem_mib, &e) != 0)
        log_failure(&e, "the monitors together have no memory cap");
}

static void take(struct priv *p, const struct priv_request *r, int fd)
{
    const struct rule *rule = find_rule(r->type);

    if (r->type == PRIV_TOTAL) {
        take_total(p, r, fd);
        return;
    }
    if (!p->has_total) {
        priv_fail(p, "the daemon sent request %u before it said a total", r->type);
        return;
    }
    if (rule == NULL) {
        priv_fail(p, "the daemon sent a request of unknown type %u", r->type);
        return;
    }
    if (r->slot >= SANDBOX_COUNT_MAX || r->reserved != 0 || !caps_are_good(rule, r)) {
        priv_fail(p, "the daemon sent request %u with a field out of range", r->type);
        return;
    }
    if ((fd >= 0) != (rule->fd_count == 1) || (fd >= 0 && !is_control_socket(fd))) {
        priv_fail(p, "the daemon sent request %u with wrong descriptors", r->type);
        return;
    }
    struct cgroup_caps caps = {.mem_max_mib = r->mem_max_mib,
                               .cpu_quota_percent = r->cpu_quota_percent,
                               .pids_max = r->pids_max};
    switch ((enum verdict)rule->verdicts[p->slots[r->slot].state]) {
    case REFUSE:
        priv_fail(p, "the daemon sent request %u for slot %u, which is in state %d", r->type,
                  r->slot, p->slots[r->slot].state);
        return;
    case DO:
        rule->handle(p, r, &caps, fd);
        return;
    case IGNORE:
        return;
    }
}

void request_receive(struct priv *p)
{
    for (unsigned i = 0; i < REQUESTS_PER_TURN && !p->closed && !p->failed; i++) {
        struct priv_request request;
        struct error e = ERROR_INIT;
        size_t fd_count = 0;
        FD_AUTO int fd = -1;
        int n = ipc_recv(HANDOVER_PRIV_CONTROL, &request, sizeof(request), &fd, 1, &fd_count, &e);

        if (n < 0 && errno == EAGAIN)
            return;
        if (n == 0 || (n < 0 && errno == ECONNRESET)) {
            p->closed = true;
            return;
        }
        if (n != (int)sizeof(request)) {
            priv_fail(p, "the daemon sent a message of wrong form%s%s", n < 0 ? ": " : "",
                      n < 0 ? e.message : "");
            return;
        }
        take(p, &request, fd);
    }
}
