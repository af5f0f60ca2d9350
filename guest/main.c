/*
 * The guest agent: PID 1 of every guest, packed as /init of the initramfs.
 *
 * It boots once per snapshot: mounts, opens and warms up all it will need, waits until the kernel
 * is quiet and parks at the doorbell, in user mode. Each guest restored from that snapshot goes on
 * with the instruction behind it, takes on an identity and serves the channel until the guest ends.
 *
 * There is nobody to report to but the doorbell and the serial console, and nothing to fall back
 * to: whatever fails ends the guest. The agent does not trust its tenant and has nothing to hide
 * from it either: who is root in a guest owns the guest, the agent included, and no more than that.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "cloche/guest_abi.h"
#include "guest/boot/boot.h"
#include "guest/boot/identity.h"
#include "guest/boot/warm.h"
#include "guest/channel/service.h"
#include "guest/operations.h"

/* For the kernel's own work that follows the mounts: RCU, workqueues, the console's output. */
#define QUIET_MS        300u
#define TICK_WAIT_NS    (50 * NS_PER_MS)
#define TICK_NOTICED_NS (NS_PER_MS)

static struct operations operations;
static struct service service;

__attribute__((noreturn)) static void end_guest(const struct identity *i, enum guest_failure reason,
                                                const char *text)
{
    boot_report(text);
    if (i->doorbell != NULL)
        identity_ring(i, DOORBELL_FAILED | (uint32_t)reason);
    /* The monitor ends the guest now; one that does not gets a reboot, which ends it too. */
    for (;;) {
        (void)reboot(RB_AUTOBOOT);
        (void)pause();
    }
}

/*
 * Where the kernel is interpreted a timer tick takes milliseconds, and what pauses this loop for
 * that long can only be one: the snapshot is taken right behind it, so that a restored guest has
 * as long as possible until the next. Elsewhere no tick is seen, and nothing is lost.
 */
static void wait_for_tick(void)
{
    uint64_t last_ns = clock_mono_ns();
    uint64_t end_ns = last_ns + TICK_WAIT_NS;

    for (uint64_t now_ns = last_ns; now_ns < end_ns; last_ns = now_ns) {
        now_ns = clock_mono_ns();
        if (now_ns - last_ns > TICK_NOTICED_NS)
            return;
    }
}

static void settle(void)
{
    struct timespec t = {.tv_nsec = (long)(QUIET_MS * NS_PER_MS)};

    sync();
    (void)nanosleep(&t, NULL);
    wait_for_tick();
}

int main(void)
{
    static const char *const failures[] = {
        [GUEST_FAILURE_IDENTITY] = "the identity page is not valid",
        [GUEST_FAILURE_RESEED] = "reseeding the kernel's random generator failed",
        [GUEST_FAILURE_CLOCK] = "setting the clock failed",
        [GUEST_FAILURE_HOSTNAME] = "setting the host name failed",
    };
    struct identity identity = {.random_fd = -1, .hwrng_fd = -1};
    struct error e = ERROR_INIT;
    char text[640];
    struct layers layers = LAYERS_NONE;
    int port_fd = -1;

    if (boot_mount_dev(&e) < 0 || identity_map(&identity, &e) < 0) {
        error_format(&e, text, sizeof(text));
        end_guest(&identity, GUEST_FAILURE_MOUNT, text);
    }
    identity_ring(&identity, DOORBELL_BOOTED);
    if (boot_mount_root(&layers, &e) < 0 || boot_configure(&e) < 0 ||
        identity_prepare(&identity, &e) < 0) {
        error_format(&e, text, sizeof(text));
        end_guest(&identity, GUEST_FAILURE_MOUNT, text);
    }
    warm_up();
    if (boot_open_port(&port_fd, &e) < 0 ||
        operations_init(&operations, BOOT_CGROUP_PATH, &layers, &e) < 0 ||
        service_init(&service, port_fd, operations.rows, OPERATION_COUNT, &e) < 0) {
        error_format(&e, text, sizeof(text));
        end_guest(&identity, GUEST_FAILURE_CHANNEL, text);
    }
    service_when_idle(&service, operations_tidy, &operations);
    settle();

    int failure = identity_assume(&identity);
    if (failure != 0)
        end_guest(&identity, (enum guest_failure)failure, failures[failure]);
    identity_ring(&identity, DOORBELL_READY);
    identity_drop_stale(&identity);

    if (service_run(&service, &e) < 0)
        error_format(&e, text, sizeof(text));
    else
        (void)snprintf(text, sizeof(text), "the host has closed the channel");
    end_guest(&identity, GUEST_FAILURE_CHANNEL, text);
}
