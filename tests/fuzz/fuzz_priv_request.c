/*
 * A daemon that has been taken over, and what it can make root do. An input is a list of steps:
 * requests with fields and descriptors of any kind, messages of any size, and what happens to the
 * monitors in between. Property: priv does exactly what cloche/priv_proto.h allows, which is
 * written down here once more; the first message that does not fit is the last one that is taken;
 * no descriptor stays open.
 *
 * What a request starts (priv/slot.h) and how priv ends (priv_fail) stand here, in place of
 * priv's.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/wire.h"
#include "ipc/ipc.h"
#include "priv/request.h"
#include "priv/slot.h"
#include "priv/state.h"

#define STEPS_MAX 64u
#define SLOTS     3u /* that are used; and one beyond the last */

enum fds { NO_FD, CONTROL_FD, STREAM_FD, FILE_FD, TWO_FDS, FDS_COUNT };

struct call {
    uint32_t type; /* 0: none */
    uint32_t slot;
    struct cgroup_caps caps;
};

static struct priv p;
static struct call called;
static unsigned fails;
static int control_fd, stream_fd, file_fd; /* to be sent along */

static void note(struct priv *of, uint32_t type, uint32_t slot, const struct cgroup_caps *caps)
{
    assert(of == &p && called.type == 0 && !p.failed);
    called = (struct call){.type = type, .slot = slot};
    if (caps != NULL)
        called.caps = *caps;
}

void slot_start(struct priv *of, uint32_t slot, const struct cgroup_caps *caps, int fd)
{
    int type = 0;
    socklen_t size = sizeof(type);

    note(of, PRIV_SPAWN, slot, caps);
    int rc = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
    assert(rc == 0 && type == SOCK_SEQPACKET);
    p.slots[slot].state = SLOT_STARTING;
}

void slot_limit(struct priv *of, uint32_t slot, const struct cgroup_caps *caps)
{
    note(of, PRIV_LIMIT, slot, caps);
}

void slot_kill(struct priv *of, uint32_t slot)
{
    note(of, PRIV_KILL, slot, NULL);
}

void priv_fail(struct priv *of, const char *format, ...)
{
    assert(of == &p && format[0] != '\0');
    fails++;
    p.failed = true;
}

/* What the protocol says of a request: false where it ends priv; else what is to be called. */
static bool is_legal(const struct priv_request *r, enum fds fds, struct call *ret_call)
{
    bool has_caps = r->type == PRIV_SPAWN || r->type == PRIV_LIMIT;
    uint32_t mem_max = SANDBOX_MEM_MIB_MAX + VMM_OVERHEAD_MIB;
    uint32_t cpu_max = 100 * (SANDBOX_VCPUS_MAX + 1);
    uint32_t pids_max = SANDBOX_VCPUS_MAX + VMM_PIDS_EXTRA;

    *ret_call = (struct call){0};
    if (r->type == PRIV_TOTAL)
        return !p.has_total && fds == NO_FD && r->slot == 0 && r->mem_max_mib != 0 &&
               r->cpu_quota_percent == 0 && r->pids_max == 0 && r->reserved == 0;
    if (!p.has_total)
        return false;
    if ((!has_caps && r->type != PRIV_KILL) || r->slot >= SANDBOX_COUNT_MAX || r->reserved != 0)
        return false;
    if (has_caps && (r->mem_max_mib == 0 || r->mem_max_mib > mem_max || r->cpu_quota_percent == 0 ||
                     r->cpu_quota_percent > cpu_max || r->pids_max == 0 || r->pids_max > pids_max))
        return false;
    if (!has_caps && (r->mem_max_mib != 0 || r->cpu_quota_percent != 0 || r->pids_max != 0))
        return false;
    if (fds != (r->type == PRIV_SPAWN ? CONTROL_FD : NO_FD))
        return false;
    enum slot_state state = p.slots[r->slot].state;
    if (r->type == PRIV_SPAWN ? state != SLOT_UNUSED && state != SLOT_ENDED : state == SLOT_UNUSED)
        return false;
    if (r->type != PRIV_SPAWN && (state == SLOT_ENDING || state == SLOT_ENDED))
        return true; /* too late */
    *ret_call = (struct call){.type = r->type, .slot = r->slot};
    if (has_caps)
        ret_call->caps = (struct cgroup_caps){.mem_max_mib = r->mem_max_mib,
                                              .cpu_quota_percent = r->cpu_quota_percent,
                                              .pids_max = r->pids_max};
    return true;
}

static bool same(const struct call *a, const struct call *b)
{
    return a->type == b->type && a->slot == b->slot && a->caps.mem_max_mib == b->caps.mem_max_mib &&
           a->caps.cpu_quota_percent == b->caps.cpu_quota_percent &&
           a->caps.pids_max == b->caps.pids_max;
}

/* A number that is probably a good one, or just beyond. */
static uint32_t take_number(struct wire_reader *r, uint32_t max)
{
    uint8_t kind = wire_get_u8(r);

    return kind == 0xff ? wire_get_u32(r) : kind == 0xfe ? max + 1 : kind == 0xfd ? max : kind;
}

static uint32_t take_slot(struct wire_reader *r)
{
    uint32_t slot = take_number(r, SANDBOX_COUNT_MAX - 1);

    return slot < SANDBOX_COUNT_MAX - 1 ? slot % SLOTS : slot;
}

static void send_message(int to, const void *message, size_t size, enum fds fds)
{
    const int sent[2] = {fds == STREAM_FD ? stream_fd
                         : fds == FILE_FD ? file_fd
                                          : control_fd,
                         file_fd};
    struct error e = ERROR_INIT;
    int rc = ipc_send(to, message, size, sent, fds == NO_FD ? 0 : fds == TWO_FDS ? 2 : 1, &e);

    assert(rc == 0);
}

/* Lets priv take what was sent, and compares. */
static void expect(bool is_taken, const struct call *call)
{
    int free_before = dup(file_fd);

    (void)close(free_before);
    called = (struct call){0};
    request_receive(&p);
    int free_after = dup(file_fd);
    (void)close(free_after);
    assert(free_before == free_after);
    assert(p.failed == !is_taken && fails == (is_taken ? 0u : 1u) && !p.closed);
    assert(same(&called, call));
}

static void step_request(struct wire_reader *r, int to)
{
    enum fds fds = (enum fds)(wire_get_u8(r) % FDS_COUNT);
    struct priv_request request = {.type = wire_get_u8(r) % 5, .slot = take_slot(r)};
    struct call call;

    if (request.type != PRIV_KILL || wire_get_u8(r) % 2 != 0) {
        request.mem_max_mib = take_number(r, SANDBOX_MEM_MIB_MAX + VMM_OVERHEAD_MIB);
        request.cpu_quota_percent = take_number(r, 100 * (SANDBOX_VCPUS_MAX + 1));
        request.pids_max = take_number(r, SANDBOX_VCPUS_MAX + VMM_PIDS_EXTRA);
        request.reserved = wire_get_u8(r) == 0xff;
    }
    bool is_taken = is_legal(&request, fds, &call);
    send_message(to, &request, sizeof(request), fds);
    expect(is_taken, &call);
}

/* A message of any size but the right one; an empty one is as the end of the daemon. */
static void step_noise(struct wire_reader *r, int to)
{
    static const uint8_t bytes[256];
    static const struct call none;
    size_t size = wire_get_u8(r);
    enum fds fds = (enum fds)(wire_get_u8(r) % FDS_COUNT);

    if (size == 0 || size == sizeof(struct priv_request))
        return;
    send_message(to, bytes, size, fds);
    expect(false, &none);
}

/* What happens to monitors without being asked for. */
static void step_slot(struct wire_reader *r)
{
    struct slot *s = &p.slots[take_slot(r) % SANDBOX_COUNT_MAX];

    if (s->state != SLOT_UNUSED && s->state != SLOT_ENDED)
        s->state++;
}

/* `has_total`: the first message, about all monitors, has come already. */
static void reset(bool has_total)
{
    for (uint32_t i = 0; i < SLOTS; i++)
        p.slots[i].state = SLOT_UNUSED;
    p.slots[SANDBOX_COUNT_MAX - 1].state = SLOT_UNUSED;
    p.has_total = has_total;
    p.failed = p.closed = false;
    fails = 0;
}

/* Between two inputs priv's descriptor is held by another file. */
static void open_descriptors(void)
{
    int pair[2];

    file_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert(file_fd >= 0);
    if (file_fd == HANDOVER_PRIV_CONTROL)
        file_fd = dup(file_fd);
    int rc = dup2(file_fd, HANDOVER_PRIV_CONTROL);
    assert(rc == HANDOVER_PRIV_CONTROL);
    rc = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
    assert(rc == 0);
    control_fd = pair[0];
    rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
    assert(rc == 0);
    stream_fd = pair[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wire_reader r;
    int pair[2];

    if (file_fd == 0)
        open_descriptors();
    reset(size == 0 || (data[0] & 0x80) == 0);
    int rc = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
    assert(rc == 0);
    rc = dup2(pair[1], HANDOVER_PRIV_CONTROL);
    assert(rc == HANDOVER_PRIV_CONTROL);
    (void)close(pair[1]);
    wire_reader_init(&r, data, size);
    for (unsigned i = 0; i < STEPS_MAX && r.left > 0 && !r.bad && !p.failed; i++) {
        uint8_t kind = wire_get_u8(&r) % 8;

        if (kind < 5)
            step_request(&r, pair[0]);
        else if (kind < 7)
            step_slot(&r);
        else
            step_noise(&r, pair[0]);
    }
    bool was_failed = p.failed;
    (void)close(pair[0]);
    request_receive(&p);
    assert(p.closed == !was_failed && p.failed == was_failed);
    rc = dup2(file_fd, HANDOVER_PRIV_CONTROL);
    assert(rc == HANDOVER_PRIV_CONTROL);
    return 0;
}
