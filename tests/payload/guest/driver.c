#include "virtio.h"

#define AVAIL_OFFSET 0x1000u
#define USED_OFFSET  0x2000u
#define RING_BYTES   0x3000u

static void set64(unsigned slot, unsigned offset, uint64_t value)
{
    put32(reg(slot, offset), (uint32_t)value);
    put32(reg(slot, offset + 4), (uint32_t)(value >> 32));
}

void negotiate(unsigned slot)
{
    put32(reg(slot, REG_STATUS), 0);
    put32(reg(slot, REG_STATUS), 1);
    put32(reg(slot, REG_STATUS), 3);
    for (uint32_t word = 0; word < 2; word++) {
        put32(reg(slot, REG_DEVICE_FEATURES_SEL), word);
        uint32_t offered = get32(reg(slot, REG_DEVICE_FEATURES));
        put32(reg(slot, REG_DRIVER_FEATURES_SEL), word);
        put32(reg(slot, REG_DRIVER_FEATURES), offered);
    }
    put32(reg(slot, REG_STATUS), 11);
    CHECK((get32(reg(slot, REG_STATUS)) & 8) != 0, 0x22);
}

void set_queue(unsigned slot, uint32_t queue, uint32_t size, const struct addresses *at)
{
    put32(reg(slot, REG_QUEUE_SEL), queue);
    put32(reg(slot, REG_QUEUE_NUM), size);
    set64(slot, REG_QUEUE_DESC, at->desc);
    set64(slot, REG_QUEUE_DRIVER, at->avail);
    set64(slot, REG_QUEUE_DEVICE, at->used);
    put32(reg(slot, REG_QUEUE_READY), 1);
}

void set_running(unsigned slot)
{
    put32(reg(slot, REG_STATUS), 15);
}

void ring_set_up(const struct ring *r)
{
    const struct addresses at = {r->gpa, r->gpa + AVAIL_OFFSET, r->gpa + USED_OFFSET};

    for (uint64_t gpa = r->gpa; gpa < r->gpa + RING_BYTES; gpa += 8)
        put64(gpa, 0);
    set_queue(r->slot, r->queue, QUEUE_SIZE, &at);
}

void ring_add(const struct ring *r, const struct buffer *buffers, unsigned count)
{
    uint16_t index = get16(r->gpa + AVAIL_OFFSET + 2);

    for (unsigned i = 0; i < count; i++) {
        uint16_t more = i + 1 < count ? DESC_NEXT : 0;

        put64(r->gpa + 16 * i, buffers[i].gpa);
        put32(r->gpa + 16 * i + 8, buffers[i].length);
        put16(r->gpa + 16 * i + 12, buffers[i].flags | more);
        put16(r->gpa + 16 * i + 14, (uint16_t)(i + 1));
    }
    put16(r->gpa + AVAIL_OFFSET + 4 + 2 * (index % QUEUE_SIZE), 0);
    put16(r->gpa + AVAIL_OFFSET + 2, (uint16_t)(index + 1));
    put32(reg(r->slot, REG_QUEUE_NOTIFY), r->queue);
}

uint16_t ring_used(const struct ring *r)
{
    return get16(r->gpa + USED_OFFSET + 2);
}

uint32_t ring_used_bytes(const struct ring *r)
{
    unsigned last = (uint16_t)(ring_used(r) - 1) % QUEUE_SIZE;

    return get32(r->gpa + USED_OFFSET + 4 + 8 * last + 4);
}
