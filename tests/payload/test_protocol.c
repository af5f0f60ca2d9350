/*
 * The monitor against a daemon gone bad, and against snapshots that lie: whatever comes out of
 * order or does not fit ends it at once, with a reason, and no guest instruction has run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "cloche/limits.h"
#include "ipc/ipc.h"
#include "runner.h"
#include "vmm/state/snapshot.h"

#define TIMEOUT_MS 90000u
#define QUIET_MS   200u

static struct runner_template parked; /* of the payload "park" */

static void expect(struct runner *r, enum vmm_message_type type, struct vmm_event *ret)
{
    assert_true(runner_wait(r, TIMEOUT_MS, ret));
    if (ret->type != type)
        print_message("event %u reason %u: %s\n", ret->type, ret->reason, ret->text);
    assert_int_equal(ret->type, type);
}

static void expect_exit(struct runner *r, int code)
{
    int status = runner_stop(r);

    if (!WIFEXITED(status) || WEXITSTATUS(status) != code)
        print_message("wait status %#x\n", (unsigned)status);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code);
}

static void expect_gone(struct runner *r, enum vmm_gone_reason reason, const char *text)
{
    struct vmm_event event;

    expect(r, VMM_GONE, &event);
    if (event.reason != reason || strstr(event.text, text) == NULL)
        print_message("reason %u: %s\n", event.reason, event.text);
    assert_int_equal(event.reason, reason);
    assert_non_null(strstr(event.text, text));
    expect_exit(r, 1);
}

static void send_bytes(struct runner *r, const void *data, size_t size)
{
    struct error e = ERROR_INIT;

    assert_int_equal(ipc_send(r->control_fd, data, size, NULL, 0, &e), 0);
}

static int set_up(void **state)
{
    struct vmm_event event;
    struct runner r;

    (void)state;
    if (!runner_has_kvm())
        return 0;
    runner_template_init(&parked);
    runner_start(&r);
    runner_config(&r, VMM_MODE_BOOT, &parked, 1, "park");
    if (!runner_wait(&r, TIMEOUT_MS, &event) || event.type != VMM_BUILT)
        return -1;
    runner_send_start(&r);
    if (!runner_wait(&r, TIMEOUT_MS, &event) || event.type != VMM_PARKED)
        return -1;
    if (runner_stop(&r) != 0)
        return -1;
    runner_template_seal(&parked); /* only once nobody maps it for writing */
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (parked.memory_fd > 0)
        runner_template_fini(&parked);
    return 0;
}

#define NEEDS_KVM()                                                                                \
    do {                                                                                           \
        if (!runner_has_kvm())                                                                     \
            skip();                                                                                \
    } while (0)

static void test_closed_socket(void **state)
{
    struct vmm_event event;
    struct runner r;

    (void)state;
    NEEDS_KVM();
    runner_start(&r); /* before CONFIG */
    expect_exit(&r, 0);
    runner_start(&r); /* between BUILT and START */
    runner_config(&r, VMM_MODE_RESTORE, &parked, 1, NULL);
    expect(&r, VMM_BUILT, &event);
    expect_exit(&r, 0);
    struct runner_template t;
    runner_template_init(&t);
    runner_start(&r); /* while a guest runs */
    runner_config(&r, VMM_MODE_BOOT, &t, 1, "spin");
    expect(&r, VMM_BUILT, &event);
    runner_send_start(&r);
    assert_int_equal(runner_channel_get(&r, TIMEOUT_MS), 'R');
    assert_false(runner_wait(&r, 0, &event));
    expect_exit(&r, 0);
    runner_template_fini(&t);
}

static void test_first_message(void **state)
{
    static const struct vmm_start start = {.type = VMM_START};
    static const uint32_t word = VMM_CONFIG;
    static const uint8_t large[4096];
    struct runner r;

    (void)state;
    NEEDS_KVM();
    runner_start(&r);
    send_bytes(&r, &start, sizeof(start));
    expect_gone(&r, VMM_GONE_PROTOCOL, "not CONFIG");
    runner_start(&r);
    send_bytes(&r, &word, sizeof(word));
    expect_gone(&r, VMM_GONE_PROTOCOL, "not CONFIG");
    runner_start(&r);
    send_bytes(&r, large, sizeof(large));
    expect_gone(&r, VMM_GONE_PROTOCOL, "");
}

static void test_bad_config(void **state)
{
    const struct vmm_config good = {
        .type = VMM_CONFIG, .mode = VMM_MODE_RESTORE, .vcpus = 1, .mem_mib = RUNNER_MEM_MIB};
    int disk = runner_disk();
    const int fds[VMM_FD_COUNT_BOOT] = {disk, disk, disk, disk, disk, disk, disk};
    struct {
        struct vmm_config config;
        size_t fd_count;
        const char *text;
    } tries[] = {
        {good, 0, "0 descriptors"},
        {good, VMM_FD_COUNT_RESTORE - 1, "descriptors"},
        {good, VMM_FD_COUNT_BOOT, "descriptors"},
        {good, VMM_FD_COUNT_RESTORE, "bytes, not 64 MiB"},
        {good, VMM_FD_COUNT_RESTORE, "mode"},
        {good, VMM_FD_COUNT_RESTORE, "vCPUs"},
        {good, VMM_FD_COUNT_RESTORE, "vCPUs"},
        {good, VMM_FD_COUNT_RESTORE, "MiB"},
        {good, VMM_FD_COUNT_RESTORE, "MiB"},
        {good, VMM_FD_COUNT_RESTORE, "command line"},
    };

    (void)state;
    NEEDS_KVM();
    tries[4].config.mode = 9;
    tries[5].config.vcpus = 0;
    tries[6].config.vcpus = SANDBOX_VCPUS_MAX + 1;
    tries[7].config.mem_mib = 0;
    tries[8].config.mem_mib = UINT32_MAX;
    memset(tries[9].config.cmdline_extra, 'x', sizeof(tries[9].config.cmdline_extra));
    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
        struct runner r;

        runner_start(&r);
        runner_send_config(&r, &tries[i].config, fds, tries[i].fd_count);
        expect_gone(&r, VMM_GONE_CONFIG, tries[i].text);
    }
    fd_close(&disk);
}

static void test_memory_must_be_sealed(void **state)
{
    struct runner_template t;
    struct runner r;

    (void)state;
    NEEDS_KVM();
    runner_template_init(&t);
    runner_start(&r);
    runner_config(&r, VMM_MODE_RESTORE, &t, 1, NULL);
    expect_gone(&r, VMM_GONE_CONFIG, "not sealed");
    runner_template_fini(&t);
}

static void test_kernel_is_no_kernel(void **state)
{
    struct vmm_config config = {
        .type = VMM_CONFIG, .mode = VMM_MODE_BOOT, .vcpus = 1, .mem_mib = RUNNER_MEM_MIB};
    struct runner_template t;
    int fds[VMM_FD_COUNT_BOOT];
    struct runner r;
    int pair[2];

    (void)state;
    NEEDS_KVM();
    runner_template_init(&t);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    for (size_t i = 0; i < VMM_FD_COUNT_BOOT; i++)
        fds[i] = runner_disk();
    fd_close(&fds[VMM_FD_MEMORY]);
    fds[VMM_FD_MEMORY] = t.memory_fd;
    fd_close(&fds[VMM_FD_CHANNEL]);
    fds[VMM_FD_CHANNEL] = pair[0];
    runner_start(&r);
    runner_send_config(&r, &config, fds, VMM_FD_COUNT_BOOT);
    expect_gone(&r, VMM_GONE_CONFIG, "kernel image is unusable");
    for (size_t i = 1; i < VMM_FD_COUNT_BOOT; i++)
        fd_close(&fds[i]);
    fd_close(&pair[1]);
    runner_template_fini(&t);
}

static void test_second_message(void **state)
{
    static const uint32_t word = VMM_START;
    struct vmm_event event;
    struct runner r;

    (void)state;
    NEEDS_KVM();
    runner_start(&r); /* CONFIG again, where START belongs */
    runner_config(&r, VMM_MODE_RESTORE, &parked, 1, NULL);
    expect(&r, VMM_BUILT, &event);
    runner_send_config(&r, &(struct vmm_config){.type = VMM_CONFIG}, NULL, 0);
    expect_gone(&r, VMM_GONE_PROTOCOL, "");
    runner_start(&r); /* a START that is too short */
    runner_config(&r, VMM_MODE_RESTORE, &parked, 1, NULL);
    expect(&r, VMM_BUILT, &event);
    send_bytes(&r, &word, sizeof(word));
    expect_gone(&r, VMM_GONE_PROTOCOL, "not START");
}

static void test_message_after_start(void **state)
{
    struct runner_template t;
    struct vmm_event event;
    struct runner r;

    (void)state;
    NEEDS_KVM();
    runner_template_init(&t);
    runner_start(&r);
    runner_config(&r, VMM_MODE_BOOT, &t, 1, "halt_forever");
    expect(&r, VMM_BUILT, &event);
    runner_send_start(&r);
    runner_send_start(&r);
    expect_gone(&r, VMM_GONE_PROTOCOL, "after START");
    runner_template_fini(&t);
}

static void test_channel_closed(void **state)
{
    struct runner_template t;
    struct vmm_event event;
    struct runner r;

    (void)state;
    NEEDS_KVM();
    runner_template_init(&t);
    runner_start(&r);
    runner_config(&r, VMM_MODE_BOOT, &t, 1, "halt_forever");
    expect(&r, VMM_BUILT, &event);
    runner_send_start(&r);
    fd_close(&r.channel_fd);
    expect_gone(&r, VMM_GONE_PROTOCOL, "channel");
    runner_template_fini(&t);
}

/* The guest's first store comes only after START, and the identity is not there before. */
static void test_nothing_runs_before_start(void **state)
{
    struct vmm_event event;
    struct runner r;

    (void)state;
    NEEDS_KVM();
    runner_start(&r);
    runner_config(&r, VMM_MODE_RESTORE, &parked, 1, NULL);
    expect(&r, VMM_BUILT, &event);
    assert_false(runner_wait(&r, QUIET_MS, &event));
    uint64_t page[GUEST_PAGE_BYTES / 8];
    assert_int_equal(pread(parked.memory_fd, page, sizeof(page), (off_t)GUEST_IDENTITY_GPA),
                     sizeof(page));
    for (size_t i = 0; i < GUEST_PAGE_BYTES / 8; i++)
        assert_int_equal(page[i], 0);
    runner_send_start(&r);
    expect(&r, VMM_FIRST, &event);
    expect(&r, VMM_READY, &event);
    expect_gone(&r, VMM_GONE_FAILED, "");
    /* What this guest was told is not in the template. */
    assert_int_equal(pread(parked.memory_fd, page, sizeof(page), (off_t)GUEST_IDENTITY_GPA),
                     sizeof(page));
    for (size_t i = 0; i < GUEST_PAGE_BYTES / 8; i++)
        assert_int_equal(page[i], 0);
}

static size_t read_state(uint8_t *ret, size_t size)
{
    struct stat st;

    assert_int_equal(fstat(parked.state_fd, &st), 0);
    assert_true((size_t)st.st_size <= size);
    assert_int_equal(pread(parked.state_fd, ret, (size_t)st.st_size, 0), st.st_size);
    return (size_t)st.st_size;
}

static void restore_with(const uint8_t *bytes, size_t size, uint32_t vcpus, const char *text)
{
    struct runner_template t = {.memory_fd = parked.memory_fd, .state_fd = runner_disk()};
    struct runner r;

    assert_int_equal(ftruncate(t.state_fd, 0), 0);
    assert_int_equal(fd_pwrite_full(t.state_fd, bytes, size, 0), 0);
    runner_start(&r);
    runner_config(&r, VMM_MODE_RESTORE, &t, vcpus, NULL);
    expect_gone(&r, VMM_GONE_STATE, text);
    fd_close(&t.state_fd);
}

static void test_corrupt_state(void **state)
{
    static uint8_t bytes[SNAPSHOT_BYTES_MAX + 1];
    size_t size;

    (void)state;
    NEEDS_KVM();
    size = read_state(bytes, sizeof(bytes));
    restore_with(bytes, 0, 1, "size");
    restore_with(bytes, 20, 1, "size");
    restore_with(bytes, size - 1, 1, "length");
    restore_with(bytes, sizeof(bytes), 1, "size");
    bytes[size / 2] ^= 1;
    restore_with(bytes, size, 1, "checksum");
    bytes[size / 2] ^= 1;
    restore_with(bytes, size, 2, "1 vCPUs");
    bytes[8] ^= 0x40;
    restore_with(bytes, size, 1, "version");
}

static void restore_changed(struct snapshot *s, const char *text)
{
    static uint8_t bytes[SNAPSHOT_BYTES_MAX];
    size_t size = snapshot_write(s, bytes, sizeof(bytes));

    assert_true(size > 0);
    restore_with(bytes, size, 1, text);
}

/* Whole and well-formed, but of another place. */
static void test_foreign_state(void **state)
{
    static uint8_t bytes[SNAPSHOT_BYTES_MAX];
    struct error e = ERROR_INIT;
    struct snapshot *s = NULL;

    (void)state;
    NEEDS_KVM();
#define CHANGED(change, text)                                                                      \
    do {                                                                                           \
        assert_int_equal(snapshot_parse(bytes, read_state(bytes, sizeof(bytes)), &s, &e), 0);      \
        change;                                                                                    \
        restore_changed(s, text);                                                                  \
        snapshot_free(s);                                                                          \
    } while (0)
    CHANGED(s->kind = s->kind == KVM_KIND_SOFTWARE ? KVM_KIND_HARDWARE : KVM_KIND_SOFTWARE, "KVM");
    CHANGED(s->host.vendor[0] ^= 1, "another processor");
    CHANGED(s->host.signature ^= 0x10, "another processor");
    CHANGED(s->mem_mib = 128, "MiB");
    CHANGED(s->tsc_khz *= 2, "kHz");
    CHANGED(s->cpuid.entries[1].ecx ^= 1, "CPUID leaf");
    CHANGED(s->vcpu[0].msrs.entries[0].index = 0xdead, "MSR 0xdead");
    CHANGED(s->vcpu[0].msrs.entries[1] = s->vcpu[0].msrs.entries[0], "MSR");
    CHANGED(s->devices_bytes -= 1, "devices");
    CHANGED(s->devices_bytes = 0, "devices");
#undef CHANGED
}

/* What only KVM can judge, and random bytes: refused or run, but the monitor ends in good order. */
static void restore_anything(struct snapshot *s)
{
    static uint8_t bytes[SNAPSHOT_BYTES_MAX];
    struct runner_template t = {.memory_fd = parked.memory_fd, .state_fd = runner_disk()};
    size_t size = snapshot_write(s, bytes, sizeof(bytes));
    struct vmm_event event;
    struct runner r;

    assert_true(size > 0);
    assert_int_equal(ftruncate(t.state_fd, 0), 0);
    assert_int_equal(fd_pwrite_full(t.state_fd, bytes, size, 0), 0);
    runner_start(&r);
    runner_config(&r, VMM_MODE_RESTORE, &t, 1, NULL);
    assert_true(runner_wait(&r, TIMEOUT_MS, &event));
    if (event.type == VMM_BUILT) {
        runner_send_start(&r);
        while (runner_wait(&r, QUIET_MS / 10, &event) && event.type != VMM_GONE)
            assert_true(event.type == VMM_FIRST || event.type == VMM_READY);
    } else {
        assert_int_equal(event.type, VMM_GONE);
        assert_int_equal(event.reason, VMM_GONE_STATE);
    }
    int status = runner_stop(&r);
    assert_true(WIFEXITED(status));
    fd_close(&t.state_fd);
}

static void test_wild_state(void **state)
{
    static uint8_t bytes[SNAPSHOT_BYTES_MAX];
    struct error e = ERROR_INIT;
    struct snapshot *s = NULL;

    (void)state;
    NEEDS_KVM();
    srandom(11);
    for (unsigned round = 0; round < 120; round++) {
        assert_int_equal(snapshot_parse(bytes, read_state(bytes, sizeof(bytes)), &s, &e), 0);
        struct vcpu_state *v = &s->vcpu[0];
        const struct {
            void *data;
            size_t size;
        } parts[] = {
            {&v->regs, sizeof(v->regs)},
            {&v->sregs, sizeof(v->sregs)},
            {&v->xsave, sizeof(v->xsave)},
            {&v->xcrs, sizeof(v->xcrs)},
            {&v->debugregs, sizeof(v->debugregs)},
            {&v->lapic, sizeof(v->lapic)},
            {&v->events, sizeof(v->events)},
            {&v->mp_state, sizeof(v->mp_state)},
            {&v->time, sizeof(v->time)},
            {&v->msrs.entries, v->msrs.count * sizeof(v->msrs.entries[0])},
            {&s->irqchips[round % 3].chip, sizeof(s->irqchips[0].chip)},
            {&s->clock, sizeof(s->clock)},
            {s->serial, sizeof(s->serial)},
            {(void *)(uintptr_t)s->devices, s->devices_bytes},
        };
        const size_t part = round % (sizeof(parts) / sizeof(parts[0]));
        for (unsigned flips = 1 + round / 20; flips > 0; flips--)
            ((uint8_t *)parts[part].data)[(size_t)random() % parts[part].size] =
                round % 2 == 0 ? 0xff : (uint8_t)random();
        restore_anything(s);
        snapshot_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closed_socket),
        cmocka_unit_test(test_first_message),
        cmocka_unit_test(test_bad_config),
        cmocka_unit_test(test_memory_must_be_sealed),
        cmocka_unit_test(test_kernel_is_no_kernel),
        cmocka_unit_test(test_second_message),
        cmocka_unit_test(test_message_after_start),
        cmocka_unit_test(test_channel_closed),
        cmocka_unit_test(test_nothing_runs_before_start),
        cmocka_unit_test(test_corrupt_state),
        cmocka_unit_test(test_foreign_state),
        cmocka_unit_test(test_wild_state),
    };

    return cmocka_run_group_tests_name("protocol", tests, set_up, tear_down);
}
