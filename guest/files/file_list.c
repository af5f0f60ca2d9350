/*
 * STAT and LIST. A page of a directory is made in two phases: read all names, however many there
 * are, and keep the smallest of those behind `after`, as many as the page has; then look at each.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "guest/channel/records.h"
#include "guest/files/dir.h"
#include "guest/files/file_ops.h"
#include "guest/files/file_path.h"

struct file_list {
    struct records records;
    struct dir dir;
    uint32_t limit;
    uint32_t count;
    uint32_t at; /* the next name to look at, once all are read */
    bool is_read;
    bool is_more;                     /* names behind those that are kept */
    char after[FILE_NAME_BYTES];      /* "": from the start */
    char *names[FILE_LIST_LIMIT_MAX]; /* `count` of them, sorted */
};

/* Keeps a name where it is one of the smallest so far; -1: no memory. */
static int keep_name(struct file_list *l, const char *name)
{
    uint32_t low = 0, high = l->count;

    if (l->after[0] != '\0' && strcmp(name, l->after) <= 0)
        return 0;
    if (l->count == l->limit) {
        l->is_more = true;
        if (strcmp(name, l->names[l->count - 1]) >= 0)
            return 0;
    }
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (strcmp(name, l->names[middle]) < 0)
            high = middle;
        else
            low = middle + 1;
    }
    char *copy = strdup(name);
    if (copy == NULL)
        return -1;
    if (l->count == l->limit)
        free(l->names[--l->count]);
    memmove(&l->names[low + 1], &l->names[low], (l->count - low) * sizeof(l->names[0]));
    l->names[low] = copy;
    l->count++;
    return 0;
}

static void drop_names(struct file_list *l)
{
    while (l->count > 0)
        free(l->names[--l->count]);
}

/* One piece of the directory; 0, or an errno. */
static int read_step(struct file_list *l)
{
    struct dir_entry entry;
    int result = dir_fill(&l->dir);

    if (result < 0)
        return errno;
    l->is_read = result == 0;
    l->at = 0;
    while (dir_next(&l->dir, &entry)) {
        if (strlen(entry.name) < FILE_NAME_BYTES && keep_name(l, entry.name) < 0)
            return ENOMEM;
    }
    return 0;
}

/* Some records; 0, or an errno. */
static int look_step(struct file_list *l)
{
    struct records *records = &l->records;

    for (uint64_t begin_ns = clock_mono_ns(); l->at < l->count;) {
        const char *name = l->names[l->at];

        if (!records_have_room(records) || stream_step_is_over(begin_ns))
            return 0;
        if (records_are_full(records)) {
            l->is_more = true;
            l->at = l->count;
            break;
        }
        /* Gone since its name was read. */
        if (records_put(records, l->dir.fd, name, AT_SYMLINK_NOFOLLOW, name) < 0 && errno != ENOENT)
            return errno;
        l->at++;
    }
    if (l->at < l->count)
        return 0;
    /* Nothing is left of this page's names, but there are others: the host could not go on from an
     * empty page. */
    if (l->is_more && records->made == 0) {
        memcpy(l->after, l->names[l->count - 1], strlen(l->names[l->count - 1]) + 1);
        drop_names(l);
        dir_rewind(&l->dir);
        l->is_read = l->is_more = false;
        return 0;
    }
    records->is_done = true;
    records->flags = l->is_more ? CHANNEL_END_MORE : 0;
    return 0;
}

static bool handle_list_pump(struct stream *s)
{
    struct file_list *l = s->state;

    if (!l->records.is_done && records_have_room(&l->records)) {
        int error = l->is_read ? look_step(l) : read_step(l);
        if (error != 0) {
            stream_fail(s, error, "reading the directory: %s", strerror(error));
            return false;
        }
    }
    return records_pump(s, &l->records);
}

static int handle_list_start(struct stream *s, struct wire_reader *reader)
{
    struct file_list *l = s->state;
    char path[CHANNEL_PATH_MAX];
    size_t after_size = 0;

    dir_init(&l->dir);
    l->limit = wire_get_u32(reader);
    const char *after = wire_get_string(reader, FILE_NAME_BYTES - 1, &after_size);
    if (after == NULL || file_path_get(reader, path) < 0 || reader->left != 0 || l->limit < 1 ||
        l->limit > FILE_LIST_LIMIT_MAX)
        return -1;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        stream_fail(s, errno, "%s: %s", path, strerror(errno));
        return 0;
    }
    records_init(&l->records);
    stream_info(s, NULL, 0);
    memcpy(l->after, after, after_size);
    dir_set(&l->dir, fd);
    return 0;
}

static void handle_list_fini(struct stream *s)
{
    struct file_list *l = s->state;

    records_fini(&l->records);
    drop_names(l);
    dir_close(&l->dir);
}

const struct stream_op file_list_op = {
    .op = CHANNEL_OP_LIST,
    .state_bytes = sizeof(struct file_list),
    .start = handle_list_start,
    .pump = handle_list_pump,
    .fini = handle_list_fini,
};

static int handle_stat_start(struct stream *s, struct wire_reader *reader)
{
    struct records *records = s->state;
    uint32_t flags = wire_get_u32(reader);
    char path[CHANNEL_PATH_MAX];

    if (file_path_get(reader, path) < 0 || reader->left != 0 || (flags & ~CHANNEL_STAT_FOLLOW) != 0)
        return -1;
    records_init(records);
    stream_info(s, NULL, 0);
    if (records_put(records, AT_FDCWD, path,
                    (flags & CHANNEL_STAT_FOLLOW) != 0 ? 0 : AT_SYMLINK_NOFOLLOW, "") < 0)
        stream_fail(s, errno, "%s: %s", path, strerror(errno));
    else
        records->is_done = true;
    return 0;
}

static bool handle_stat_pump(struct stream *s)
{
    return records_pump(s, s->state);
}

static void handle_stat_fini(struct stream *s)
{
    records_fini(s->state);
}

_Static_assert(sizeof(struct records) <= STREAM_STATE_BYTES, "a stat allocates little");

const struct stream_op file_stat_op = {
    .op = CHANNEL_OP_STAT,
    .state_bytes = sizeof(struct records),
    .start = handle_stat_start,
    .pump = handle_stat_pump,
    .fini = handle_stat_fini,
};
