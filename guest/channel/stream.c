#include "guest/channel/stream.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "guest/channel/service.h"

/* Credit goes back in portions of this size, so that small input costs no frames. */
#define GRANT_BYTES_MIN (CHANNEL_WINDOW_BYTES / 4)
#define END_BYTES_MAX   (CHANNEL_TEXT_MAX + 64)

static const struct stream_op *const ops[] = {
    &command_op,     &file_read_op,  &file_write_op, &file_stat_op, &file_list_op, &file_search_op,
    &file_change_op, &file_watch_op, &file_diff_op,  &tree_in_op,   &tree_out_op,
};

struct stream *streams_find(struct streams *t, uint32_t id)
{
    for (unsigned i = 0; i < t->used_count; i++) {
        if (t->slots[i].id == id && id != 0)
            return &t->slots[i];
    }
    return NULL;
}

static struct stream *take_slot(struct streams *t)
{
    for (unsigned i = 0; i < CHANNEL_STREAMS_MAX; i++) {
        if (i < t->used_count && t->slots[i].id != 0)
            continue;
        if (i >= t->used_count)
            t->used_count = i + 1;
        return &t->slots[i];
    }
    return NULL;
}

static void free_slot(struct service *v, struct stream *s)
{
    struct streams *t = &v->streams;

    if (s->op != NULL)
        s->op->fini(v, s);
    buffer_fini(&s->request);
    s->id = 0;
    while (t->used_count > 0 && t->slots[t->used_count - 1].id == 0)
        t->used_count--;
}

void streams_fini(struct service *v)
{
    for (unsigned i = v->streams.used_count; i-- > 0;) {
        if (v->streams.slots[i].id != 0)
            free_slot(v, &v->streams.slots[i]);
    }
}

static void put_end(struct service *v, uint32_t id, uint32_t status, const char *text,
                    const void *fields, size_t size)
{
    uint8_t bytes[END_BYTES_MAX];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u32(&w, status);
    wire_put_string(&w, text, strlen(text));
    wire_put_bytes(&w, fields, size);
    assert(!w.bad);
    port_put(&v->port, id, CHANNEL_END, CHANNEL_LANE_IN, bytes, w.used);
}

void stream_end(struct service *v, struct stream *s, const void *fields, size_t size)
{
    put_end(v, s->id, 0, "", fields, size);
    free_slot(v, s);
}

void stream_fail(struct service *v, struct stream *s, int status, const char *format, ...)
{
    char text[CHANNEL_TEXT_MAX];
    va_list ap;

    assert(status > 0);
    va_start(ap, format);
    (void)vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    put_end(v, s->id, (uint32_t)status, text, NULL, 0);
    free_slot(v, s);
}

void stream_receive_done(struct service *v, struct stream *s, size_t size)
{
    uint8_t bytes[4];
    struct wire_writer w;

    s->receive_due += (uint32_t)size;
    if (s->receive_due < GRANT_BYTES_MIN || s->receive_eof)
        return;
    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u32(&w, s->receive_due);
    port_put(&v->port, s->id, CHANNEL_CREDIT, CHANNEL_LANE_IN, bytes, sizeof(bytes));
    s->receive_credit += s->receive_due;
    s->receive_due = 0;
}

size_t stream_send_room(const struct stream *s, enum channel_lane lane, size_t wanted)
{
    uint64_t room = s->send_credit[lane];

    if (room > CHANNEL_PAYLOAD_MAX)
        room = CHANNEL_PAYLOAD_MAX;
    return wanted < room ? wanted : (size_t)room;
}

static int start_request(struct service *v, struct stream *s, const uint8_t *bytes, size_t size,
                         struct error *e)
{
    struct wire_reader r;

    wire_reader_init(&r, bytes, size);
    uint16_t op = wire_get_u16(&r);
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        if (r.bad || ops[i]->op != op)
            continue;
        s->op = ops[i];
        if (s->op->start(v, s, &r) < 0)
            return error_set(e, ERR_BAD_REQUEST, "stream's request %u is malformed", op);
        return 0;
    }
    return error_set(e, ERR_BAD_REQUEST, "a stream asks for the unknown operation %u", op);
}

static int handle_open(struct service *v, const struct channel_header *h, const uint8_t *payload,
                       struct error *e)
{
    struct streams *t = &v->streams;
    struct stream *s = streams_find(t, h->stream);
    bool more = h->lane == 1;

    if (h->lane > 1)
        return error_set(e, ERR_BAD_REQUEST, "OPEN on lane %u", h->lane);
    if (s != NULL && s->op != NULL)
        return error_set(e, ERR_BAD_REQUEST, "stream %u was opened twice", h->stream);
    /* The rest of a request that has been refused already. */
    if (s == NULL && h->stream <= t->id_last)
        return 0;
    if (s == NULL) {
        t->id_last = h->stream;
        s = take_slot(t);
        if (s == NULL) {
            put_end(v, h->stream, EMFILE, "too many streams are open", NULL, 0);
            return 0;
        }
        *s = (struct stream){.id = h->stream,
                             .request = BUFFER_INIT(CHANNEL_OPEN_MAX),
                             .receive_credit = CHANNEL_WINDOW_BYTES};
        for (unsigned lane = 0; lane < CHANNEL_LANE_COUNT; lane++)
            s->send_credit[lane] = CHANNEL_WINDOW_BYTES;
        /* The usual case: the whole request in one frame, used where it lies. */
        if (!more)
            return start_request(v, s, payload, h->length, e);
    }
    if (buffer_append(&s->request, payload, h->length) < 0) {
        stream_fail(v, s, E2BIG, "the request is larger than %u bytes", (unsigned)CHANNEL_OPEN_MAX);
        return 0;
    }
    if (more)
        return 0;
    int result = start_request(v, s, buffer_bytes(&s->request), s->request.size, e);
    s = streams_find(t, h->stream);
    if (s != NULL)
        buffer_fini(&s->request);
    return result;
}

static int handle_input(struct service *v, struct stream *s, const struct channel_header *h,
                        const uint8_t *payload, struct error *e)
{
    if (h->lane != CHANNEL_LANE_IN || s->receive_eof || s->op->data == NULL)
        return error_set(e, ERR_BAD_REQUEST, "stream %u takes no input on lane %u", h->stream,
                         h->lane);
    if (h->type == CHANNEL_EOF) {
        s->receive_eof = true;
        if (s->op->eof(v, s) < 0)
            return error_set(e, ERR_BAD_REQUEST, "stream %u takes no input", h->stream);
        return 0;
    }
    if (h->length > s->receive_credit)
        return error_set(e, ERR_BAD_REQUEST, "stream %u: DATA past the credit", h->stream);
    s->receive_credit -= h->length;
    if (s->op->data(v, s, payload, h->length) < 0)
        return error_set(e, ERR_BAD_REQUEST, "stream %u takes no input", h->stream);
    return 0;
}

static uint32_t payload_u32(const struct channel_header *h, const uint8_t *payload)
{
    struct wire_reader r;

    wire_reader_init(&r, payload, h->length);
    return wire_get_u32(&r);
}

static int handle_resize(struct stream *s, const struct channel_header *h, const uint8_t *payload,
                         struct error *e)
{
    struct wire_reader r;

    wire_reader_init(&r, payload, h->length);
    uint16_t rows = wire_get_u16(&r);
    uint16_t columns = wire_get_u16(&r);
    if (s->op->resize == NULL || s->op->resize(s, rows, columns) < 0)
        return error_set(e, ERR_BAD_REQUEST, "stream %u has no terminal", h->stream);
    return 0;
}

int streams_frame(struct service *v, const struct channel_header *h, const uint8_t *payload,
                  struct error *e)
{
    if (h->type == CHANNEL_OPEN)
        return handle_open(v, h, payload, e);
    if (h->type == CHANNEL_INFO || h->type == CHANNEL_END)
        return error_set(e, ERR_BAD_REQUEST, "the host sent a frame of type %u", h->type);

    struct stream *s = streams_find(&v->streams, h->stream);
    if (s == NULL && h->stream <= v->streams.id_last)
        return 0; /* it has ended, and the host did not know when it sent this */
    if (s == NULL || (s->op == NULL && h->type != CHANNEL_RESET))
        return error_set(e, ERR_BAD_REQUEST, "stream %u is not open", h->stream);

    switch (h->type) {
    case CHANNEL_CREDIT: {
        uint64_t *credit = &s->send_credit[h->lane];
        if (__builtin_add_overflow(*credit, payload_u32(h, payload), credit))
            return error_set(e, ERR_BAD_REQUEST, "stream %u: credit overflows", h->stream);
        return 0;
    }
    case CHANNEL_SIGNAL:
        if (s->op->signal != NULL)
            s->op->signal(v, s, (enum channel_signal_scope)h->lane, payload_u32(h, payload));
        return 0;
    case CHANNEL_RESIZE:
        return handle_resize(s, h, payload, e);
    case CHANNEL_RESET:
        if (s->op == NULL)
            stream_fail(v, s, ECANCELED, "the host gave up");
        else
            s->op->reset(v, s);
        return 0;
    default:
        return handle_input(v, s, h, payload, e);
    }
}

bool streams_pump(struct service *v)
{
    bool more = false;

    /* The slots that are passed over for want of room come first in the next round. */
    for (unsigned i = 0, count = v->streams.used_count; i < count; i++) {
        unsigned slot = (v->pump_next + i) % count;
        struct stream *s = &v->streams.slots[slot];

        if (!port_has_room(&v->port)) {
            v->pump_next = slot;
            return true;
        }
        if (s->id != 0 && s->op != NULL && s->op->pump != NULL && s->op->pump(v, s))
            more = true;
    }
    return more;
}
