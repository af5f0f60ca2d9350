#include "guest/channel/stream.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* Credit goes back in portions of this size, so that small input costs no frames. */
#define GRANT_BYTES_MIN (CHANNEL_WINDOW_BYTES / 4)
#define END_BYTES_MAX   (CHANNEL_TEXT_MAX + 64)
#define STATES_BYTES    ((size_t)CHANNEL_STREAMS_MAX * STREAM_STATE_BYTES)

int streams_init(struct streams *t, struct port *port, int epoll_fd, const struct stream_row *rows,
                 size_t row_count, struct error *e)
{
    memset(t, 0, sizeof(*t));
    t->port = port;
    t->epoll_fd = epoll_fd;
    t->rows = rows;
    t->row_count = row_count;
    t->states = malloc(STATES_BYTES);
    if (t->states == NULL)
        return error_errno(e, ENOMEM, "streams");
    memset(t->states, 0, STATES_BYTES);
    return 0;
}

static struct stream *find(struct streams *t, uint32_t id)
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

/* All zero; NULL: no memory. */
static void *take_state(const struct stream *s, const struct stream_op *op)
{
    if (op->state_bytes > STREAM_STATE_BYTES)
        return calloc(1, op->state_bytes);
    return memset(s->streams->states + (size_t)(s - s->streams->slots) * STREAM_STATE_BYTES, 0,
                  op->state_bytes);
}

static void free_slot(struct stream *s)
{
    struct streams *t = s->streams;

    if (s->op != NULL) {
        s->op->fini(s);
        if (s->op->state_bytes > STREAM_STATE_BYTES)
            free(s->state);
    }
    buffer_fini(&s->request);
    s->id = 0;
    while (t->used_count > 0 && t->slots[t->used_count - 1].id == 0)
        t->used_count--;
}

void streams_fini(struct streams *t)
{
    for (unsigned i = t->used_count; i-- > 0;) {
        if (t->slots[i].id != 0)
            free_slot(&t->slots[i]);
    }
    free(t->states);
    t->states = NULL;
}

/* --- What operations say and do ---------------------------------------------------------------
 */

int stream_watch(struct stream *s, unsigned tag, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events,
                                .data.u64 = (uint64_t)s->id * STREAM_EVENT_MIN + tag};

    assert(tag < STREAM_EVENT_MIN);
    return epoll_ctl(s->streams->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

void stream_unwatch(struct stream *s, int fd)
{
    (void)epoll_ctl(s->streams->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static void put_end(struct streams *t, uint32_t id, uint32_t status, const char *text,
                    const void *fields, size_t size)
{
    uint8_t bytes[END_BYTES_MAX];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u32(&w, status);
    wire_put_string(&w, text, strlen(text));
    wire_put_bytes(&w, fields, size);
    assert(!w.bad);
    port_put(t->port, id, CHANNEL_END, CHANNEL_LANE_IN, bytes, w.used);
}

void stream_end(struct stream *s, const void *fields, size_t size)
{
    put_end(s->streams, s->id, 0, "", fields, size);
    free_slot(s);
}

void stream_fail(struct stream *s, int status, const char *format, ...)
{
    char text[CHANNEL_TEXT_MAX];
    va_list ap;

    assert(status > 0);
    va_start(ap, format);
    (void)vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    put_end(s->streams, s->id, (uint32_t)status, text, NULL, 0);
    free_slot(s);
}

void stream_receive_done(struct stream *s, size_t size)
{
    uint8_t bytes[4];
    struct wire_writer w;

    s->receive_due += (uint32_t)size;
    if (s->receive_due < GRANT_BYTES_MIN || s->receive_eof)
        return;
    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u32(&w, s->receive_due);
    port_put(s->streams->port, s->id, CHANNEL_CREDIT, CHANNEL_LANE_IN, bytes, sizeof(bytes));
    s->receive_credit += s->receive_due;
    s->receive_due = 0;
}

void stream_info(struct stream *s, const void *payload, size_t size)
{
    port_put(s->streams->port, s->id, CHANNEL_INFO, CHANNEL_LANE_IN, payload, size);
}

void stream_eof(struct stream *s, enum channel_lane lane)
{
    port_put(s->streams->port, s->id, CHANNEL_EOF, lane, NULL, 0);
}

uint8_t *stream_data_begin(struct stream *s, enum channel_lane lane, size_t wanted,
                           size_t *ret_size)
{
    uint64_t room =
        s->send_credit[lane] < CHANNEL_PAYLOAD_MAX ? s->send_credit[lane] : CHANNEL_PAYLOAD_MAX;
    size_t size = wanted < room ? wanted : (size_t)room;

    if (size == 0 || !port_has_room(s->streams->port))
        return NULL;
    *ret_size = size;
    return port_data_begin(s->streams->port, 0, size);
}

uint8_t *stream_data_begin_first(struct stream *s, size_t info_size, size_t size)
{
    return port_data_begin(s->streams->port, CHANNEL_HEADER_BYTES + info_size, size);
}

void stream_data_end(struct stream *s, enum channel_lane lane, size_t size)
{
    assert(size <= s->send_credit[lane]);
    port_data_end(s->streams->port, s->id, lane, size);
    s->send_credit[lane] -= size;
}

/* --- What the host says ------------------------------------------------------------------------
 */

static const struct stream_row *find_row(const struct streams *t, uint16_t op)
{
    for (size_t i = 0; i < t->row_count; i++) {
        if (t->rows[i].op->op == op)
            return &t->rows[i];
    }
    return NULL;
}

static int start_request(struct stream *s, const uint8_t *bytes, size_t size, struct error *e)
{
    struct wire_reader reader;

    wire_reader_init(&reader, bytes, size);
    uint16_t op = wire_get_u16(&reader);
    const struct stream_row *row = reader.bad ? NULL : find_row(s->streams, op);
    if (row == NULL)
        return error_set(e, ERR_BAD_REQUEST, "a stream asks for the unknown operation %u", op);
    void *state = take_state(s, row->op);
    if (state == NULL) {
        stream_fail(s, ENOMEM, "%s", strerror(ENOMEM));
        return 0;
    }
    s->op = row->op;
    s->shared = row->shared;
    s->state = state;
    if (s->op->start(s, &reader) < 0)
        return error_set(e, ERR_BAD_REQUEST, "stream's request %u is malformed", op);
    return 0;
}

static int handle_open(struct streams *t, const struct channel_header *h, const uint8_t *payload,
                       struct error *e)
{
    struct stream *s = find(t, h->stream);
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
            put_end(t, h->stream, EMFILE, "too many streams are open", NULL, 0);
            return 0;
        }
        *s = (struct stream){.id = h->stream,
                             .streams = t,
                             .request = BUFFER_INIT(CHANNEL_OPEN_MAX),
                             .receive_credit = CHANNEL_WINDOW_BYTES};
        for (unsigned lane = 0; lane < CHANNEL_LANE_COUNT; lane++)
            s->send_credit[lane] = CHANNEL_WINDOW_BYTES;
        /* The usual case: the whole request in one frame, used where it lies. */
        if (!more)
            return start_request(s, payload, h->length, e);
    }
    if (buffer_append(&s->request, payload, h->length) < 0) {
        stream_fail(s, E2BIG, "the request is larger than %u bytes", (unsigned)CHANNEL_OPEN_MAX);
        return 0;
    }
    if (more)
        return 0;
    int result = start_request(s, buffer_bytes(&s->request), s->request.size, e);
    s = find(t, h->stream);
    if (s != NULL)
        buffer_fini(&s->request);
    return result;
}

static int handle_input(struct stream *s, const struct channel_header *h, const uint8_t *payload,
                        struct error *e)
{
    bool is_eof = h->type == CHANNEL_EOF;

    if (h->lane != CHANNEL_LANE_IN || s->receive_eof ||
        (is_eof ? s->op->eof == NULL : s->op->data == NULL))
        return error_set(e, ERR_BAD_REQUEST, "stream %u takes no input on lane %u", h->stream,
                         h->lane);
    if (!is_eof && h->length > s->receive_credit)
        return error_set(e, ERR_BAD_REQUEST, "stream %u: DATA past the credit", h->stream);
    s->receive_credit -= h->length; /* an EOF has no payload */
    s->receive_eof = is_eof;
    if ((is_eof ? s->op->eof(s) : s->op->data(s, payload, h->length)) < 0)
        return error_set(e, ERR_BAD_REQUEST, "stream %u takes no input", h->stream);
    return 0;
}

static uint32_t payload_u32(const struct channel_header *h, const uint8_t *payload)
{
    struct wire_reader reader;

    wire_reader_init(&reader, payload, h->length);
    return wire_get_u32(&reader);
}

static int handle_resize(struct stream *s, const struct channel_header *h, const uint8_t *payload,
                         struct error *e)
{
    struct wire_reader reader;

    wire_reader_init(&reader, payload, h->length);
    uint16_t rows = wire_get_u16(&reader);
    uint16_t columns = wire_get_u16(&reader);
    if (s->op->resize == NULL || s->op->resize(s, rows, columns) < 0)
        return error_set(e, ERR_BAD_REQUEST, "stream %u has no terminal", h->stream);
    return 0;
}

static void handle_reset(struct stream *s)
{
    if (s->op != NULL && s->op->reset != NULL)
        s->op->reset(s);
    else
        stream_fail(s, ECANCELED, "the host gave up");
}

int streams_frame(struct streams *t, const struct channel_header *h, const uint8_t *payload,
                  struct error *e)
{
    if (h->type == CHANNEL_OPEN)
        return handle_open(t, h, payload, e);
    if (h->type == CHANNEL_INFO || h->type == CHANNEL_END)
        return error_set(e, ERR_BAD_REQUEST, "the host sent a frame of type %u", h->type);

    struct stream *s = find(t, h->stream);
    if (s == NULL && h->stream <= t->id_last)
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
            s->op->signal(s, (enum channel_signal_scope)h->lane, payload_u32(h, payload));
        return 0;
    case CHANNEL_RESIZE:
        return handle_resize(s, h, payload, e);
    case CHANNEL_RESET:
        handle_reset(s);
        return 0;
    default:
        return handle_input(s, h, payload, e);
    }
}

/* --- Turns of the loop -------------------------------------------------------------------------
 */

bool streams_pump(struct streams *t)
{
    bool more = false;

    /* The slots that are passed over for want of room come first in the next round. */
    for (unsigned i = 0, count = t->used_count; i < count; i++) {
        unsigned slot = (t->pump_next + i) % count;
        struct stream *s = &t->slots[slot];

        if (!port_has_room(t->port)) {
            t->pump_next = slot;
            return true;
        }
        if (s->id != 0 && s->op != NULL && s->op->pump != NULL && s->op->pump(s))
            more = true;
    }
    return more;
}

void streams_event(struct streams *t, uint64_t data, uint32_t events)
{
    /* An event of the same batch may have ended the stream. */
    struct stream *s = find(t, (uint32_t)(data / STREAM_EVENT_MIN));

    if (s != NULL)
        s->op->event(s, (unsigned)(data % STREAM_EVENT_MIN), events);
}

void streams_child(struct streams *t, pid_t pid, int status, const struct rusage *usage)
{
    for (unsigned i = 0; i < t->used_count; i++) {
        struct stream *s = &t->slots[i];

        if (s->id != 0 && s->op != NULL && s->op->child != NULL &&
            s->op->child(s, pid, status, usage))
            return;
    }
}

uint64_t streams_next_wake_ns(const struct streams *t)
{
    uint64_t first_ns = UINT64_MAX;

    for (unsigned i = 0; i < t->used_count; i++) {
        const struct stream *s = &t->slots[i];

        if (s->id != 0 && s->wake_at_ns != 0 && s->wake_at_ns < first_ns)
            first_ns = s->wake_at_ns;
    }
    return first_ns;
}

void streams_wake(struct streams *t)
{
    uint64_t now_ns = 0;

    for (unsigned i = 0; i < t->used_count; i++) {
        struct stream *s = &t->slots[i];

        if (s->id == 0 || s->wake_at_ns == 0)
            continue;
        if (now_ns == 0)
            now_ns = clock_mono_ns();
        if (s->wake_at_ns <= now_ns) {
            s->wake_at_ns = 0;
            s->op->wake(s);
        }
    }
}
