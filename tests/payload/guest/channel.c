#include "channel.h"

#include "virtio.h"

#define SLOT      GUEST_VIRTIO_CONSOLE
#define RINGS_GPA (SCRATCH_GPA + 0x100000)
#define DATA_GPA  (SCRATCH_GPA + 0x110000)
#define PORT      1u
#define PORT_OPEN 6u

/* virtio 1.2, 5.3.2 */
static const struct ring control = {SLOT, 3, RINGS_GPA};
static const struct ring receive = {SLOT, 4, RINGS_GPA + 0x4000};
static const struct ring transmit = {SLOT, 5, RINGS_GPA + 0x8000};

static uint16_t received;

/* Adds a chain of one buffer and returns when it has come back. */
static void send(const struct ring *r, uint32_t length)
{
    const struct buffer buffer = {DATA_GPA, length, 0};
    uint16_t before = ring_used(r);

    ring_add(r, &buffer, 1);
    while (ring_used(r) == before)
        __asm__ volatile("pause");
}

/* One byte at a time, straight to where the test can look for it. */
static void offer_receive(void)
{
    const struct buffer buffer = {CHANNEL_BYTE_GPA, 1, DESC_WRITE};

    ring_add(&receive, &buffer, 1);
}

void channel_open(void)
{
    negotiate(SLOT);
    ring_set_up(&control);
    ring_set_up(&receive);
    ring_set_up(&transmit);
    set_running(SLOT);
    put32(DATA_GPA, PORT);
    put16(DATA_GPA + 4, PORT_OPEN);
    put16(DATA_GPA + 6, 1);
    send(&control, 8);
    received = 0;
    offer_receive();
}

void channel_send(const char *text)
{
    uint32_t length = 0;

    for (; text[length] != '\0'; length++)
        put8(DATA_GPA + length, (uint8_t)text[length]);
    send(&transmit, length);
}

int channel_poll(void)
{
    if (ring_used(&receive) == received)
        return -1;
    int byte = get8(CHANNEL_BYTE_GPA);
    received++;
    offer_receive();
    return byte;
}

static void echo(int byte)
{
    const char text[] = {(char)byte, '\0'};

    channel_send(text);
}

/* The monitor still takes what the test sends, and shows that in memory. */
static void halt_forever(void)
{
    channel_open();
    channel_send("R");
    for (;;)
        __asm__ volatile("cli; hlt");
}

static void spin(void)
{
    channel_open();
    channel_send("R");
    for (;;) {
        int byte = channel_poll();

        if (byte >= 0)
            echo(byte);
        __asm__ volatile("pause");
    }
}

#define DISK_HEADER_GPA (SCRATCH_GPA + 0x120000)
#define DISK_STATUS_GPA (DISK_HEADER_GPA + 16)
#define FLUSH           4u
#define UNANSWERED      0xeeu

static const struct ring disk = {GUEST_VIRTIO_SCRATCH, 0, SCRATCH_GPA + 0x130000};

static void begin_flush(void)
{
    static const struct buffer buffers[] = {{DISK_HEADER_GPA, 16, 0},
                                            {DISK_STATUS_GPA, 1, DESC_WRITE}};

    negotiate(GUEST_VIRTIO_SCRATCH);
    ring_set_up(&disk);
    set_running(GUEST_VIRTIO_SCRATCH);
    put64(DISK_HEADER_GPA, FLUSH);
    put64(DISK_HEADER_GPA + 8, 0);
    put8(DISK_STATUS_GPA, UNANSWERED);
    ring_add(&disk, buffers, 2);
}

/* Talks while the disk is at it, and touches its registers too. */
static void talk_beside_flush(void)
{
    channel_open();
    begin_flush();
    while (ring_used(&disk) == 0) {
        int byte = channel_poll();

        if (byte >= 0)
            echo(byte);
        CHECK(get32(reg(GUEST_VIRTIO_SCRATCH, REG_STATUS)) == 15, 1);
    }
    CHECK(get8(DISK_STATUS_GPA) == 0, 2);
}

/* Parks, once the test says so, while the disk is at it. */
static void park_beside_flush(void)
{
    channel_open();
    begin_flush();
    while (channel_poll() < 0)
        __asm__ volatile("pause");
    ring(DOORBELL_PARK);
    /* Not later: what was asked for before the snapshot was done before it. */
    CHECK(ring_used(&disk) == 1, 1);
    CHECK(get8(DISK_STATUS_GPA) == 0, 2);
    ring(DOORBELL_FIRST);
    ring(DOORBELL_READY);
}

const struct payload payloads_channel[] = {
    {"halt_forever", halt_forever},
    {"spin", spin},
    {"talk_beside_flush", talk_beside_flush},
    {"park_beside_flush", park_beside_flush},
    {NULL, NULL},
};
