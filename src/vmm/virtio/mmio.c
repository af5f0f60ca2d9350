/* System calls: none but those of device.c. */
#include "vmm/virtio/mmio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <string.h>

#define MMIO_MAGIC   0x74726976u /* "virt" */
#define MMIO_VERSION 2u
#define MMIO_VENDOR  0x434f4c43u /* "CLOC" */

#define FEATURE(bit) (UINT64_C(1) << (bit))

/* What a driver can set, in the order in which it must, and what each bit comes after. */
static const struct status_bit {
    uint8_t bit;
    uint8_t after;
} status_bits[] = {
    {VIRTIO_CONFIG_S_ACKNOWLEDGE, 0},
    {VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_ACKNOWLEDGE},
    {VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER},
    {VIRTIO_CONFIG_S_DRIVER_OK,
     VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK},
    {VIRTIO_CONFIG_S_FAILED, 0},
};
#define STATUS_BITS (sizeof(status_bits) / sizeof(status_bits[0]))

/* 2.2.2: a driver accepts a subset of what is offered, with all that this device cannot do
 * without. */
static bool features_are_acceptable(const struct virtio_device *v)
{
    return !v->features_beyond && (v->driver_features & ~v->features) == 0 &&
           (v->driver_features & v->features_required) == v->features_required;
}

/* From the first step on the thread that serves the device takes no further request; the one that
 * it is carrying out is waited for. Until then the status reads as before, so that a driver which
 * looks from elsewhere sees no reset that is not done (2.1.2). */
static void reset_by_driver(struct virtio_device *v)
{
    virtio_lock(v);
    v->resets++;
    virtio_unlock(v);
    virtio_begin(v);
    v->resets--;
    virtio_reset(v);
    virtio_end(v);
}

/* Not for 0, which resets the device. */
static void status_write(struct virtio_device *v, uint32_t value)
{
    for (size_t i = 0; i < STATUS_BITS; i++) { /* 2.1.1: a driver must not clear a bit */
        if ((v->status & status_bits[i].bit & ~value) != 0)
            return;
    }
    for (size_t i = 0; i < STATUS_BITS; i++) {
        const struct status_bit *s = &status_bits[i];

        if ((value & s->bit) == 0 || (v->status & s->after) != s->after)
            continue;
        if (s->bit == VIRTIO_CONFIG_S_FEATURES_OK && !features_are_acceptable(v))
            continue;
        v->status |= s->bit;
    }
}

/* The selected queue, where there is one. */
static struct virtq *queue_selected(struct virtio_device *v)
{
    return v->queue_select < v->ops->queue_count ? &v->queues[v->queue_select] : NULL;
}

static bool queues_are_open(const struct virtio_device *v)
{
    const uint8_t closed =
        VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED;

    return (v->status & VIRTIO_CONFIG_S_FEATURES_OK) != 0 && (v->status & closed) == 0;
}

static void set_low(uint64_t *field, uint32_t value)
{
    *field = (*field & ~UINT64_C(0xffffffff)) | value;
}

static void set_high(uint64_t *field, uint32_t value)
{
    *field = (*field & UINT64_C(0xffffffff)) | (uint64_t)value << 32;
}

static void queue_ready_write(struct virtio_device *v, struct virtq *q, uint32_t value)
{
    if (value != 1) {
        q->ready = false;
    } else if (virtq_is_usable(q, v->mem)) {
        q->ready = true;
    } else {
        virtio_break(v); /* the driver would wait for ever on a queue that cannot work */
    }
}

static void queue_write(struct virtio_device *v, uint32_t offset, uint32_t value)
{
    struct virtq *q = queue_selected(v);

    if (q == NULL || !queues_are_open(v))
        return;
    if (offset == VIRTIO_MMIO_QUEUE_READY) {
        queue_ready_write(v, q, value);
        return;
    }
    if (q->ready)
        return;
    switch (offset) {
    case VIRTIO_MMIO_QUEUE_NUM:
        q->size = value <= q->size_max && (value & (value - 1)) == 0 ? (uint16_t)value : 0;
        break;
    case VIRTIO_MMIO_QUEUE_DESC_LOW:
        set_low(&q->desc_gpa, value);
        break;
    case VIRTIO_MMIO_QUEUE_DESC_HIGH:
        set_high(&q->desc_gpa, value);
        break;
    case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
        set_low(&q->avail_gpa, value);
        break;
    case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
        set_high(&q->avail_gpa, value);
        break;
    case VIRTIO_MMIO_QUEUE_USED_LOW:
        set_low(&q->used_gpa, value);
        break;
    case VIRTIO_MMIO_QUEUE_USED_HIGH:
        set_high(&q->used_gpa, value);
        break;
    default:
        break;
    }
}

static void driver_features_write(struct virtio_device *v, uint32_t value)
{
    if ((v->status & VIRTIO_CONFIG_S_DRIVER) == 0 || (v->status & VIRTIO_CONFIG_S_FEATURES_OK) != 0)
        return;
    if (v->driver_features_select == 0)
        set_low(&v->driver_features, value);
    else if (v->driver_features_select == 1)
        set_high(&v->driver_features, value);
    else if (value != 0)
        v->features_beyond = true;
}

static void register_write(struct virtio_device *v, uint32_t offset, uint32_t value)
{
    switch (offset) {
    case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        v->device_features_select = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        v->driver_features_select = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES:
        driver_features_write(v, value);
        break;
    case VIRTIO_MMIO_QUEUE_SEL:
        v->queue_select = value;
        break;
    case VIRTIO_MMIO_QUEUE_NOTIFY:
        /* Not by way of the ioeventfd: whoever serves the device comes all the same. */
        if (value < v->ops->queue_count && virtio_is_running(v))
            virtio_wake(v);
        break;
    case VIRTIO_MMIO_STATUS:
        status_write(v, value);
        break;
    default:
        queue_write(v, offset, value);
        break;
    }
}

static uint32_t device_features_read(const struct virtio_device *v)
{
    if (v->device_features_select > 1)
        return 0;
    return (uint32_t)(v->features >> (32 * v->device_features_select));
}

static uint32_t register_read(struct virtio_device *v, uint32_t offset)
{
    const struct virtq *q = queue_selected(v);

    switch (offset) {
    case VIRTIO_MMIO_MAGIC_VALUE:
        return MMIO_MAGIC;
    case VIRTIO_MMIO_VERSION:
        return MMIO_VERSION;
    case VIRTIO_MMIO_DEVICE_ID:
        return v->ops->id;
    case VIRTIO_MMIO_VENDOR_ID:
        return MMIO_VENDOR;
    case VIRTIO_MMIO_DEVICE_FEATURES:
        return device_features_read(v);
    case VIRTIO_MMIO_QUEUE_NUM_MAX:
        return q != NULL ? q->size_max : 0;
    case VIRTIO_MMIO_QUEUE_READY:
        return q != NULL && q->ready;
    case VIRTIO_MMIO_STATUS:
        return v->status;
    case VIRTIO_MMIO_SHM_LEN_LOW: /* no such region: all ones (4.2.2) */
    case VIRTIO_MMIO_SHM_LEN_HIGH:
    case VIRTIO_MMIO_SHM_BASE_LOW:
    case VIRTIO_MMIO_SHM_BASE_HIGH:
        return UINT32_MAX;
    default: /* ConfigGeneration too: our config spaces never change */
        return 0;
    }
}

/* Config space may be read at any width and place; past its end it is zero. There is nothing in
 * ours that a driver may write. */
static void config_read(const struct virtio_device *v, uint64_t at, void *data, uint32_t size)
{
    memset(data, 0, size);
    if (at >= v->config_bytes)
        return;
    uint64_t left = v->config_bytes - at;
    memcpy(data, v->config + at, size < left ? size : left);
}

static void locked_access(struct virtio_device *v, uint64_t offset, void *data, uint32_t size,
                          bool is_write)
{
    uint32_t value = 0;

    if (offset >= VIRTIO_MMIO_CONFIG) {
        if (!is_write)
            config_read(v, offset - VIRTIO_MMIO_CONFIG, data, size);
        return;
    }
    bool is_register = size == sizeof(value) && offset % sizeof(value) == 0; /* 4.2.2.2 */
    if (is_write) {
        if (!is_register)
            return;
        memcpy(&value, data, sizeof(value));
        register_write(v, (uint32_t)offset, value);
        return;
    }
    memset(data, 0, size);
    if (!is_register)
        return;
    value = register_read(v, (uint32_t)offset);
    memcpy(data, &value, sizeof(value));
}

/* InterruptStatus and InterruptACK, the two registers that every interrupt handler touches, need no
 * lock. Returns false for all others. */
static bool interrupt_access(struct virtio_device *v, uint64_t offset, void *data, uint32_t size,
                             bool is_write)
{
    uint32_t value;

    if (size != sizeof(value))
        return false;
    if (offset == VIRTIO_MMIO_INTERRUPT_STATUS && !is_write) {
        value = atomic_load(&v->interrupt_status);
        memcpy(data, &value, sizeof(value));
        return true;
    }
    if (offset == VIRTIO_MMIO_INTERRUPT_ACK && is_write) {
        memcpy(&value, data, sizeof(value));
        atomic_fetch_and(&v->interrupt_status, ~value);
        return true;
    }
    return false;
}

static bool is_reset(uint64_t offset, const void *data, uint32_t size, bool is_write)
{
    uint32_t value;

    if (!is_write || offset != VIRTIO_MMIO_STATUS || size != sizeof(value))
        return false;
    memcpy(&value, data, sizeof(value));
    return value == 0;
}

void virtio_mmio_access(struct virtio_device *v, uint64_t offset, void *data, uint32_t size,
                        bool is_write)
{
    if (interrupt_access(v, offset, data, size, is_write))
        return;
    if (is_reset(offset, data, size, is_write)) {
        reset_by_driver(v);
        return;
    }
    virtio_lock(v);
    locked_access(v, offset, data, size, is_write);
    virtio_unlock(v);
}

void virtio_save(const struct virtio_device *v, struct wire_writer *w)
{
    wire_put_u32(w, v->ops->id);
    wire_put_u8(w, v->status);
    wire_put_u8(w, v->features_beyond);
    wire_put_u64(w, v->features);
    wire_put_u64(w, v->driver_features);
    wire_put_u32(w, v->device_features_select);
    wire_put_u32(w, v->driver_features_select);
    wire_put_u32(w, v->queue_select);
    wire_put_u32(w, atomic_load(&v->interrupt_status));
    for (unsigned i = 0; i < v->ops->queue_count; i++)
        virtq_save(&v->queues[i], w);
    if (v->ops->save != NULL)
        v->ops->save(v, w);
}

/* Whether a driver could have brought the device to this status with these features. */
static bool status_is_possible(const struct virtio_device *v)
{
    uint8_t known = VIRTIO_CONFIG_S_NEEDS_RESET;

    for (size_t i = 0; i < STATUS_BITS; i++) {
        known |= status_bits[i].bit;
        if ((v->status & status_bits[i].bit) != 0 &&
            (v->status & status_bits[i].after) != status_bits[i].after)
            return false;
    }
    if ((v->status & ~known) != 0)
        return false;
    return (v->status & VIRTIO_CONFIG_S_FEATURES_OK) == 0 || features_are_acceptable(v);
}

static int transport_load(struct virtio_device *v, struct wire_reader *r)
{
    const uint32_t reasons = VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG;
    uint32_t id = wire_get_u32(r);

    v->status = wire_get_u8(r);
    v->features_beyond = wire_get_u8(r) != 0;
    uint64_t features = wire_get_u64(r);
    v->driver_features = wire_get_u64(r);
    v->device_features_select = wire_get_u32(r);
    v->driver_features_select = wire_get_u32(r);
    v->queue_select = wire_get_u32(r);
    uint32_t interrupt_status = wire_get_u32(r);
    if (r->bad || id != v->ops->id || features != v->features || !status_is_possible(v) ||
        (interrupt_status & ~reasons) != 0)
        return -1;
    for (unsigned i = 0; i < v->ops->queue_count; i++) {
        struct virtq *q = &v->queues[i];

        if (virtq_load(q, v->mem, r) < 0)
            return -1;
        if (q->ready && (v->status & VIRTIO_CONFIG_S_FEATURES_OK) == 0)
            return -1;
    }
    atomic_store(&v->interrupt_status, interrupt_status);
    return 0;
}

int virtio_load(struct virtio_device *v, struct wire_reader *r, struct error *e)
{
    virtio_reset(v);
    if (transport_load(v, r) < 0)
        return error_set(e, ERR_TEMPLATE_CORRUPT, "device %s: its saved state is impossible",
                         v->name);
    if (v->ops->load != NULL && v->ops->load(v, r, e) < 0)
        return error_wrap(e, "device %s", v->name);
    /* The eventfd of the saved machine may not have reached its interrupt controller. One
     * interrupt too many does no harm. */
    if (atomic_load(&v->interrupt_status) != 0)
        virtio_interrupt(v, 0);
    return 0;
}
