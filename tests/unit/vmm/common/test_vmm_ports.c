/* The serial port and the doorbell: what a guest may store there, in any order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cloche/guest_abi.h"
#include "vmm/common/doorbell.h"
#include "vmm/common/serial.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };

static struct serial serial;

static void send_text(const char *text)
{
    for (; *text != '\0'; text++)
        serial_write(&serial, DATA, (uint8_t)*text);
}

static void test_tail(void **state)
{
    char text[16];

    (void)state;
    serial_init(&serial, -1);
    serial_copy_tail(&serial, text, sizeof(text));
    assert_string_equal(text, "");
    send_text("one\r\ntwo\x1b[2J");
    serial_copy_tail(&serial, text, sizeof(text));
    assert_string_equal(text, "one\ntwo?[2J");
    send_text("\nthree four");
    serial_copy_tail(&serial, text, sizeof(text)); /* cut, so it starts behind a newline */
    assert_string_equal(text, "three four");
    memset(text, 'x', sizeof(text));
    serial_copy_tail(&serial, text, 1);
    assert_int_equal(text[0], '\0');
    serial_copy_tail(&serial, text, 0);
}

static void test_flood_keeps_the_end(void **state)
{
    static char text[2 * SERIAL_LOG_BYTES];

    (void)state;
    serial_init(&serial, -1);
    for (unsigned i = 0; i < 3 * SERIAL_LOG_BYTES; i++)
        serial_write(&serial, DATA, 'a' + i % 26);
    send_text("end");
    serial_copy_tail(&serial, text, sizeof(text));
    assert_int_equal(strlen(text), SERIAL_LOG_BYTES);
    assert_string_equal(text + strlen(text) - 3, "end");
}

/* What Linux's 8250 driver probes for: scratch register, loop mode, FIFOs. */
static void test_probe(void **state)
{
    char text[8];

    (void)state;
    serial_init(&serial, -1);
    serial_write(&serial, SCR, 0x5a);
    assert_int_equal(serial_read(&serial, SCR), 0x5a);
    serial_write(&serial, MCR, 0x1a);
    assert_int_equal(serial_read(&serial, MSR) & 0xf0, 0x90);
    serial_write(&serial, DATA, 'x'); /* in loop mode nothing leaves */
    serial_write(&serial, MCR, 0x03);
    assert_int_equal(serial_read(&serial, MSR) & 0xf0, 0xb0);
    assert_int_equal(serial_read(&serial, LSR), 0x60);
    assert_int_equal(serial_read(&serial, IIR), 0x01);
    serial_write(&serial, IIR, 0x01);
    assert_int_equal(serial_read(&serial, IIR), 0xc1);
    serial_write(&serial, LCR, 0x80);
    serial_write(&serial, DATA, 0x34);
    serial_write(&serial, IER, 0x12);
    assert_int_equal(serial_read(&serial, DATA), 0x34);
    assert_int_equal(serial_read(&serial, IER), 0x12);
    serial_write(&serial, LCR, 0x03);
    assert_int_equal(serial_read(&serial, DATA), 0);
    assert_int_equal(serial_read(&serial, IER), 0);
    serial_write(&serial, LSR, 0xff);
    serial_write(&serial, MSR, 0xff);
    serial_write(&serial, 8, 0xff);
    assert_int_equal(serial_read(&serial, 8), 0);
    serial_copy_tail(&serial, text, sizeof(text));
    assert_string_equal(text, "");
}

static uint64_t take(int fd)
{
    uint64_t count = 0;

    return read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count) ? count : 0;
}

static void test_transmit_interrupt(void **state)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    (void)state;
    serial_init(&serial, fd);
    serial_write(&serial, DATA, 'a');
    assert_int_equal(take(fd), 0);
    serial_write(&serial, IER, 0xff); /* only its low bits exist */
    assert_int_equal(serial_read(&serial, IER), 0x0f);
    assert_int_equal(take(fd), 1);
    assert_int_equal(serial_read(&serial, IIR), 0x02);
    assert_int_equal(serial_read(&serial, IIR), 0x01); /* reading takes it */
    serial_write(&serial, DATA, 'b');
    assert_int_equal(take(fd), 1);
    serial_write(&serial, IER, 0);
    assert_int_equal(serial_read(&serial, IIR), 0x01);
    (void)close(fd);
}

static void test_serial_snapshot(void **state)
{
    struct serial_registers before;
    uint8_t bytes[sizeof(before)];
    struct wire_writer w;
    struct wire_reader r;

    (void)state;
    serial_init(&serial, -1);
    serial_write(&serial, IER, 5);
    serial_write(&serial, SCR, 9);
    before = serial.registers;
    wire_writer_init(&w, bytes, sizeof(bytes));
    serial_save(&serial, &w);
    assert_false(w.bad);
    serial_init(&serial, -1);
    wire_reader_init(&r, bytes, sizeof(bytes));
    serial_load(&serial, &r);
    assert_memory_equal(&before, &serial.registers, sizeof(before));
    wire_reader_init(&r, bytes, 3); /* too short: left as it was */
    serial_load(&serial, &r);
    assert_memory_equal(&before, &serial.registers, sizeof(before));
}

static enum doorbell_action ring(struct doorbell *d, uint32_t value)
{
    uint32_t failure = 0;

    return doorbell_ring(d, value, &failure);
}

static void test_boot_parks_once(void **state)
{
    struct doorbell d;

    (void)state;
    doorbell_init(&d, DOORBELL_PHASE_BOOT);
    assert_int_equal(ring(&d, DOORBELL_FIRST), DOORBELL_ACT_NONE);
    assert_int_equal(ring(&d, DOORBELL_READY), DOORBELL_ACT_NONE);
    assert_int_equal(ring(&d, DOORBELL_BOOTED), DOORBELL_ACT_NONE);
    assert_int_equal(ring(&d, DOORBELL_BOOTED), DOORBELL_ACT_NONE);
    assert_int_equal(ring(&d, DOORBELL_PARK), DOORBELL_ACT_PARK);
    assert_int_equal(ring(&d, DOORBELL_PARK), DOORBELL_ACT_NONE);
    assert_int_equal(ring(&d, DOORBELL_FIRST), DOORBELL_ACT_NONE);
}

static void test_restored_is_ready_once(void **state)
{
    struct doorbell d;

    (void)state;
    doorbell_init(&d, DOORBELL_PHASE_RESTORED);
    assert_int_equal(ring(&d, DOORBELL_READY), DOORBELL_ACT_NONE); /* before FIRST */
    assert_int_equal(ring(&d, DOORBELL_PARK), DOORBELL_ACT_NONE);
    assert_int_equal(ring(&d, DOORBELL_FIRST), DOORBELL_ACT_FIRST);
    assert_int_equal(ring(&d, DOORBELL_FIRST), DOORBELL_ACT_NONE);
    assert_int_equal(ring(&d, DOORBELL_PARK), DOORBELL_ACT_NONE);
    assert_int_equal(ring(&d, DOORBELL_READY), DOORBELL_ACT_READY);
    assert_int_equal(ring(&d, DOORBELL_READY), DOORBELL_ACT_NONE);
    assert_int_equal(ring(&d, DOORBELL_FIRST), DOORBELL_ACT_NONE);
    assert_int_equal(ring(&d, DOORBELL_PARK), DOORBELL_ACT_NONE);
}

static void test_failed_and_nonsense(void **state)
{
    static const uint32_t nonsense[] = {0, 5, 0xff, 0x200, 0x1100, UINT32_MAX, 0x80000002};

    (void)state;
    for (uint32_t phase = DOORBELL_PHASE_BOOT; phase <= DOORBELL_PHASE_READY; phase++) {
        struct doorbell d;
        uint32_t failure = 0;

        doorbell_init(&d, (enum doorbell_phase)phase);
        for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++)
            assert_int_equal(ring(&d, nonsense[i]), DOORBELL_ACT_NONE);
        assert_int_equal(d.phase, phase);
        assert_int_equal(doorbell_ring(&d, DOORBELL_FAILED + 0xee, &failure), DOORBELL_ACT_FAILED);
        assert_int_equal(failure, 0xee);
    }
}

/* A random walk: every action comes at most once, and in its order. */
static void test_random_walk(void **state)
{
    (void)state;
    srandom(1);
    for (unsigned round = 0; round < 2000; round++) {
        struct doorbell d;
        bool boot = (round & 1) != 0;
        unsigned seen[DOORBELL_ACT_FAILED + 1] = {0};

        doorbell_init(&d, boot ? DOORBELL_PHASE_BOOT : DOORBELL_PHASE_RESTORED);
        for (unsigned i = 0; i < 50; i++) {
            enum doorbell_action action = ring(&d, (uint32_t)random() % 6);

            seen[action]++;
            if (action == DOORBELL_ACT_READY)
                assert_int_equal(seen[DOORBELL_ACT_FIRST], 1);
        }
        assert_true(seen[DOORBELL_ACT_PARK] <= (boot ? 1 : 0));
        assert_true(seen[DOORBELL_ACT_FIRST] <= (boot ? 0 : 1));
        assert_true(seen[DOORBELL_ACT_READY] <= seen[DOORBELL_ACT_FIRST]);
        assert_int_equal(seen[DOORBELL_ACT_FAILED], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tail),
        cmocka_unit_test(test_flood_keeps_the_end),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_transmit_interrupt),
        cmocka_unit_test(test_serial_snapshot),
        cmocka_unit_test(test_boot_parks_once),
        cmocka_unit_test(test_restored_is_ready_once),
        cmocka_unit_test(test_failed_and_nonsense),
        cmocka_unit_test(test_random_walk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
