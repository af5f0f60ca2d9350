/* Block requests: 16 bytes of header, data, a status byte. Each has exactly one answer. */
#include "virtio.h"

#define RING_GPA   SCRATCH_GPA
#define HEADER_GPA (SCRATCH_GPA + 0x10000)
#define STATUS_GPA (HEADER_GPA + 0x800)
#define DATA_GPA   (HEADER_GPA + 0x1000)
#define DATA_BYTES 4096u
#define UNANSWERED 0xeeu

enum { OK = 0, IOERR = 1, UNSUPP = 2 };
enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };

/* `plain`: with the data's direction as the command has it (for what is unknown and for DISCARD and
 * WRITE_ZEROES: to the driver); `turned`: the other way round, so that IN and OUT have no data. On
 * the root disk, which is read-only, and on the scratch disk. */
static const struct request {
    uint32_t type;
    uint64_t sector;
    uint32_t length;
    uint8_t plain[2], turned[2];
    uint32_t written; /* where it is plain and OK, of the data */
} requests[] = {
    {IN, 0, 512, {OK, OK}, {OK, OK}, 512},
    {IN, UINT64_MAX, 512, {IOERR, IOERR}, {IOERR, IOERR}, 0},
    {IN, UINT64_MAX / 512, 1024, {IOERR, IOERR}, {IOERR, IOERR}, 0},
    {IN, UINT64_C(1) << 54, 4096, {IOERR, IOERR}, {IOERR, IOERR}, 0},
    {IN, 0, 1, {IOERR, IOERR}, {OK, OK}, 0},
    {IN, 1, 511, {IOERR, IOERR}, {OK, OK}, 0},
    {OUT, 0, 512, {IOERR, OK}, {IOERR, OK}, 0},
    {OUT, UINT64_MAX, 512, {IOERR, IOERR}, {IOERR, IOERR}, 0},
    {OUT, 0, 513, {IOERR, IOERR}, {IOERR, OK}, 0},
    {FLUSH, 0, 512, {UNSUPP, OK}, {UNSUPP, OK}, 0},
    {GET_ID, 0, 20, {OK, OK}, {OK, OK}, 20},
    {DISCARD, 0, 16, {UNSUPP, IOERR}, {UNSUPP, OK}, 0},
    {WRITE_ZEROES, 0, 16, {UNSUPP, IOERR}, {UNSUPP, OK}, 0},
    {99, 0, 512, {UNSUPP, UNSUPP}, {UNSUPP, UNSUPP}, 0},
    {UINT32_MAX, 0, 512, {UNSUPP, UNSUPP}, {UNSUPP, UNSUPP}, 0},
};

enum shape { SHAPE_PLAIN, SHAPE_SHORT_HEADER, SHAPE_TURNED, SHAPE_NO_STATUS, SHAPE_COUNT };

static void offer(const struct ring *r, const struct request *rq, enum shape shape)
{
    uint16_t way = rq->type == OUT ? 0 : DESC_WRITE;
    const struct buffer buffers[] = {
        {HEADER_GPA, shape == SHAPE_SHORT_HEADER ? 8 : 16, 0},
        {DATA_GPA, rq->length, shape == SHAPE_TURNED ? way ^ DESC_WRITE : way},
        {STATUS_GPA, shape == SHAPE_NO_STATUS ? 0 : 1, DESC_WRITE},
    };

    for (uint64_t gpa = DATA_GPA; gpa < DATA_GPA + DATA_BYTES; gpa += 8)
        put64(gpa, 0);
    put32(HEADER_GPA, rq->type);
    put32(HEADER_GPA + 4, 0);
    put64(HEADER_GPA + 8, rq->sector);
    put8(STATUS_GPA, UNANSWERED);
    ring_add(r, buffers, 3);
}

static void block_requests(void)
{
    for (unsigned slot = GUEST_VIRTIO_ROOT; slot <= GUEST_VIRTIO_SCRATCH; slot++) {
        const struct ring r = {slot, 0, RING_GPA};

        for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
            const struct request *rq = &requests[i];

            for (unsigned shape = 0; shape < SHAPE_COUNT; shape++) {
                uint8_t answer = IOERR;
                uint32_t broken;

                negotiate(slot);
                ring_set_up(&r);
                set_running(slot);
                offer(&r, rq, shape);
                do {
                    broken = get32(reg(slot, REG_STATUS)) & NEEDS_RESET;
                } while (broken == 0 && ring_used(&r) == 0);
                CHECK((broken != 0) == (shape == SHAPE_NO_STATUS), 1);
                CHECK(ring_used(&r) == (shape == SHAPE_NO_STATUS ? 0 : 1), 2);
                if (shape == SHAPE_NO_STATUS)
                    continue;
                if (shape == SHAPE_PLAIN)
                    answer = rq->plain[slot];
                else if (shape == SHAPE_TURNED)
                    answer = rq->turned[slot];
                CHECK(get8(STATUS_GPA) == answer, 3);
                bool is_full = shape == SHAPE_PLAIN && answer == OK;
                CHECK(ring_used_bytes(&r) == (is_full ? rq->written : 0) + 1, 4);
            }
        }
    }
}

const struct payload payloads_block[] = {
    {"block_requests", block_requests},
    {NULL, NULL},
};
