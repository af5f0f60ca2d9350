/* System calls: sendmsg, recvmsg; fcntl in console_init only. */
#include "vmm/virtio/console.h"

#include <errno.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"

#define FEATURE(bit) (UINT64_C(1) << (bit))
#define PORT         1u
#define PORTS_MAX    2u

/* 5.3.2 */
enum {
    QUEUE_PORT0_RX,
    QUEUE_PORT0_TX,
    QUEUE_CONTROL_RX,
    QUEUE_CONTROL_TX,
    QUEUE_RX,
    QUEUE_TX,
    QUEUE_COUNT
};

/* Linux fills each receive queue with pages, and one transmit buffer takes up to 32 KiB of it. */
static const uint16_t queue_sizes[QUEUE_COUNT] = {
    [QUEUE_PORT0_RX] = 4,   [QUEUE_PORT0_TX] = 4, [QUEUE_CONTROL_RX] = 8,
    [QUEUE_CONTROL_TX] = 8, [QUEUE_RX] = 64,      [QUEUE_TX] = 32,
};

/* Control messages that we send, in the order of the bits. */
#define MESSAGE_ADD  (1u << 0)
#define MESSAGE_OPEN (1u << 1)
#define MESSAGES_ALL (MESSAGE_ADD | MESSAGE_OPEN)

/* Relayed in one call and direction, so that a fast pair of peers cannot keep the loop here. */
#define PASS_BYTES_MAX (UINT64_C(1) << 20)

static void control_message(struct console *c, const struct virtio_console_control *message)
{
    if (message->event == VIRTIO_CONSOLE_DEVICE_READY) {
        if (message->value == 1)
            c->messages |= MESSAGE_ADD;
        return;
    }
    if (message->id != PORT)
        return;
    if (message->event == VIRTIO_CONSOLE_PORT_READY && message->value == 1)
        c->messages |= MESSAGE_OPEN;
    if (message->event == VIRTIO_CONSOLE_PORT_OPEN)
        c->guest_open = message->value != 0;
}

static void control_receive(struct console *c)
{
    unsigned waiting = virtio_pending(&c->v, QUEUE_CONTROL_TX);
    struct virtq_chain chain;
    bool any = false;

    for (; waiting > 0 && virtio_next(&c->v, QUEUE_CONTROL_TX, &chain); waiting--) {
        struct virtio_console_control message;

        if (virtq_chain_read(&chain, &message, sizeof(message)) == sizeof(message))
            control_message(c, &message);
        if (virtio_complete(&c->v, QUEUE_CONTROL_TX, chain.head, 0) < 0)
            break;
        any = true;
    }
    if (any)
        virtio_notify_driver(&c->v, QUEUE_CONTROL_TX);
}

static void control_send(struct console *c)
{
    unsigned waiting = c->messages != 0 ? virtio_pending(&c->v, QUEUE_CONTROL_RX) : 0;
    struct virtq_chain chain;
    bool any = false;

    for (; c->messages != 0 && waiting > 0; waiting--) {
        const uint8_t first = c->messages & -c->messages;
        const struct virtio_console_control message = {
            .id = PORT,
            .event = first == MESSAGE_ADD ? VIRTIO_CONSOLE_PORT_ADD : VIRTIO_CONSOLE_PORT_OPEN,
            .value = 1,
        };
        uint32_t written = 0;

        if (!virtio_next(&c->v, QUEUE_CONTROL_RX, &chain))
            break;
        if (chain.in_bytes >= sizeof(message)) { /* else it goes back empty, and the next one */
            written = (uint32_t)virtq_chain_write(&chain, &message, sizeof(message));
            c->messages &= (uint8_t)~first;
        }
        if (virtio_complete(&c->v, QUEUE_CONTROL_RX, chain.head, written) < 0)
            break;
        any = true;
    }
    if (any)
        virtio_notify_driver(&c->v, QUEUE_CONTROL_RX);
}

/* What is sent to the port that does not exist goes nowhere, but every request is completed. */
static void port0_discard(struct console *c)
{
    unsigned waiting = virtio_pending(&c->v, QUEUE_PORT0_TX);
    struct virtq_chain chain;
    bool any = false;

    for (; waiting > 0 && virtio_next(&c->v, QUEUE_PORT0_TX, &chain); waiting--) {
        if (virtio_complete(&c->v, QUEUE_PORT0_TX, chain.head, 0) < 0)
            break;
        any = true;
    }
    if (any)
        virtio_notify_driver(&c->v, QUEUE_PORT0_TX);
}

/* Shortens the buffers to `bytes`, which is not 0. */
static void iov_limit(struct iovec *iov, unsigned *count, uint64_t bytes)
{
    for (unsigned i = 0; i < *count; i++) {
        if (iov[i].iov_len >= bytes) {
            iov[i].iov_len = bytes;
            *count = i + 1;
            return;
        }
        bytes -= iov[i].iov_len;
    }
}

/* Bytes moved; 0 when nothing can be moved now, or never again (c->gone). */
static uint64_t socket_move(struct console *c, struct iovec *iov, unsigned count, bool to_socket)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t n;

    do {
        n = to_socket ? sendmsg(c->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
                      : recvmsg(c->fd, &message, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n > 0)
        return (uint64_t)n;
    if (n == 0 || (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM))
        c->gone = true;
    return 0;
}

/*
 * Sends what is left of the chain, which is walked and judged anew on each call: only how far it
 * got is kept, so a guest that rewrites its descriptors meanwhile garbles its own bytes. Returns
 * whether all of it is sent.
 */
static bool chain_send(struct console *c, struct virtq_chain *chain, uint64_t *budget)
{
    virtq_iov_skip(&chain->out, &chain->out_count, c->tx_bytes);
    if (chain->out_count == 0)
        return true;
    if (*budget == 0)
        return false;
    iov_limit(chain->out, &chain->out_count, *budget);
    uint64_t moved = socket_move(c, chain->out, chain->out_count, true);
    c->tx_bytes += moved;
    *budget -= moved;
    return c->tx_bytes >= chain->out_bytes;
}

static void port_send(struct console *c)
{
    unsigned waiting = virtio_pending(&c->v, QUEUE_TX);
    uint64_t budget = PASS_BYTES_MAX;
    struct virtq_chain chain;
    bool any = false;

    c->tx_waiting = false;
    while (waiting > 0 && virtio_next(&c->v, QUEUE_TX, &chain)) {
        if (!chain_send(c, &chain, &budget)) {
            c->tx_waiting = !c->gone;
            break;
        }
        c->tx_bytes = 0;
        if (virtio_complete(&c->v, QUEUE_TX, chain.head, 0) < 0)
            break;
        any = true;
        waiting--;
    }
    if (any)
        virtio_notify_driver(&c->v, QUEUE_TX);
}

static void port_receive(struct console *c)
{
    unsigned waiting = c->guest_open ? virtio_pending(&c->v, QUEUE_RX) : 0;
    uint64_t budget = PASS_BYTES_MAX;
    struct virtq_chain chain;
    bool any = false;

    for (; waiting > 0 && budget > 0 && virtio_next(&c->v, QUEUE_RX, &chain); waiting--) {
        uint64_t moved = 0;

        if (chain.in_count > 0) {
            iov_limit(chain.in, &chain.in_count, budget);
            moved = socket_move(c, chain.in, chain.in_count, false);
            if (moved == 0)
                break;
        }
        budget -= moved;
        if (virtio_complete(&c->v, QUEUE_RX, chain.head, (uint32_t)moved) < 0)
            break;
        any = true;
    }
    if (any)
        virtio_notify_driver(&c->v, QUEUE_RX);
}

/* Receive buffers need nothing here: from now on console_events asks for EPOLLIN. */
static void console_process(struct virtio_device *v)
{
    struct console *c = (struct console *)v;
    void (*const steps[])(struct console *) = {control_receive, control_send, port0_discard,
                                               port_send};

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]) && virtio_is_running(v); i++)
        steps[i](c);
}

static uint32_t console_events(struct virtio_device *v)
{
    struct console *c = (struct console *)v;
    uint32_t events = 0;

    if (c->gone) /* found out while sending: have console_io called, which says so */
        return EPOLLIN | EPOLLOUT;
    if (!virtio_is_running(&c->v))
        return 0;
    if (c->guest_open && virtio_pending(&c->v, QUEUE_RX) > 0)
        events |= EPOLLIN;
    if (c->tx_waiting)
        events |= EPOLLOUT;
    return events;
}

static int console_io(struct virtio_device *v, uint32_t events, struct error *e)
{
    struct console *c = (struct console *)v;

    if ((events & (EPOLLERR | EPOLLHUP)) != 0)
        c->gone = true;
    if (!c->gone && (events & EPOLLIN) != 0 && virtio_is_running(&c->v))
        port_receive(c);
    if (!c->gone && (events & EPOLLOUT) != 0 && virtio_is_running(&c->v))
        port_send(c);
    return c->gone ? error_set(e, ERR_INTERNAL, "the daemon closed the agent channel") : 0;
}

static void console_reset(struct virtio_device *v)
{
    struct console *c = (struct console *)v;

    c->guest_open = false;
    c->tx_waiting = false;
    c->messages = 0;
    c->tx_bytes = 0;
}

static void console_save(const struct virtio_device *v, struct wire_writer *w)
{
    const struct console *c = (const struct console *)v;

    wire_put_u8(w, c->guest_open);
    wire_put_u8(w, c->messages);
    wire_put_u64(w, c->tx_bytes);
}

static int console_load(struct virtio_device *v, struct wire_reader *r, struct error *e)
{
    struct console *c = (struct console *)v;
    uint8_t guest_open = wire_get_u8(r);

    c->messages = wire_get_u8(r);
    c->tx_bytes = wire_get_u64(r); /* any value will do: it only shortens the guest's own bytes */
    if (r->bad || guest_open > 1 || (c->messages & ~MESSAGES_ALL) != 0)
        return error_set(e, ERR_TEMPLATE_CORRUPT, "impossible saved state of the port");
    c->guest_open = guest_open;
    /* A chain that was on its way goes on from the loop; a broken ring is found there, too. */
    c->tx_waiting = virtq_pending(&v->queues[QUEUE_TX], v->mem) != 0;
    return 0;
}

static const struct virtio_ops console_ops = {
    .id = VIRTIO_ID_CONSOLE,
    .queue_sizes = queue_sizes,
    .queue_count = QUEUE_COUNT,
    .process = console_process,
    .events = console_events,
    .io = console_io,
    .reset = console_reset,
    .save = console_save,
    .load = console_load,
};

int console_init(struct virtio_device *v, int fd, struct error *e)
{
    const struct virtio_console_config config = {.max_nr_ports = PORTS_MAX};
    struct console *c = (struct console *)v;

    if (fd_set_nonblocking(fd, 1) < 0)
        return error_errno(e, errno, "cannot make the channel non-blocking");
    c->fd = c->v.poll_fd = fd;
    c->v.features = c->v.features_required = FEATURE(VIRTIO_CONSOLE_F_MULTIPORT);
    /* Up to emerg_wr, which belongs to a feature that is not offered. */
    c->v.config_bytes = offsetof(struct virtio_console_config, emerg_wr);
    memcpy(c->v.config, &config, c->v.config_bytes);
    virtio_init(&c->v, &console_ops);
    return 0;
}
