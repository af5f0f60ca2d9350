#include "guest/channel/records.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/wire.h"

/* Where there is room for one record, there is for two: an event may end the wait for another. */
#define OUT_BYTES_MAX (CHANNEL_PAYLOAD_MAX + 2 * RECORD_BYTES_MAX)

void records_init(struct records *records)
{
    *records = (struct records){.out = BUFFER_INIT(OUT_BYTES_MAX), .silent_ns = clock_mono_ns()};
}

int records_init_events(struct records *records)
{
    records_init(records);
    return buffer_reserve(&records->out, OUT_BYTES_MAX) == NULL ? -1 : 0;
}

void records_fini(struct records *records)
{
    buffer_fini(&records->out);
}

bool records_have_room(const struct records *records)
{
    return records->out.size <= OUT_BYTES_MAX - 2 * RECORD_BYTES_MAX;
}

bool records_are_full(const struct records *records)
{
    /* Two marks of being at work fit behind the last record, whatever comes. */
    return records->made + RECORD_BYTES_MAX + 8 > FILE_RECORDS_BYTES_MAX;
}

/* Room for one record's bytes, of which buffer_commit() takes what is used; NULL: no memory. */
static uint8_t *reserve(struct records *records)
{
    return buffer_reserve(&records->out, RECORD_BYTES_MAX);
}

int records_put(struct records *records, int dir_fd, const char *path, int flags, const char *name)
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
    uint8_t *to = reserve(records);
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
    buffer_commit(&records->out, w.used);
    records->made += w.used;
    return 0;
}

void records_put_event(struct records *records, enum channel_event kind, bool is_directory,
                       const char *path, const char *from)
{
    uint8_t *to = reserve(records);
    struct wire_writer w;

    assert(to != NULL);
    wire_writer_init(&w, to, RECORD_BYTES_MAX);
    wire_put_u32(&w, kind);
    wire_put_u32(&w, is_directory);
    wire_put_string(&w, path, strlen(path));
    wire_put_string(&w, from, strlen(from));
    assert(!w.bad);
    buffer_commit(&records->out, w.used);
    records->made += w.used;
}

static void put_mark(struct records *records)
{
    static const uint8_t mark[4];

    if (records->made + sizeof(mark) <= FILE_RECORDS_BYTES_MAX &&
        buffer_append(&records->out, mark, sizeof(mark)) == 0)
        records->made += sizeof(mark);
}

static void end(struct stream *s, const struct records *records)
{
    uint8_t bytes[12];
    struct wire_writer w;

    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u64(&w, records->sent);
    wire_put_u32(&w, records->flags);
    stream_eof(s, CHANNEL_LANE_IN);
    stream_end(s, bytes, sizeof(bytes));
}

void records_send(struct stream *s, struct records *records)
{
    size_t size;
    uint8_t *to = stream_data_begin(s, CHANNEL_LANE_IN, records->out.size, &size);

    if (to == NULL)
        return;
    memcpy(to, buffer_bytes(&records->out), size);
    stream_data_end(s, CHANNEL_LANE_IN, size);
    buffer_consume(&records->out, size);
    records->sent += size;
    records->silent_ns = clock_mono_ns();
}

bool records_pump(struct stream *s, struct records *records)
{
    /* Few large frames: a frame costs the same whatever is in it. */
    if (!records->is_done && records_have_room(records)) {
        if (clock_mono_ns() - records->silent_ns < STREAM_SILENCE_NS_MAX)
            return true;
        if (records->out.size == 0)
            put_mark(records);
    }
    records_send(s, records);
    if (records->is_done && records->out.size == 0) {
        end(s, records);
        return false;
    }
    return records->is_done ? s->send_credit[CHANNEL_LANE_IN] > 0 : records_have_room(records);
}
