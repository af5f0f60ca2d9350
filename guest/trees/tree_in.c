/* TREE_IN: entries as they come, put in their places in short steps. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/tree.h"
#include "guest/channel/service.h"
#include "guest/files/file_path.h"
#include "guest/trees/tree_place.h"

/* The host gives up on an operation that is silent for long. */
#define SILENCE_NS_MAX (5 * NS_PER_S)
#define WRITE_MAX      (32 * KIB) /* one step may write that much at once */
#define END_BYTES      40u

struct tree_in {
    struct buffer in; /* what came and is yet to be looked at */
    struct tree_reader reader;
    struct tree_place *place;
    char at[CHANNEL_TEXT_MAX / 2]; /* the entry's path, for error texts */
    uint64_t said_ns;              /* when the host last heard of us */
    uint64_t taken;                /* bytes */
    uint64_t files, directories, symlinks;
    uint64_t bytes; /* of files */
    uint64_t file_bytes;
};

static int handle_start(struct service *v, struct stream *s, struct wire_reader *r)
{
    char path[CHANNEL_PATH_MAX];

    s->tree_in = NULL;
    if (file_path_get(r, path) < 0 || r->left != 0)
        return -1;
    int fd = file_path_open_made(path);
    struct tree_in *t = fd < 0 ? NULL : calloc(1, sizeof(*t));
    if (t != NULL && (t->place = tree_place_new(fd_take(&fd), s->id)) == NULL) {
        free(t);
        t = NULL;
    }
    if (t == NULL) {
        int error = errno;
        fd_close(&fd);
        stream_fail(v, s, error, "%s: %s", path, strerror(error));
        return 0;
    }
    t->in = (struct buffer)BUFFER_INIT(CHANNEL_WINDOW_BYTES);
    tree_reader_init(&t->reader);
    t->said_ns = clock_mono_ns();
    s->tree_in = t;
    port_put(&v->port, s->id, CHANNEL_INFO, CHANNEL_LANE_IN, NULL, 0);
    return 0;
}

/* The credit keeps what waits within the window. */
static int handle_data(struct service *v, struct stream *s, const uint8_t *bytes, size_t size)
{
    if (buffer_append(&s->tree_in->in, bytes, size) < 0)
        stream_fail(v, s, ENOMEM, "%s", strerror(ENOMEM));
    return 0;
}

/* The rest is the pump's. */
static int handle_eof(struct service *v, struct stream *s)
{
    (void)v;
    (void)s;
    return 0;
}

static uint64_t entry_count(const struct tree_in *t)
{
    return t->files + t->directories + t->symlinks;
}

static int end_file(struct tree_in *t)
{
    int error = tree_place_end_file(t->place);

    if (error != 0)
        return error;
    t->files++;
    t->bytes += t->file_bytes;
    return 0;
}

static int take_entry(struct tree_in *t, const struct tree_entry *entry)
{
    if (entry->type == TREE_SKIPPED)
        return EINVAL;
    (void)snprintf(t->at, sizeof(t->at), "%.200s", entry->path);
    int error = tree_place_entry(t->place, entry);
    if (error != 0)
        return error;
    if (entry->type == TREE_FILE) {
        t->file_bytes = entry->size;
        return entry->size == 0 ? end_file(t) : 0;
    }
    t->directories += entry->type == TREE_DIRECTORY;
    t->symlinks += entry->type == TREE_SYMLINK;
    t->files += entry->type == TREE_HARDLINK;
    return 0;
}

/* One piece of what waits; *ret_used says how much. Returns 0, or an errno. */
static int take_piece(struct tree_in *t, size_t *ret_used)
{
    const uint8_t *bytes = buffer_bytes(&t->in);
    size_t size = t->in.size < WRITE_MAX ? t->in.size : WRITE_MAX;
    struct error e = ERROR_INIT;
    struct tree_entry entry;
    enum tree_event event;

    if (tree_reader_next(&t->reader, bytes, size, ret_used, &event, &entry, &e) < 0) {
        (void)snprintf(t->at, sizeof(t->at), "%.200s", e.message);
        return EINVAL;
    }
    if (event == TREE_ENTRY)
        return take_entry(t, &entry);
    if (event != TREE_CONTENT)
        return 0;
    int error = tree_place_content(t->place, bytes, *ret_used);
    if (error == 0 && tree_reader_is_between(&t->reader))
        error = end_file(t);
    return error;
}

static void end(struct service *v, struct stream *s)
{
    struct tree_in *t = s->tree_in;
    uint8_t bytes[END_BYTES];
    struct wire_writer w;

    tree_place_finish(t->place);
    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u64(&w, t->taken);
    wire_put_u64(&w, t->files);
    wire_put_u64(&w, t->directories);
    wire_put_u64(&w, t->symlinks);
    wire_put_u64(&w, t->bytes);
    port_put(&v->port, s->id, CHANNEL_EOF, CHANNEL_LANE_IN, NULL, 0);
    stream_end(v, s, bytes, sizeof(bytes));
}

/* A sign of life, where there was none for a while and the host's credit lets us. */
static void say_at_work(struct service *v, struct stream *s)
{
    struct tree_in *t = s->tree_in;

    if (clock_mono_ns() - t->said_ns < SILENCE_NS_MAX || s->send_credit[CHANNEL_LANE_IN] == 0 ||
        !port_has_room(&v->port))
        return;
    port_data_begin(&v->port, 1)[0] = TREE_MARK;
    port_data_end(&v->port, s->id, CHANNEL_LANE_IN, 1);
    s->send_credit[CHANNEL_LANE_IN]--;
    t->said_ns = clock_mono_ns();
}

static bool handle_pump(struct service *v, struct stream *s)
{
    struct tree_in *t = s->tree_in;

    for (uint64_t begin_ns = clock_mono_ns(); t->in.size > 0 && !records_step_is_over(begin_ns);) {
        size_t used = 0;
        int error = take_piece(t, &used);

        if (error != 0) {
            /* For what the kernel has a word that is not of this place. */
            const char *why = error == ELOOP   ? "leads through a symbolic link"
                              : error == EXDEV ? "leads out of the directory"
                                               : strerror(error);
            stream_fail(v, s, error, "%llu entries were unpacked, then %.120s: %s",
                        (unsigned long long)entry_count(t), t->at, why);
            return false;
        }
        buffer_consume(&t->in, used);
        t->taken += used;
        stream_receive_done(v, s, used);
    }
    if (t->in.size > 0) {
        say_at_work(v, s);
        return true;
    }
    t->said_ns = clock_mono_ns(); /* it is the host's turn */
    if (s->receive_eof)
        end(v, s);
    return false;
}

static void handle_reset(struct service *v, struct stream *s)
{
    stream_fail(v, s, ECANCELED, "the host gave up");
}

static void handle_fini(struct service *v, struct stream *s)
{
    struct tree_in *t = s->tree_in;

    (void)v;
    if (t == NULL)
        return;
    tree_place_free(t->place);
    buffer_fini(&t->in);
    free(t);
}

const struct stream_op tree_in_op = {
    .op = CHANNEL_OP_TREE_IN,
    .start = handle_start,
    .data = handle_data,
    .eof = handle_eof,
    .reset = handle_reset,
    .pump = handle_pump,
    .fini = handle_fini,
};
