#include "guest/channel/records.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/wire.h"
#include "guest/channel/service.h"

/* Where there is room for one record, there is for two: an event may end the wait for another. */
#define OUT_BYTES_MAX (CHANNEL_PAYLOAD_MAX + 2 * RECORD_BYTES_MAX)
/* The host gives up on an operation that is silent for long. */
#define SILENCE_NS_MAX (5 * NS_PER_S)

void records_prepare(struct stream *s)
{
    s->query = (struct file_query){
        .records = {.out = BUFFER_INIT(OUT_BYTES_MAX), .silent_ns = clock_mono_ns()}};
}

void records_start(struct service *v, const struct stream *s)
{
    port_put(&v->port, s->id, CHANNEL_INFO, CHANNEL_LANE_IN, NULL, 0);
}

void records_init(struct service *v, struct stream *s)
{
    records_prepare(s);
    records_start(v, s);
}

void records_fini(struct records *r)
{
    buffer_fini(&r->out);
}

bool records_have_room(const struct records *r)
{
    return r->out.size <= OUT_BYTES_MAX - 2 * RECORD_BYTES_MAX;
}

bool records_are_full(const struct records *r)
{
    /* Two marks of being at work fit behind the last record, whatever comes. */
    return r->made + RECORD_BYTES_MAX + 8 > FILE_RECORDS_BYTES_MAX;
}

uint8_t *records_reserve(struct records *r)
{
    return buffer_reserve(&r->out, RECORD_BYTES_MAX);
}

int records_put(struct records *r, int dir_fd, const char *path, int flags, const char *name)
{
    char target[CHANNEL_PATH_MAX];
    ssize_t target_size = 0;
    struct wire_writer w;
    struct stat st;

    if (fstatat(dir_fd, path, &st, flags) < 0)
        return -1;
    /* It may have become something else meanwhile. */
    if (S_ISLNK(st.st_mode))
        target_size = readlinkat(dir_fd, path, target, sizeof(target) - 1);
    uint8_t *to = records_reserve(r);
    if (to == NULL) {
        errno = ENOMEM;
        return -1;
    }
    wire_writer_init(&w, to, RECORD_BYTES_MAX);
    wire_put_u32(&w, st.st_mode);
    wire_put_u64(&w, (uint64_t)st.st_size);
    wire_put_u32(&w, st.st_uid);
    wire_put_u32(&w, st.st_gid);
    wire_put_u64(&w, (uint64_t)st.st_mtim.tv_sec);
    wire_put_u32(&w, (uint32_t)st.st_mtim.tv_nsec);
    wire_put_string(&w, name, strlen(name));
    wire_put_string(&w, target, target_size > 0 ? (size_t)target_size : 0);
    assert(!w.bad);
    buffer_commit(&r->out, w.used);
    r->made += w.used;
    return 0;
}

void records_put_event(struct records *r, enum channel_event kind, bool is_directory,
                       const char *path, const char *from)
{
    uint8_t *to = records_reserve(r);
    struct wire_writer w;

    assert(to != NULL); /* all of it was made at the start */
    wire_writer_init(&w, to, RECORD_BYTES_MAX);
    wire_put_u32(&w, kind);
    wire_put_u32(&w, is_directory);
    wire_put_string(&w, path, strlen(path));
    wire_put_string(&w, from, strlen(from));
    buffer_commit(&r->out, w.used);
}

static void put_mark(struct records *r)
{
    static const uint8_t mark[4];

    if (r->made + sizeof(mark) <= FILE_RECORDS_BYTES_MAX &&
        buffer_append(&r->out, mark, sizeof(mark)) == 0)
        r->made += sizeof(mark);
}

static void end(struct service *v, struct stream *s)
{
    uint8_t bytes[12];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u64(&w, s->query.records.sent);
    wire_put_u32(&w, s->query.records.flags);
    port_put(&v->port, s->id, CHANNEL_EOF, CHANNEL_LANE_IN, NULL, 0);
    stream_end(v, s, bytes, sizeof(bytes));
}

void records_send(struct service *v, struct stream *s)
{
    struct records *r = &s->query.records;
    size_t size = stream_send_room(s, CHANNEL_LANE_IN, r->out.size);

    if (size == 0 || !port_has_room(&v->port))
        return;
    memcpy(port_data_begin(&v->port, size), buffer_bytes(&r->out), size);
    port_data_end(&v->port, s->id, CHANNEL_LANE_IN, size);
    buffer_consume(&r->out, size);
    s->send_credit[CHANNEL_LANE_IN] -= size;
    r->sent += size;
    r->silent_ns = clock_mono_ns();
}

bool records_pump(struct service *v, struct stream *s)
{
    struct records *r = &s->query.records;

    /* Few large frames: a frame costs the same whatever is in it. */
    if (!r->is_done && records_have_room(r)) {
        if (clock_mono_ns() - r->silent_ns < SILENCE_NS_MAX)
            return true;
        if (r->out.size == 0)
            put_mark(r);
    }
    records_send(v, s);
    if (r->is_done && r->out.size == 0) {
        end(v, s);
        return false;
    }
    return r->is_done ? s->send_credit[CHANNEL_LANE_IN] > 0 : records_have_room(r);
}
