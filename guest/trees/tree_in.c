/* TREE_IN: entries as they come, put in their places in short steps. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/tree.h"
#include "guest/files/file_path.h"
#include "guest/trees/tree_ops.h"
#include "guest/trees/tree_place.h"

#define WRITE_MAX (32 * KIB) /* one step may write that much at once */
#define END_BYTES 40u

struct tree_in {
    struct buffer waiting; /* what came and is yet to be looked at */
    struct tree_reader reader;
    struct tree_place *place;
    char at[CHANNEL_TEXT_MAX / 2]; /* the entry's path, for error texts */
    uint64_t said_ns;              /* when the host last heard of us */
    uint64_t taken;                /* bytes */
    uint64_t files, directories, symlinks;
    uint64_t bytes; /* of files */
    uint64_t file_bytes;
};

static int handle_start(struct stream *s, struct wire_reader *reader)
{
    struct tree_in *in = s->state;
    char path[CHANNEL_PATH_MAX];

    in->waiting = (struct buffer)BUFFER_INIT(CHANNEL_WINDOW_BYTES);
    tree_reader_init(&in->reader);
    if (file_path_get(reader, path) < 0 || reader->left != 0)
        return -1;
    int fd = file_path_open_made(path);
    in->place = fd < 0 ? NULL : tree_place_new(fd, s->id);
    if (in->place == NULL) {
        stream_fail(s, errno, "%s: %s", path, strerror(errno));
        return 0;
    }
    in->said_ns = clock_mono_ns();
    stream_info(s, NULL, 0);
    return 0;
}

/* The credit keeps what waits within the window. */
static int handle_data(struct stream *s, const uint8_t *bytes, size_t size)
{
    struct tree_in *in = s->state;

    if (buffer_append(&in->waiting, bytes, size) < 0)
        stream_fail(s, ENOMEM, "%s", strerror(ENOMEM));
    return 0;
}

/* The rest is the pump's. */
static int handle_eof(struct stream *s)
{
    (void)s;
    return 0;
}

static uint64_t entry_count(const struct tree_in *in)
{
    return in->files + in->directories + in->symlinks;
}

static int end_file(struct tree_in *in)
{
    int error = tree_place_end_file(in->place);

    if (error != 0)
        return error;
    in->files++;
    in->bytes += in->file_bytes;
    return 0;
}

static int take_entry(struct tree_in *in, const struct tree_entry *entry)
{
    if (entry->type == TREE_SKIPPED)
        return EINVAL;
    (void)snprintf(in->at, sizeof(in->at), "%.200s", entry->path);
    int error = tree_place_entry(in->place, entry);
    if (error != 0)
        return error;
    if (entry->type == TREE_FILE) {
        in->file_bytes = entry->size;
        return entry->size == 0 ? end_file(in) : 0;
    }
    in->directories += entry->type == TREE_DIRECTORY;
    in->symlinks += entry->type == TREE_SYMLINK;
    in->files += entry->type == TREE_HARDLINK;
    return 0;
}

/* One piece of what waits; *ret_used says how much. Returns 0, or an errno. */
static int take_piece(struct tree_in *in, size_t *ret_used)
{
    const uint8_t *bytes = buffer_bytes(&in->waiting);
    size_t size = in->waiting.size < WRITE_MAX ? in->waiting.size : WRITE_MAX;
    struct error e = ERROR_INIT;
    struct tree_entry entry;
    enum tree_event event;

    if (tree_reader_next(&in->reader, bytes, size, ret_used, &event, &entry, &e) < 0) {
        (void)snprintf(in->at, sizeof(in->at), "%.200s", e.message);
        return EINVAL;
    }
    if (event == TREE_ENTRY)
        return take_entry(in, &entry);
    if (event != TREE_CONTENT)
        return 0;
    int error = tree_place_content(in->place, bytes, *ret_used);
    if (error == 0 && tree_reader_is_between(&in->reader))
        error = end_file(in);
    return error;
}

static void end(struct stream *s)
{
    struct tree_in *in = s->state;
    uint8_t bytes[END_BYTES];
    struct wire_writer w;

    tree_place_finish(in->place);
    wire_writer_init(&w, bytes, sizeof(bytes));
    wire_put_u64(&w, in->taken);
    wire_put_u64(&w, in->files);
    wire_put_u64(&w, in->directories);
    wire_put_u64(&w, in->symlinks);
    wire_put_u64(&w, in->bytes);
    stream_eof(s, CHANNEL_LANE_IN);
    stream_end(s, bytes, sizeof(bytes));
}

/* A sign of life, where there was none for a while and the host's credit lets us. */
static void say_at_work(struct stream *s)
{
    struct tree_in *in = s->state;
    size_t size;

    if (clock_mono_ns() - in->said_ns < STREAM_SILENCE_NS_MAX)
        return;
    uint8_t *to = stream_data_begin(s, CHANNEL_LANE_IN, 1, &size);
    if (to == NULL)
        return;
    to[0] = TREE_MARK;
    stream_data_end(s, CHANNEL_LANE_IN, size);
    in->said_ns = clock_mono_ns();
}

static bool handle_pump(struct stream *s)
{
    struct tree_in *in = s->state;

    for (uint64_t begin_ns = clock_mono_ns();
         in->waiting.size > 0 && !stream_step_is_over(begin_ns);) {
        size_t used = 0;
        int error = take_piece(in, &used);

        if (error != 0) {
            /* For what the kernel has a word that is not of this place. */
            const char *why = error == ELOOP   ? "leads through a symbolic link"
                              : error == EXDEV ? "leads out of the directory"
                                               : strerror(error);
            stream_fail(s, error, "%llu entries were unpacked, then %.120s: %s",
                        (unsigned long long)entry_count(in), in->at, why);
            return false;
        }
        buffer_consume(&in->waiting, used);
        in->taken += used;
        stream_receive_done(s, used);
    }
    if (in->waiting.size > 0) {
        say_at_work(s);
        return true;
    }
    in->said_ns = clock_mono_ns(); /* it is the host's turn */
    if (s->receive_eof)
        end(s);
    return false;
}

static void handle_fini(struct stream *s)
{
    struct tree_in *in = s->state;

    tree_place_free(in->place);
    buffer_fini(&in->waiting);
}

const struct stream_op tree_in_op = {
    .op = CHANNEL_OP_TREE_IN,
    .state_bytes = sizeof(struct tree_in),
    .start = handle_start,
    .data = handle_data,
    .eof = handle_eof,
    .pump = handle_pump,
    .fini = handle_fini,
};
