/*
 * The serial port (a 16550A at 0x3f8) of which only the transmitter is connected: what the guest
 * sends ends in a ring of the last SERIAL_LOG_BYTES, from where a failed boot is explained. Nothing
 * is ever printed, so a guest that floods the port costs only its own time.
 *
 * The transmitter is always empty. Its interrupt works, because the guest's tty layer (not its
 * console) waits for it. Registers after National Semiconductor's PC16550D data sheet, section 8.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/wire.h"
#include "cloche/limits.h"

#define SERIAL_PORT      0x3f8u
#define SERIAL_PORTS     8u
#define SERIAL_IRQ       4u
#define SERIAL_LOG_BYTES (64 * KIB)

struct serial_registers {
    uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
    uint8_t thre_pending; /* the "transmitter is empty" interrupt waits to be read from IIR */
};

struct serial {
    pthread_mutex_t lock; /* any vCPU may use the port */
    struct serial_registers registers;
    int irq_fd;    /* eventfd; a write of 1 raises SERIAL_IRQ */
    uint64_t sent; /* bytes ever; log[sent % SERIAL_LOG_BYTES] is written next */
    uint8_t log[SERIAL_LOG_BYTES];
};

/* The state after a reset. The descriptor stays the caller's; -1 where there is no interrupt. */
void serial_init(struct serial *s, int irq_fd);

/* One byte of a vCPU's access to SERIAL_PORT + offset. */
uint8_t serial_read(struct serial *s, unsigned offset);
void serial_write(struct serial *s, unsigned offset, uint8_t value);

/* Copies the end of what was sent, with everything but printable ASCII and newlines replaced, and
 * terminates it: at most `size` bytes with the NUL. Starts at a line's begin where there is one. */
void serial_copy_tail(struct serial *s, char *ret_text, size_t size);

/* The registers of a snapshot; load takes any values. The log is not part of it. */
void serial_save(struct serial *s, struct wire_writer *w);
void serial_load(struct serial *s, struct wire_reader *r);
