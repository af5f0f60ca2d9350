/* What shapes stand on, played: monitors, boots and files. The test says when a shell is built and
 * when it is gone. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/machine/boot.h"
#include "daemon/machine/fingerprint.h"
#include "daemon/machine/machine.h"
#include "daemon/machine/monitor.h"
#include "daemon/machine/shape_set.h"
#include "daemon/machine/snapshot_store.h"
#include "daemon/machine/template.h"

#define GUEST_MIB    936u /* with its monitor 1000 */
#define MONITORS_MAX 64u
#define SPINS_MAX    20000u /* of a tenth of a millisecond each */

struct monitor {
    const struct monitor_events *events;
    void *context;
    uint32_t mem_mib;
    bool alive, killed, built;
};

struct play {
    uv_loop_t loop;
    struct template template;
    struct machine machine;
    struct shape_set *set;
    struct monitor monitors[MONITORS_MAX];
    unsigned started;
    int load_result; /* of snapshot_load */
    bool hold_copies;
    sem_t copying, copy_on; /* a held copy has begun; it may go on */
    bool copies_fail;
    boot_done_fn boot_done;
    void *boot_context;
    unsigned warm_count;
    struct given {
        unsigned count;
        struct monitor *monitor;
        enum shape_origin origin;
        enum error_code code;
    } given;
} * the_play;

/* --- what is played ----------------------------------------------------------------------------
 */

struct monitor *monitor_start(const struct machine *machine, const struct monitor_spec *spec,
                              const struct monitor_events *events, void *context, struct error *e)
{
    assert_ptr_equal(machine, &the_play->machine);
    assert_true(the_play->started < MONITORS_MAX);
    assert_true(spec->fds[VMM_FD_SCRATCH] >= 0);
    (void)e;
    struct monitor *m = &the_play->monitors[the_play->started++];
    *m = (struct monitor){
        .events = events, .context = context, .mem_mib = spec->mem_mib, .alive = true};
    return m;
}

void monitor_set_events(struct monitor *m, const struct monitor_events *events, void *context)
{
    m->events = events;
    m->context = context;
}

void monitor_kill(struct monitor *m)
{
    assert_true(m->alive);
    m->killed = true;
}

void monitor_end_text(const struct monitor_end *end, char *ret_text, size_t size)
{
    (void)end;
    (void)snprintf(ret_text, size, "it ended");
}

struct boot *boot_start(const struct machine *machine, const struct template *t,
                        const struct snapshot_key *key, boot_done_fn done, void *context)
{
    (void)machine, (void)t, (void)key;
    the_play->boot_done = done;
    the_play->boot_context = context;
    return (struct boot *)the_play;
}

void boot_cancel(struct boot *b)
{
    assert_ptr_equal(b, the_play);
    the_play->boot_done = NULL;
}

void fingerprint_shape(const struct template_set *set, const struct template *t, char *ret_text,
                       size_t size)
{
    (void)set, (void)t;
    (void)snprintf(ret_text, size, "x");
}

int snapshot_load(struct snapshot *ret_snapshot, const struct snapshot_key *key, int snapshots_fd,
                  struct error *e)
{
    (void)ret_snapshot, (void)key, (void)snapshots_fd;
    if (the_play->load_result < 0)
        (void)error_set(e, ERR_TEMPLATE_CORRUPT, "played");
    return the_play->load_result;
}

void snapshot_fini(struct snapshot *s)
{
    (void)s;
}

/* In a worker. */
int snapshot_scratch(const struct snapshot *s, int scratch_dir_fd, struct error *e)
{
    (void)s, (void)scratch_dir_fd;
    if (the_play->hold_copies) {
        (void)sem_post(&the_play->copying);
        while (sem_wait(&the_play->copy_on) != 0)
            continue;
    }
    if (the_play->copies_fail)
        return error_set(e, ERR_INTERNAL, "no disk left");
    return dup(STDERR_FILENO);
}
