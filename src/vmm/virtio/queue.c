/* System calls: none. */
#include "vmm/virtio/queue.h"

#include <linux/virtio_ring.h>
#include <string.h>

/* The rings are little-endian and read in place. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "x86 only");
_Static_assert((VIRTQ_SIZE_MAX & (VIRTQ_SIZE_MAX - 1)) == 0, "2.7: a power of two");

/* 2.7: alignment, and size for a queue of n entries, of the three parts. */
#define DESC_ALIGN  16u
#define AVAIL_ALIGN 2u
#define USED_ALIGN  4u

struct rings {
    struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;
};

void virtq_reset(struct virtq *q)
{
    *q = (struct virtq){.size_max = q->size_max};
}

/* The rings are found anew at each use: only the door to guest memory says what is RAM. */
static bool rings_find(const struct virtq *q, const struct guest_mem *m, struct rings *ret)
{
    uint64_t size = q->size;

    ret->desc = guest_mem_at(m, q->desc_gpa, DESC_ALIGN * size);
    ret->avail = guest_mem_at(m, q->avail_gpa, 6 + 2 * size);
    ret->used = guest_mem_at(m, q->used_gpa, 6 + 8 * size);
    return ret->desc != NULL && ret->avail != NULL && ret->used != NULL;
}

bool virtq_is_usable(const struct virtq *q, const struct guest_mem *m)
{
    struct rings rings;

    if (q->size == 0 || q->size > q->size_max || (q->size & (q->size - 1)) != 0)
        return false;
    if (q->desc_gpa % DESC_ALIGN != 0 || q->avail_gpa % AVAIL_ALIGN != 0 ||
        q->used_gpa % USED_ALIGN != 0)
        return false;
    return rings_find(q, m, &rings);
}

static int rings_pending(const struct virtq *q, const struct rings *rings)
{
    /* Acquire: pairs with the barrier of the driver between filling its ring entries and
     * descriptors and storing avail->idx (2.7.13.3); what we read below is at least as new. */
    uint16_t index = __atomic_load_n(&rings->avail->idx, __ATOMIC_ACQUIRE);
    uint16_t pending = (uint16_t)(index - q->done);

    return pending <= q->size ? pending : -1;
}

int virtq_pending(const struct virtq *q, const struct guest_mem *m)
{
    struct rings rings;

    if (!q->ready)
        return 0;
    return rings_find(q, m, &rings) ? rings_pending(q, &rings) : -1;
}

/* One descriptor, each field loaded once. */
static struct vring_desc desc_copy(const struct vring_desc *d)
{
    return (struct vring_desc){
        .addr = __atomic_load_n(&d->addr, __ATOMIC_RELAXED),
        .len = __atomic_load_n(&d->len, __ATOMIC_RELAXED),
        .flags = __atomic_load_n(&d->flags, __ATOMIC_RELAXED),
        .next = __atomic_load_n(&d->next, __ATOMIC_RELAXED),
    };
}

/* Fails for a loop and for a chain longer than the queue (2.7.5.2) alike: when the queue's size is
 * used up there is still a next one. An empty buffer is refused as no RAM. */
static int chain_walk(const struct virtq *q, const struct guest_mem *m, const struct rings *rings,
                      struct virtq_chain *c)
{
    uint16_t index = c->head;

    for (unsigned i = 0; i < q->size && i < VIRTQ_SIZE_MAX; i++) {
        if (index >= q->size)
            return -1;
        const struct vring_desc d = desc_copy(&rings->desc[index]);
        void *at = guest_mem_at(m, d.addr, d.len);

        if (at == NULL || (d.flags & VRING_DESC_F_INDIRECT) != 0)
            return -1;
        c->iov[i] = (struct iovec){.iov_base = at, .iov_len = d.len};
        if ((d.flags & VRING_DESC_F_WRITE) != 0) {
            c->in_count++;
            c->in_bytes += d.len;
        } else if (c->in_count > 0) {
            return -1; /* 2.7.4.2: what the device reads comes first */
        } else {
            c->out_count++;
            c->out_bytes += d.len;
        }
        if ((d.flags & VRING_DESC_F_NEXT) == 0)
            return 0;
        index = d.next;
    }
    return -1;
}

int virtq_next(const struct virtq *q, const struct guest_mem *m, struct virtq_chain *ret_chain)
{
    struct virtq_chain *c = ret_chain;
    struct rings rings;

    if (!q->ready)
        return 0;
    if (!rings_find(q, m, &rings))
        return -1;
    int pending = rings_pending(q, &rings);
    if (pending <= 0)
        return pending;

    c->head = __atomic_load_n(&rings.avail->ring[q->done & (q->size - 1)], __ATOMIC_RELAXED);
    c->out_count = c->in_count = 0;
    c->out_bytes = c->in_bytes = 0;
    if (chain_walk(q, m, &rings, c) < 0)
        return -1;
    c->out = c->iov;
    c->in = c->iov + c->out_count;
    return 1;
}

int virtq_complete(struct virtq *q, const struct guest_mem *m, uint16_t head, uint32_t written)
{
    struct rings rings;

    if (!rings_find(q, m, &rings))
        return -1;
    struct vring_used_elem *elem = &rings.used->ring[q->done & (q->size - 1)];
    __atomic_store_n(&elem->id, head, __ATOMIC_RELAXED);
    __atomic_store_n(&elem->len, written, __ATOMIC_RELAXED);
    q->done++;
    /* Release: pairs with the driver's barrier between loading used->idx and reading the entry and
     * the buffers (2.7.14); it sees all that we wrote before. */
    __atomic_store_n(&rings.used->idx, q->done, __ATOMIC_RELEASE);
    return 0;
}

bool virtq_wants_interrupt(const struct virtq *q, const struct guest_mem *m)
{
    struct rings rings;

    if (!q->ready || !rings_find(q, m, &rings))
        return false;
    /* Full barrier between our store of used->idx and the load of the flags: pairs with the
     * driver's between clearing the flag and its last look at used->idx (2.7.14). One of the two
     * sides sees the other's store, so no completion goes unheard. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint16_t flags = __atomic_load_n(&rings.avail->flags, __ATOMIC_RELAXED);
    return (flags & VRING_AVAIL_F_NO_INTERRUPT) == 0;
}

void virtq_iov_skip(struct iovec **iov, unsigned *count, uint64_t bytes)
{
    while (bytes > 0 && *count > 0) {
        struct iovec *first = *iov;

        if (bytes < first->iov_len) {
            first->iov_base = (uint8_t *)first->iov_base + bytes;
            first->iov_len -= bytes;
            return;
        }
        bytes -= first->iov_len;
        (*iov)++;
        (*count)--;
    }
}

size_t virtq_chain_read(struct virtq_chain *c, void *ret_data, size_t size)
{
    size_t done = 0;

    while (done < size && c->out_count > 0) {
        size_t part = c->out->iov_len < size - done ? c->out->iov_len : size - done;

        memcpy((uint8_t *)ret_data + done, c->out->iov_base, part);
        virtq_iov_skip(&c->out, &c->out_count, part);
        done += part;
    }
    c->out_bytes -= done;
    return done;
}

size_t virtq_chain_write(struct virtq_chain *c, const void *data, size_t size)
{
    size_t done = 0;

    while (done < size && c->in_count > 0) {
        size_t part = c->in->iov_len < size - done ? c->in->iov_len : size - done;

        memcpy(c->in->iov_base, (const uint8_t *)data + done, part);
        virtq_iov_skip(&c->in, &c->in_count, part);
        done += part;
    }
    c->in_bytes -= done;
    return done;
}

void virtq_save(const struct virtq *q, struct wire_writer *w)
{
    wire_put_u16(w, q->size);
    wire_put_u8(w, q->ready);
    wire_put_u64(w, q->desc_gpa);
    wire_put_u64(w, q->avail_gpa);
    wire_put_u64(w, q->used_gpa);
    wire_put_u16(w, q->done);
}

int virtq_load(struct virtq *q, const struct guest_mem *m, struct wire_reader *r)
{
    q->size = wire_get_u16(r);
    uint8_t ready = wire_get_u8(r);
    q->desc_gpa = wire_get_u64(r);
    q->avail_gpa = wire_get_u64(r);
    q->used_gpa = wire_get_u64(r);
    q->done = wire_get_u16(r);
    if (r->bad || ready > 1 || q->size > q->size_max || (q->size & (q->size - 1)) != 0)
        return -1;
    q->ready = ready;
    return !q->ready || virtq_is_usable(q, m) ? 0 : -1;
}
