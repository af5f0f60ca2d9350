/* Virtio devices driven wrongly: registers, rings, descriptors, notifications. */
#include "virtio.h"

#define RINGS_GPA  SCRATCH_GPA
#define DESC_GPA   RINGS_GPA
#define AVAIL_GPA  (RINGS_GPA + 0x1000)
#define USED_GPA   (RINGS_GPA + 0x2000)
#define BUFFER_GPA (RINGS_GPA + 0x10000)

static const struct addresses good = {DESC_GPA, AVAIL_GPA, USED_GPA};

static void check_alive(unsigned slot)
{
    CHECK(get32(reg(slot, REG_MAGIC)) == MAGIC_VALUE, 0x20);
    put32(reg(slot, REG_STATUS), 0);
    CHECK(get32(reg(slot, REG_STATUS)) == 0, 0x21);
}

/* The queues that carry a guest's own bytes, one after the other. */
static const uint32_t queue_of[GUEST_VIRTIO_COUNT] = {
    [GUEST_VIRTIO_ROOT] = 0,
    [GUEST_VIRTIO_SCRATCH] = 0,
    [GUEST_VIRTIO_CONSOLE] = 5, /* transmit of port 1 */
    [GUEST_VIRTIO_RNG] = 0,
};

static void clear_rings(void)
{
    for (uint64_t gpa = RINGS_GPA; gpa < RINGS_GPA + 0x3000; gpa += 8)
        put64(gpa, 0);
}

static void start(unsigned slot)
{
    clear_rings();
    negotiate(slot);
    set_queue(slot, queue_of[slot], QUEUE_SIZE, &good);
    set_running(slot);
}

static void put_desc(unsigned i, uint64_t address, uint32_t length, uint16_t flags, uint16_t next)
{
    put64(DESC_GPA + 16 * i, address);
    put32(DESC_GPA + 16 * i + 8, length);
    put16(DESC_GPA + 16 * i + 12, flags);
    put16(DESC_GPA + 16 * i + 14, next);
}

/* Offers descriptor `head` and waits a little for what the device makes of it. */
static void offer(unsigned slot, uint16_t head)
{
    uint16_t index = get16(AVAIL_GPA + 2);

    put16(AVAIL_GPA + 4 + 2 * (index % QUEUE_SIZE), head);
    put16(AVAIL_GPA + 2, (uint16_t)(index + 1));
    put32(reg(slot, REG_QUEUE_NOTIFY), queue_of[slot]);
    for (unsigned i = 0; i < 300; i++) {
        if (get16(USED_GPA + 2) == (uint16_t)(index + 1) ||
            (i % 50 == 0 && (get32(reg(slot, REG_STATUS)) & NEEDS_RESET) != 0))
            return;
        __asm__ volatile("pause");
    }
}

/* Each register, each width, also unaligned; what is written is random. */
static void virtio_widths(void)
{
    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        for (unsigned offset = 0; offset < 0x140; offset++) {
            uint64_t at = reg(slot, offset);

            (void)get8(at);
            (void)get16(at);
            (void)get32(at);
            (void)get64(at);
            put8(at, (uint8_t)random32());
            put16(at, (uint16_t)random32());
            put32(at, random32());
            put64(at, (uint64_t)random32() << 32 | random32());
        }
        for (unsigned offset = 0x140; offset < 0x1000; offset += 0x55) {
            put32(reg(slot, offset), random32());
            CHECK(get32(reg(slot, offset)) == 0 || offset + 4 > 0x1000, 1);
        }
        check_alive(slot);
    }
}

/* Random registers get random values in random order, with resets in between. */
static void virtio_order(void)
{
    static const unsigned registers[] = {
        REG_DEVICE_FEATURES_SEL,
        REG_DRIVER_FEATURES,
        REG_DRIVER_FEATURES_SEL,
        REG_QUEUE_SEL,
        REG_QUEUE_NUM,
        REG_QUEUE_READY,
        REG_QUEUE_NOTIFY,
        REG_INTERRUPT_ACK,
        REG_STATUS,
        REG_STATUS,
        REG_QUEUE_DESC,
        REG_QUEUE_DRIVER,
        REG_QUEUE_DEVICE,
        REG_QUEUE_DESC + 4,
        REG_CONFIG,
    };
    static const uint32_t values[] = {0, 1, 2, 3, 4, 7, 8, 11, 15, 0x80, 0x100, 0xffff, UINT32_MAX};

    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        for (unsigned i = 0; i < 3000; i++) {
            unsigned offset = registers[random32() % (sizeof(registers) / sizeof(registers[0]))];
            uint32_t value = values[random32() % (sizeof(values) / sizeof(values[0]))];

            if (i % 300 == 0)
                start(slot);
            put32(reg(slot, offset), random32() % 4 == 0 ? random32() : value);
        }
        check_alive(slot);
    }
}

static void virtio_queue_sizes(void)
{
    static const uint32_t sizes[] = {0, 3, 0x100, 0x101, 0x8000, 0x10000, UINT32_MAX, 1};
    static const uint32_t queues[] = {0, 1, 6, 7, 0x7fffffff, UINT32_MAX};

    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        for (unsigned q = 0; q < sizeof(queues) / sizeof(queues[0]); q++) {
            for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
                negotiate(slot);
                set_queue(slot, queues[q], sizes[s], &good);
                set_running(slot);
                put32(reg(slot, REG_QUEUE_NOTIFY), queues[q]);
            }
        }
        check_alive(slot);
    }
}

/* Rings that are not in RAM, wrap, cross its end, lie in the devices or in each other. */
static void virtio_queue_addresses(void)
{
    static const uint64_t bad[] = {
        RAM_BYTES,           RAM_BYTES - 16,
        RAM_BYTES - 0x20,    GUEST_GAP_GPA,
        GUEST_VIRTIO_GPA(0), GUEST_HIGH_RAM_GPA,
        UINT64_MAX,          UINT64_MAX - 15,
        UINT64_MAX - 63,     1,
        DESC_GPA + 2,        UINT64_C(1) << 63,
    };

    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            for (unsigned which = 0; which < 3; which++) {
                struct addresses at = good;

                if (which == 0)
                    at.desc = bad[i];
                else if (which == 1)
                    at.avail = bad[i];
                else
                    at.used = bad[i];
                clear_rings();
                negotiate(slot);
                set_queue(slot, queue_of[slot], QUEUE_SIZE, &at);
                set_running(slot);
                put16(AVAIL_GPA + 2, 1);
                put32(reg(slot, REG_QUEUE_NOTIFY), queue_of[slot]);
            }
        }
        const struct addresses same = {DESC_GPA, DESC_GPA, DESC_GPA};
        clear_rings();
        negotiate(slot);
        set_queue(slot, queue_of[slot], QUEUE_SIZE, &same);
        set_running(slot);
        put_desc(0, DESC_GPA, 64, DESC_WRITE, 0);
        put32(reg(slot, REG_QUEUE_NOTIFY), queue_of[slot]);
        check_alive(slot);
    }
}

static void virtio_loops(void)
{
    static const struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } chains[] = {
        {BUFFER_GPA, 16, DESC_NEXT, 0}, /* itself */
        {BUFFER_GPA, 16, DESC_NEXT, 1}, /* two that name each other */
        {BUFFER_GPA, 16, DESC_NEXT | DESC_WRITE, 0},
        {BUFFER_GPA, 16, DESC_NEXT, QUEUE_SIZE}, /* past the table */
        {BUFFER_GPA, 16, DESC_NEXT, 0xffff},
        {BUFFER_GPA, 0, 0, 0},
        {BUFFER_GPA, 0, DESC_NEXT, 1},
        {BUFFER_GPA, UINT32_MAX, DESC_WRITE, 0},
        {UINT64_MAX - 7, 16, DESC_WRITE, 0}, /* wraps */
        {RAM_BYTES - 8, 16, DESC_WRITE, 0},  /* past RAM */
        {GUEST_VIRTIO_GPA(0), 16, DESC_WRITE, 0},
        {GUEST_GAP_GPA - 8, 16, 0, 0},
        {0, UINT32_MAX, 0, 0},
        {BUFFER_GPA, 16, DESC_INDIRECT, 0},
        {BUFFER_GPA, 15, DESC_INDIRECT | DESC_NEXT, 0},
        {DESC_GPA, 64, DESC_WRITE, 0}, /* its own rings */
        {AVAIL_GPA, 64, DESC_WRITE, 0},
        {USED_GPA, 64, DESC_WRITE, 0},
        {BUFFER_GPA, 16, 0xfff8, 0},
    };

    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        for (unsigned i = 0; i < sizeof(chains) / sizeof(chains[0]); i++) {
            start(slot);
            put_desc(0, chains[i].address, chains[i].length, chains[i].flags, chains[i].next);
            put_desc(1, BUFFER_GPA, 512, DESC_NEXT | DESC_WRITE, 0);
            offer(slot, 0);
        }
        /* Heads past the table, and an available index that jumps. */
        start(slot);
        offer(slot, QUEUE_SIZE);
        start(slot);
        offer(slot, 0xffff);
        for (uint32_t jump = QUEUE_SIZE; jump < 0x10000; jump += 0x1111) {
            start(slot);
            put16(AVAIL_GPA + 2, (uint16_t)jump);
            put32(reg(slot, REG_QUEUE_NOTIFY), queue_of[slot]);
        }
        check_alive(slot);
    }
}

/* A descriptor that changes while the device may be reading it. */
static void virtio_race(void)
{
    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++) {
        start(slot);
        for (uint16_t i = 1; i < 300; i++) {
            put_desc(0, BUFFER_GPA, 512, DESC_WRITE, 0);
            put16(AVAIL_GPA + 4 + 2 * (i % QUEUE_SIZE), 0);
            put16(AVAIL_GPA + 2, i);
            put32(reg(slot, REG_QUEUE_NOTIFY), queue_of[slot]);
            put64(DESC_GPA, UINT64_MAX - 7);
            put32(DESC_GPA + 8, UINT32_MAX);
            put32(DESC_GPA + 12, 0x00010001);
            if ((get32(reg(slot, REG_STATUS)) & NEEDS_RESET) != 0)
                start(slot);
        }
        check_alive(slot);
    }
}

static void notify_storm(void)
{
    start(GUEST_VIRTIO_RNG);
    for (unsigned i = 0; i < 20000; i++)
        put32(reg(i % GUEST_VIRTIO_COUNT, REG_QUEUE_NOTIFY), i % 9 == 0 ? random32() : 0);
    for (unsigned i = 0; i < 200; i++) {
        put8(reg(GUEST_VIRTIO_RNG, REG_QUEUE_NOTIFY), 0);
        put16(reg(GUEST_VIRTIO_RNG, REG_QUEUE_NOTIFY), 0);
        put64(reg(GUEST_VIRTIO_RNG, REG_QUEUE_NOTIFY), 0);
    }
    for (unsigned slot = 0; slot < GUEST_VIRTIO_COUNT; slot++)
        check_alive(slot);
}

/* A device that works: the rng fills a buffer. Then parked in the middle of its work, and again. */
static void virtio_works_after_park(void)
{
    for (unsigned round = 0; round < 2; round++) {
        start(GUEST_VIRTIO_RNG);
        put64(BUFFER_GPA, 0);
        put_desc(0, BUFFER_GPA, 64, DESC_WRITE, 0);
        put16(AVAIL_GPA + 4, 0);
        put16(AVAIL_GPA + 2, 1);
        put32(reg(GUEST_VIRTIO_RNG, REG_QUEUE_NOTIFY), 0);
        if (round == 0)
            ring(DOORBELL_PARK);
        for (unsigned i = 0; i < 200000 && get16(USED_GPA + 2) != 1; i++)
            __asm__ volatile("pause");
        CHECK(get16(USED_GPA + 2) == 1, 1);
        CHECK(get32(USED_GPA + 8) == 64, 2);
        CHECK(get64(BUFFER_GPA) != 0, 3);
        if (round == 0) {
            ring(DOORBELL_FIRST);
            ring(DOORBELL_READY);
        }
    }
}

const struct payload payloads_virtio[] = {
    {"virtio_widths", virtio_widths},
    {"virtio_order", virtio_order},
    {"virtio_queue_sizes", virtio_queue_sizes},
    {"virtio_queue_addresses", virtio_queue_addresses},
    {"virtio_loops", virtio_loops},
    {"virtio_race", virtio_race},
    {"notify_storm", notify_storm},
    {"virtio_works_after_park", virtio_works_after_park},
    {NULL, NULL},
};
