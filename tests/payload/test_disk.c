/*
 * The monitor above a disk that hangs: whoever flushes the guest's disk is held in front of
 * fdatasync(2). The guest and its channel go on, parking waits, and a daemon that goes away ends
 * the monitor at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/guest.h"
#include "hold.h"
#include "runner.h"

#define TIMEOUT_MS 90000u

static struct runner_template template = {-1, -1};
static struct runner runner;
static struct hold hold;

static void expect(enum vmm_message_type type, struct vmm_event *ret)
{
    assert_true(runner_wait(&runner, TIMEOUT_MS, ret));
    if (ret->type != (uint32_t)type)
        print_message("event %u reason %u: %s\n", ret->type, ret->reason, ret->text);
    assert_int_equal(ret->type, type);
}

static void expect_done(void)
{
    struct vmm_event event;

    expect(VMM_GONE, &event);
    if (event.reason != VMM_GONE_FAILED || event.detail != GUEST_DONE)
        print_message("reason %u: %s\n", event.reason, event.text);
    assert_int_equal(event.reason, VMM_GONE_FAILED);
    assert_int_equal(event.detail, GUEST_DONE);
}

static void expect_exit(int code)
{
    int status = runner_stop(&runner);

    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code);
}

/* Starts the payload and returns when its flush is held. */
static void start(const char *payload)
{
    struct vmm_event event;

    runner_template_init(&template);
    runner_start(&runner);
    runner_config(&runner, VMM_MODE_BOOT, &template, 1, payload);
    expect(VMM_BUILT, &event);
    hold_init(&hold, runner.pid, SYS_fdatasync);
    runner_send_start(&runner);
    hold_wait(&hold);
}

/* Also of a test that has failed: a monitor that is held must not be left to the next one. */
static int tear_down(void **state)
{
    (void)state;
    if (runner.pid != 0) {
        (void)kill(runner.pid, SIGKILL);
        (void)runner_stop(&runner);
    }
    if (hold.pid != 0)
        hold_fini(&hold);
    runner_template_fini(&template);
    return 0;
}

#define NEEDS_KVM()                                                                                \
    do {                                                                                           \
        if (!runner_has_kvm())                                                                     \
            skip();                                                                                \
    } while (0)

static void test_channel_goes_on(void **state)
{
    (void)state;
    NEEDS_KVM();
    start("talk_beside_flush");
    for (char byte = 'a'; byte < 'e'; byte++) {
        runner_channel_put(&runner, byte);
        assert_int_equal(runner_channel_get(&runner, TIMEOUT_MS), byte);
    }
    hold_release(&hold);
    expect_done();
    expect_exit(1);
}

static void test_daemon_goes(void **state)
{
    (void)state;
    NEEDS_KVM();
    start("talk_beside_flush");
    expect_exit(0);
}

/* Whether the first thread, vCPU 0, waits for another. */
static bool vcpu_waits(void)
{
    char path[64];
    char line[256] = "";

    (void)snprintf(path, sizeof(path), "/proc/%d/syscall", (int)runner.pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    bool known = fgets(line, sizeof(line), f) != NULL;
    (void)fclose(f);
    return known && strtol(line, NULL, 10) == SYS_futex;
}

/* Returns when the vCPU has rung PARK and waits for the disk. */
static void begin_park(void)
{
    start("park_beside_flush");
    runner_channel_put(&runner, 'p');
    while (!vcpu_waits())
        (void)usleep(1000);
}

static void test_park_waits(void **state)
{
    struct vmm_event event;

    (void)state;
    NEEDS_KVM();
    begin_park();
    assert_false(runner_wait(&runner, 0, &event));
    hold_release(&hold);
    expect(VMM_PARKED, &event);
    expect_exit(0);
    hold_fini(&hold);
    /* What was flushed before the snapshot is known to be so behind it. */
    runner_template_seal(&template);
    runner_start(&runner);
    runner_config(&runner, VMM_MODE_RESTORE, &template, 1, NULL);
    expect(VMM_BUILT, &event);
    runner_send_start(&runner);
    expect(VMM_FIRST, &event);
    expect(VMM_READY, &event);
    expect_done();
    expect_exit(1);
}

static void test_daemon_goes_while_parking(void **state)
{
    (void)state;
    NEEDS_KVM();
    begin_park();
    expect_exit(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_channel_goes_on, tear_down),
        cmocka_unit_test_teardown(test_daemon_goes, tear_down),
        cmocka_unit_test_teardown(test_park_waits, tear_down),
        cmocka_unit_test_teardown(test_daemon_goes_while_parking, tear_down),
    };

    return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}
