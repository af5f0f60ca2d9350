/*
 * Guests that attack the monitor (guest/), each in a monitor of its own. The table says how to run
 * each and what comes of it; in no case may the monitor crash, hang, grow, or end without saying
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
#include <unistd.h>

#include "cloche/limits.h"
#include "guest/guest.h"
#include "runner.h"
#include "vmm/x86/cpuid.h"

#define TIMEOUT_MS   90000u /* guests are interpreted on software KVM, and the machine is shared */
#define ANON_KIB_MAX 4096u

enum end {
    END_DONE = 1, /* GONE, and the guest says that it saw what it should */
    END_SHUTDOWN, /* GONE: triple fault or reset */
    END_KVM,      /* GONE: KVM cannot go on */
    END_FAILED,   /* GONE: another failure that the guest rang */
    END_PARKED,
    END_STAYS, /* runs on until the daemon closes the socket */
    END_UNKNOWN,
};

struct row {
    const char *name;
    uint32_t vcpus;
    enum end end;      /* how a boot ends ... */
    enum end software; /* ... and on software KVM, where that is different */
    enum end restored; /* where it parks: how a restored one ends, after FIRST and READY */
    const char *text;  /* what the last event must say, or NULL */
    /* Where it stays: shows that the guest does what it should and the monitor serves it. */
    void (*meanwhile)(struct runner *r, const struct runner_template *t);
};

/* A halted guest's buffer is filled all the same. */
static void watch_halted(struct runner *r, const struct runner_template *t)
{
    assert_int_equal(runner_channel_get(r, TIMEOUT_MS), 'R');
    runner_channel_put(r, 'a');
    while (runner_memory(t, CHANNEL_BYTE_GPA) != 'a')
        (void)usleep(1000);
}

/* A guest that spins looks up at each turn. */
static void watch_spinning(struct runner *r, const struct runner_template *t)
{
    (void)t;
    assert_int_equal(runner_channel_get(r, TIMEOUT_MS), 'R');
    for (char byte = 'a'; byte < 'd'; byte++) {
        runner_channel_put(r, byte);
        assert_int_equal(runner_channel_get(r, TIMEOUT_MS), byte);
    }
}

static const struct row rows[] = {
    {"mmio_nowhere", 1, .end = END_DONE},
    {"mmio_straddle", 1, .end = END_DONE},
    {"port_string", 1, .end = END_DONE},
    {"port_string_nowhere", 1, .end = END_DONE},
    {"port_flood", 1, .end = END_DONE},
    {"serial_flood", 1, .end = END_DONE},
    {"reset", 1, .end = END_SHUTDOWN},
    {"last_words", 1, .end = END_SHUTDOWN, .text = "reset itself\nearly\nlast ?[31mwords\n"},
    {"doorbell_disorder", 1, .end = END_DONE},
    {"doorbell_failed", 1, .end = END_FAILED},
    {"triple_fault", 1, .end = END_SHUTDOWN, .text = "rip 0x"},
    {"page_fault", 1, .end = END_SHUTDOWN, .text = "rip 0x"},
    {"tables_nowhere", 1, .end = END_SHUTDOWN, .text = "rip 0x"},
    {"tables_in_device", 1, .end = END_SHUTDOWN, .text = "rip 0x"},
    {"run_device", 1, .end = END_KVM, .text = "rip 0x"},
    {"halt_forever", 1, .end = END_STAYS, .meanwhile = watch_halted},
    {"spin", 1, .end = END_STAYS, .meanwhile = watch_spinning},
    {"unusual", 1, .end = END_DONE, .software = END_KVM},
    {"msr_storm", 1, .end = END_DONE},
    {"apic_storm", 1, .end = END_DONE},
    {"timer_storm", 1, .end = END_DONE},
    {"dirty_all", 1, .end = END_DONE},
    {"virtio_widths", 1, .end = END_DONE},
    {"virtio_order", 1, .end = END_DONE},
    {"virtio_queue_sizes", 1, .end = END_DONE},
    {"virtio_queue_addresses", 1, .end = END_DONE},
    {"virtio_loops", 1, .end = END_DONE},
    {"virtio_race", 1, .end = END_DONE},
    {"block_requests", 1, .end = END_DONE},
    {"notify_storm", 1, .end = END_DONE},
    {"virtio_works_after_park", 1, .end = END_PARKED, .restored = END_DONE},
    {"park", 1, .end = END_PARKED, .restored = END_DONE},
    {"park_alone", 2, .end = END_PARKED, .restored = END_DONE},
    {"park_beside_halt", 2, .end = END_PARKED, .restored = END_DONE},
    {"park_beside_flood", 2, .end = END_PARKED, .restored = END_DONE},
    {"no_such_payload", 1, .end = END_FAILED},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

static enum end classify(const struct vmm_event *event)
{
    if (event->type == VMM_PARKED)
        return END_PARKED;
    if (event->type != VMM_GONE)
        return END_UNKNOWN;
    switch (event->reason) {
    case VMM_GONE_SHUTDOWN:
        return END_SHUTDOWN;
    case VMM_GONE_KVM:
        return END_KVM;
    case VMM_GONE_FAILED:
        return event->detail == GUEST_DONE ? END_DONE : END_FAILED;
    default:
        return END_UNKNOWN;
    }
}

/* The end of the monitor, which has said `event`. */
static void check_end(struct runner *r, const struct row *row, const struct vmm_event *event,
                      enum end expected)
{
    enum end end = expected == END_STAYS ? END_STAYS : classify(event);
    bool gone = end != END_PARKED && end != END_STAYS;
    int status = runner_stop(r);

    if (end != expected || !WIFEXITED(status) || r->anon_kib_max > ANON_KIB_MAX)
        print_message("%s: event %u reason %u detail %#x, wait status %#x, %llu KiB: %s\n",
                      row->name, event->type, event->reason, event->detail, (unsigned)status,
                      (unsigned long long)r->anon_kib_max, event->text);
    assert_int_equal(end, expected);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), gone ? 1 : 0);
    assert_true(r->anon_kib_max <= ANON_KIB_MAX);
    assert_true(event->text[sizeof(event->text) - 1] == '\0');
    if (row->text != NULL && strstr(event->text, row->text) == NULL)
        print_message("%s: %s\n", row->name, event->text);
    assert_true(row->text == NULL || strstr(event->text, row->text) != NULL);
}

static void expect_end(struct runner *r, const struct row *row, const struct runner_template *t,
                       enum end expected)
{
    struct vmm_event event = {0};

    if (expected == END_STAYS) {
        row->meanwhile(r, t);
        assert_false(runner_wait(r, 0, &event));
    } else {
        assert_true(runner_wait(r, TIMEOUT_MS, &event));
    }
    check_end(r, row, &event, expected);
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
    bool differs = row->software != 0 && cpuid_kvm_kind() == KVM_KIND_SOFTWARE;
    enum end expected = differs ? row->software : row->end;
    struct runner_template t;
    struct runner r;

    if (!runner_has_kvm())
        skip();
    runner_template_init(&t);
    runner_start(&r);
    runner_config(&r, VMM_MODE_BOOT, &t, row->vcpus, row->name);
    expect_event(&r, VMM_BUILT);
    runner_send_start(&r);
    expect_end(&r, row, &t, expected);
    if (expected == END_PARKED) {
        runner_template_seal(&t);
        for (unsigned i = 0; i < 2; i++) { /* a snapshot is not used up */
            runner_start(&r);
            runner_config(&r, VMM_MODE_RESTORE, &t, row->vcpus, NULL);
            expect_event(&r, VMM_BUILT);
            runner_send_start(&r);
            expect_event(&r, VMM_FIRST);
            expect_event(&r, VMM_READY);
            expect_end(&r, row, &t, row->restored);
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
