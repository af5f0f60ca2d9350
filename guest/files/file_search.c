/* SEARCH: what has no room on the walk's stack, or in the reply, makes the result one that says
 * "there is more". */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "guest/channel/records.h"
#include "guest/files/file_ops.h"
#include "guest/files/file_path.h"
#include "guest/files/glob.h"
#include "guest/files/walk.h"

struct file_search {
    struct records records;
    int base_fd;
    struct walk walk;
    char base[CHANNEL_PATH_MAX]; /* without a slash at its end: "" is the root */
    char pattern[FILE_PATTERN_MAX];
    uint32_t limit;
    uint32_t count;
    bool is_more;
};

/* The next directory; 0, or an errno that is worth giving up for. What has gone, or is no place to
 * enter, is passed over. */
static int enter_next(struct file_search *f)
{
    int entered = walk_enter(&f->walk);

    if (entered == 0)
        f->records.is_done = true;
    else if (entered < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
        return errno;
    else if (entered < 0 && errno == ENAMETOOLONG)
        f->is_more = true;
    return 0;
}

/* One name; 0, or -1 with errno. */
static int judge(struct file_search *f, const struct dir_entry *entry)
{
    char path[CHANNEL_PATH_MAX], whole[CHANNEL_PATH_MAX];

    if (walk_path(&f->walk, entry->name, path) < 0 ||
        snprintf(whole, sizeof(whole), "%s/%s", f->base, path) >= (int)sizeof(whole)) {
        f->is_more = true;
        return 0;
    }
    if ((entry->type == DT_DIR || entry->type == DT_UNKNOWN) && glob_leads(f->pattern, path) &&
        walk_push(&f->walk, path) < 0)
        f->is_more = true;
    if (!glob_match(f->pattern, path))
        return 0;
    if (f->count == f->limit || records_are_full(&f->records)) {
        f->is_more = true;
        f->records.is_done = true;
        return 0;
    }
    if (records_put(&f->records, f->walk.dir.fd, entry->name, AT_SYMLINK_NOFOLLOW, whole) == 0)
        f->count++;
    else if (errno != ENOENT)
        return -1;
    return 0;
}

/* 0, or an errno. */
static int search_step(struct file_search *f)
{
    struct dir_entry entry;
    uint64_t begin_ns = clock_mono_ns();

    while (!f->records.is_done && records_have_room(&f->records) &&
           !stream_step_is_over(begin_ns)) {
        if (f->walk.dir.fd >= 0 && dir_next(&f->walk.dir, &entry)) {
            if (judge(f, &entry) < 0)
                return errno;
        } else if (f->walk.dir.fd < 0) {
            int error = enter_next(f);
            if (error != 0)
                return error;
        } else if (dir_fill(&f->walk.dir) <= 0) {
            dir_close(&f->walk.dir);
        }
    }
    f->records.flags = f->is_more ? CHANNEL_END_MORE : 0;
    return 0;
}

static bool handle_pump(struct stream *s)
{
    struct file_search *f = s->state;

    if (!f->records.is_done && records_have_room(&f->records)) {
        int error = search_step(f);
        if (error != 0) {
            stream_fail(s, error, "searching: %s", strerror(error));
            return false;
        }
    }
    return records_pump(s, &f->records);
}

static int handle_start(struct stream *s, struct wire_reader *reader)
{
    struct file_search *f = s->state;
    char path[CHANNEL_PATH_MAX];
    size_t pattern_size = 0;

    f->base_fd = -1;
    walk_init(&f->walk);
    f->limit = wire_get_u32(reader);
    int path_result = file_path_get(reader, path);
    const char *pattern = wire_get_string(reader, FILE_PATTERN_MAX - 1, &pattern_size);
    if (path_result < 0 || pattern == NULL || reader->left != 0 || f->limit < 1 ||
        f->limit > FILE_SEARCH_LIMIT_MAX)
        return -1;
    f->base_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->base_fd < 0) {
        stream_fail(s, errno, "%s: %s", path, strerror(errno));
        return 0;
    }
    records_init(&f->records);
    stream_info(s, NULL, 0);
    size_t size = strlen(path);
    while (size > 0 && path[size - 1] == '/')
        size--;
    memcpy(f->base, path, size);
    memcpy(f->pattern, pattern, pattern_size);
    if (walk_begin(&f->walk, f->base_fd) < 0)
        stream_fail(s, ENOMEM, "%s: %s", path, strerror(ENOMEM));
    return 0;
}

static void handle_fini(struct stream *s)
{
    struct file_search *f = s->state;

    records_fini(&f->records);
    walk_fini(&f->walk);
    fd_close(&f->base_fd);
}

const struct stream_op file_search_op = {
    .op = CHANNEL_OP_SEARCH,
    .state_bytes = sizeof(struct file_search),
    .start = handle_start,
    .pump = handle_pump,
    .fini = handle_fini,
};
