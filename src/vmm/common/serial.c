#include "vmm/common/serial.h"

#include <assert.h>
#include <string.h>
#include <unistd.h>

enum {
    REG_DATA = 0, /* THR and RBR; DLL while LCR_DLAB is set */
    REG_IER = 1,  /* DLM while LCR_DLAB is set */
    REG_IIR = 2,  /* read; FCR when written */
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    REG_MSR = 6,
    REG_SCR = 7,
};

#define IER_THRE      0x02u
#define IER_MASK      0x0fu
#define IIR_NONE      0x01u
#define IIR_THRE      0x02u
#define IIR_FIFO      0xc0u
#define FCR_ENABLE    0x01u
#define LCR_DLAB      0x80u
#define MCR_LOOP      0x10u
#define LSR_TX_EMPTY  0x60u /* holding and shift register */
#define MSR_CONNECTED 0xb0u /* carrier, data set ready, clear to send */

void serial_init(struct serial *s, int irq_fd)
{
    int err = pthread_mutex_init(&s->lock, NULL);

    assert(err == 0);
    s->registers = (struct serial_registers){.dll = 12}; /* 9600 baud */
    s->irq_fd = irq_fd;
    s->sent = 0;
}

/* The transmitter is empty (again): tell the guest if it wants to know. */
static void raise_thre(struct serial *s)
{
    const uint64_t one = 1;

    if ((s->registers.ier & IER_THRE) == 0)
        return;
    s->registers.thre_pending = 1;
    /* An eventfd that is full already has an interrupt under way. */
    if (s->irq_fd >= 0 && write(s->irq_fd, &one, sizeof(one)) < 0)
        return;
}

static uint8_t read_iir(struct serial_registers *r)
{
    uint8_t iir = (r->fcr & FCR_ENABLE) != 0 ? IIR_FIFO : 0;

    if (r->thre_pending == 0)
        return iir | IIR_NONE;
    r->thre_pending = 0;
    return iir | IIR_THRE;
}

/* In loop mode the modem control outputs show up as the modem status inputs; drivers probe that. */
static uint8_t read_msr(const struct serial_registers *r)
{
    if ((r->mcr & MCR_LOOP) == 0)
        return MSR_CONNECTED;
    return (uint8_t)((r->mcr & 0x0cu) << 4 | (r->mcr & 0x02u) << 3 | (r->mcr & 0x01u) << 5);
}

uint8_t serial_read(struct serial *s, unsigned offset)
{
    struct serial_registers *r = &s->registers;
    uint8_t value = 0;

    (void)pthread_mutex_lock(&s->lock);
    bool dlab = (r->lcr & LCR_DLAB) != 0;
    switch (offset) {
    case REG_DATA:
        value = dlab ? r->dll : 0; /* nothing is ever received */
        break;
    case REG_IER:
        value = dlab ? r->dlm : r->ier;
        break;
    case REG_IIR:
        value = read_iir(r);
        break;
    case REG_LCR:
        value = r->lcr;
        break;
    case REG_MCR:
        value = r->mcr;
        break;
    case REG_LSR:
        value = LSR_TX_EMPTY;
        break;
    case REG_MSR:
        value = read_msr(r);
        break;
    case REG_SCR:
        value = r->scr;
        break;
    default:
        break;
    }
    (void)pthread_mutex_unlock(&s->lock);
    return value;
}

static void write_data(struct serial *s, uint8_t value)
{
    if ((s->registers.mcr & MCR_LOOP) == 0) {
        s->log[s->sent % SERIAL_LOG_BYTES] = value;
        s->sent++;
    }
    raise_thre(s);
}

void serial_write(struct serial *s, unsigned offset, uint8_t value)
{
    struct serial_registers *r = &s->registers;

    (void)pthread_mutex_lock(&s->lock);
    bool dlab = (r->lcr & LCR_DLAB) != 0;
    switch (offset) {
    case REG_DATA:
        if (dlab)
            r->dll = value;
        else
            write_data(s, value);
        break;
    case REG_IER:
        if (dlab) {
            r->dlm = value;
        } else {
            r->ier = value & IER_MASK;
            r->thre_pending = 0;
            raise_thre(s);
        }
        break;
    case REG_IIR:
        r->fcr = value;
        break;
    case REG_LCR:
        r->lcr = value;
        break;
    case REG_MCR:
        r->mcr = value & 0x1f;
        break;
    case REG_SCR:
        r->scr = value;
        break;
    default:
        break; /* LSR and MSR are read-only */
    }
    (void)pthread_mutex_unlock(&s->lock);
}

void serial_copy_tail(struct serial *s, char *ret_text, size_t size)
{
    size_t used = 0;

    if (size == 0)
        return;
    (void)pthread_mutex_lock(&s->lock);
    uint64_t kept = s->sent < SERIAL_LOG_BYTES ? s->sent : SERIAL_LOG_BYTES;
    uint64_t want = kept < size - 1 ? kept : size - 1;
    for (uint64_t i = s->sent - want; i < s->sent; i++) {
        uint8_t c = s->log[i % SERIAL_LOG_BYTES];

        if (c == '\r')
            continue;
        ret_text[used++] = c == '\n' || (c >= 0x20 && c < 0x7f) ? (char)c : '?';
    }
    bool cut = want < s->sent;
    (void)pthread_mutex_unlock(&s->lock);
    ret_text[used] = '\0';
    char *newline = cut ? strchr(ret_text, '\n') : NULL;
    if (newline != NULL && newline[1] != '\0')
        memmove(ret_text, newline + 1, strlen(newline + 1) + 1);
}

void serial_save(struct serial *s, struct wire_writer *w)
{
    (void)pthread_mutex_lock(&s->lock);
    wire_put_bytes(w, &s->registers, sizeof(s->registers));
    (void)pthread_mutex_unlock(&s->lock);
}

void serial_load(struct serial *s, struct wire_reader *r)
{
    const uint8_t *bytes = wire_get_bytes(r, sizeof(s->registers));

    if (bytes != NULL)
        memcpy(&s->registers, bytes, sizeof(s->registers));
}
