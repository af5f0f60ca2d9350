/* System calls: write (eventfds: the interrupt, a notification), futex (the locks). */
#include "vmm/virtio/device.h"

#include <assert.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <unistd.h>

#define FEATURE(bit) (UINT64_C(1) << (bit))

void virtio_init(struct virtio_device *v, const struct virtio_ops *ops)
{
    assert(ops->queue_count <= VIRTIO_QUEUES_MAX);
    assert(v->config_bytes <= VIRTIO_CONFIG_MAX);
    v->ops = ops;
    v->features |= FEATURE(VIRTIO_F_VERSION_1);
    v->features_required |= FEATURE(VIRTIO_F_VERSION_1);
    for (unsigned i = 0; i < ops->queue_count; i++) {
        assert(ops->queue_sizes[i] <= VIRTQ_SIZE_MAX);
        v->queues[i].size_max = ops->queue_sizes[i];
    }
    int failed = pthread_mutex_init(&v->serving, NULL);
    assert(failed == 0);
    failed = pthread_mutex_init(&v->lock, NULL);
    assert(failed == 0);
    virtio_reset(v);
}

void virtio_fini(struct virtio_device *v)
{
    (void)pthread_mutex_destroy(&v->serving);
    (void)pthread_mutex_destroy(&v->lock);
}

static void mutex_lock(pthread_mutex_t *mutex)
{
    int failed = pthread_mutex_lock(mutex);

    assert(failed == 0);
}

static void mutex_unlock(pthread_mutex_t *mutex)
{
    int failed = pthread_mutex_unlock(mutex);

    assert(failed == 0);
}

void virtio_begin(struct virtio_device *v)
{
    mutex_lock(&v->serving);
    mutex_lock(&v->lock);
}

void virtio_end(struct virtio_device *v)
{
    mutex_unlock(&v->lock);
    mutex_unlock(&v->serving);
}

void virtio_lock(struct virtio_device *v)
{
    mutex_lock(&v->lock);
}

void virtio_unlock(struct virtio_device *v)
{
    mutex_unlock(&v->lock);
}

void virtio_reset(struct virtio_device *v)
{
    v->status = 0;
    v->features_beyond = false;
    v->driver_features = 0;
    v->device_features_select = 0;
    v->driver_features_select = 0;
    v->queue_select = 0;
    atomic_store(&v->interrupt_status, 0);
    for (unsigned i = 0; i < v->ops->queue_count; i++)
        virtq_reset(&v->queues[i]);
    if (v->ops->reset != NULL)
        v->ops->reset(v);
}

bool virtio_is_running(const struct virtio_device *v)
{
    const uint8_t stopped = VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED;

    return (v->status & VIRTIO_CONFIG_S_DRIVER_OK) != 0 && (v->status & stopped) == 0 &&
           v->resets == 0;
}

/* Fails only where the counter is full, and then who waits for it is being woken already. */
static void signal_fd(int event_fd)
{
    const uint64_t one = 1;
    ssize_t written = write(event_fd, &one, sizeof(one));

    (void)written;
}

void virtio_interrupt(struct virtio_device *v, uint32_t why)
{
    /* The bit first: a handler that the write starts must find it. */
    atomic_fetch_or(&v->interrupt_status, why);
    signal_fd(v->irq_fd);
}

void virtio_wake(struct virtio_device *v)
{
    signal_fd(v->notify_fd);
}

void virtio_break(struct virtio_device *v)
{
    bool announce = virtio_is_running(v);

    v->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    if (announce)
        virtio_interrupt(v, VIRTIO_MMIO_INT_CONFIG);
}

int virtio_complete(struct virtio_device *v, unsigned queue, uint16_t head, uint32_t written)
{
    if (virtq_complete(&v->queues[queue], v->mem, head, written) == 0)
        return 0;
    virtio_break(v);
    return -1;
}

int virtio_next(struct virtio_device *v, unsigned queue, struct virtq_chain *ret_chain)
{
    int found = virtq_next(&v->queues[queue], v->mem, ret_chain);

    if (found < 0)
        virtio_break(v);
    return found > 0;
}

unsigned virtio_pending(struct virtio_device *v, unsigned queue)
{
    int pending = virtq_pending(&v->queues[queue], v->mem);

    if (pending < 0)
        virtio_break(v);
    return pending > 0 ? (unsigned)pending : 0;
}

void virtio_notify_driver(struct virtio_device *v, unsigned queue)
{
    if (virtq_wants_interrupt(&v->queues[queue], v->mem))
        virtio_interrupt(v, VIRTIO_MMIO_INT_VRING);
}
