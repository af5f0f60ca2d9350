/*
 * Guests that attack the monitor (guest/), each in a monitor of its own. The table says how to run
 * each and what may come of it; in no case may the monitor crash, hang, grow, or end without saying
 * why.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "cloche/limits.h"
#include "guest/guest.h"
#include "runner.h"

#define TIMEOUT_MS   90000u /* guests are interpreted on software KVM, and the machine is shared */
#define SETTLE_MS    300u
#define ANON_KIB_MAX 4096u

enum end {
    END_DONE = 1u << 0,     /* GONE, and the guest says that it saw what it should */
    END_SHUTDOWN = 1u << 1, /* GONE: triple fault or reset */
    END_KVM = 1u << 2,      /* GONE: KVM cannot go on */
    END_FAILED = 1u << 3,   /* GONE: another failure that the guest rang */
    END_PARKED = 1u << 4,
    END_STAYS = 1u << 5, /* runs on until the daemon closes the socket */
};

struct row {
    const char *name;
    uint32_t vcpus;
    unsigned boot;     /* how a boot may end */
    unsigned restored; /* where it parks: how a restored one may end, after FIRST and READY */
    const char *text;  /* what the last event must say, or NULL */
};

static const struct row rows[] = {
    {"mmio_nowhere", 1, END_DONE, 0, NULL},
    {"mmio_straddle", 1, END_DONE, 0, NULL},
    {"port_string", 1, END_DONE, 0, NULL},
    /* Without handlers its faults end it, on software KVM in the interpreter. */
    {"port_string_nowhere", 1, END_DONE | END_SHUTDOWN | END_KVM, 0, NULL},
    {"port_flood", 1, END_DONE, 0, NULL},
    {"serial_flood", 1, END_DONE, 0, NULL},
    {"reset", 1, END_SHUTDOWN, 0, NULL},
    {"last_words", 1, END_SHUTDOWN, 0, "reset itself\nearly\nlast ?[31mwords\n"},
    {"doorbell_disorder", 1, END_DONE, 0, NULL},
    {"doorbell_failed", 1, END_FAILED, 0, NULL},
    {"triple_fault", 1, END_SHUTDOWN | END_KVM, 0, "rip 0x"},
    {"page_fault", 1, END_SHUTDOWN | END_KVM, 0, "rip 0x"},
    {"tables_nowhere", 1, END_SHUTDOWN | END_KVM, 0, "rip 0x"},
    {"tables_in_device", 1, END_SHUTDOWN | END_KVM, 0, "rip 0x"},
    {"run_device", 1, END_SHUTDOWN | END_KVM, 0, "rip 0x"},
    {"halt_forever", 1, END_STAYS, 0, NULL},
    {"spin", 1, END_STAYS, 0, NULL},
    {"unusual", 1, END_DONE | END_KVM | END_SHUTDOWN, 0, NULL},
    {"msr_storm", 1, END_DONE | END_KVM | END_SHUTDOWN, 0, NULL},
    {"apic_storm", 1, END_DONE, 0, NULL},
    {"timer_storm", 1, END_DONE, 0, NULL},
    {"dirty_all", 1, END_DONE, 0, NULL},
    {"virtio_widths", 1, END_DONE, 0, NULL},
    {"virtio_order", 1, END_DONE, 0, NULL},
    {"virtio_queue_sizes", 1, END_DONE, 0, NULL},
    {"virtio_queue_addresses", 1, END_DONE, 0, NULL},
    {"virtio_loops", 1, END_DONE, 0, NULL},
    {"virtio_race", 1, END_DONE, 0, NULL},
    {"block_requests", 1, END_DONE, 0, NULL},
    {"notify_storm", 1, END_DONE, 0, NULL},
    {"virtio_works_after_park", 1, END_PARKED, END_DONE, NULL},
    {"park", 1, END_PARKED, END_DONE, NULL},
    {"park_alone", 2, END_PARKED, END_DONE, NULL},
    {"park_beside_halt", 2, END_PARKED, END_DONE, NULL},
    {"park_beside_flood", 2, END_PARKED, END_DONE, NULL},
    {"no_such_payload", 1, END_FAILED, 0, NULL},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

static enum end classify(const struct vmm_event *event)
{
    if (event->type == VMM_PARKED)
        return END_PARKED;
    if (event->type != VMM_GONE)
        return 0;
    switch (event->reason) {
    case VMM_GONE_SHUTDOWN:
        return END_SHUTDOWN;
    case VMM_GONE_KVM:
        return END_KVM;
    case VMM_GONE_FAILED:
        return event->detail == GUEST_DONE ? END_DONE : END_FAILED;
    default:
        return 0;
    }
}

/* Waits for the guest's end and checks it against `allowed`. */
static enum end expect_end(struct runner *r, const struct row *row, unsigned allowed)
{
    struct vmm_event event;
    enum end end = END_STAYS;

    if (runner_wait(r, allowed == END_STAYS ? SETTLE_MS : TIMEOUT_MS, &event))
        end = classify(&event);
    int status = runner_stop(r);
    if ((end & allowed) == 0 || !WIFEXITED(status) || r->anon_kib_max > ANON_KIB_MAX)
        print_message("%s: event %u reason %u detail %#x, wait status %#x, %llu KiB: %s\n",
                      row->name, event.type, event.reason, event.detail, (unsigned)status,
                      (unsigned long long)r->anon_kib_max, event.text);
    assert_true((end & allowed) != 0);
    assert_true(event.text[sizeof(event.text) - 1] == '\0');
    if (row->text != NULL && strstr(event.text, row->text) == NULL)
        print_message("%s: %s\n", row->name, event.text);
    assert_true(row->text == NULL || strstr(event.text, row->text) != NULL);
    assert_true(WIFEXITED(status));
    bool gone = end != END_PARKED && end != END_STAYS;
    assert_int_equal(WEXITSTATUS(status), gone ? 1 : 0);
    assert_true(r->anon_kib_max <= ANON_KIB_MAX);
    return end;
}

static void expect_event(struct runner *r, enum vmm_message_type type)
{
    struct vmm_event event;

    assert_true(runner_wait(r, TIMEOUT_MS, &event));
    if (event.type != type)
        print_message("event %u reason %u: %s\n", event.type, event.reason, event.text);
    assert_int_equal(event.type, type);
}

static void test_row(void **state)
{
    const struct row *row = *state;
    struct runner_template t;
    struct runner r;

    if (!runner_has_kvm())
        skip();
    runner_template_init(&t);
    runner_start(&r);
    runner_config(&r, VMM_MODE_BOOT, &t, row->vcpus, row->name);
    expect_event(&r, VMM_BUILT);
    runner_send_start(&r);
    enum end end = expect_end(&r, row, row->boot);
    if (end == END_PARKED) {
        runner_template_seal(&t);
        for (unsigned i = 0; i < 2; i++) { /* a snapshot is not used up */
            runner_start(&r);
            runner_config(&r, VMM_MODE_RESTORE, &t, row->vcpus, NULL);
            expect_event(&r, VMM_BUILT);
            runner_send_start(&r);
            expect_event(&r, VMM_FIRST);
            expect_event(&r, VMM_READY);
            (void)expect_end(&r, row, row->restored);
        }
    }
    runner_template_fini(&t);
}

int main(void)
{
    struct CMUnitTest tests[ROWS];

    for (size_t i = 0; i < ROWS; i++)
        tests[i] = (struct CMUnitTest){.name = rows[i].name,
                                       .test_func = test_row,
                                       .initial_state = (void *)(uintptr_t)&rows[i]};
    return cmocka_run_group_tests_name("payload", tests, NULL, NULL);
}
