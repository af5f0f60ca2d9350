/* SEARCH: what has no room on the walk's stack, or in the reply, makes the result one that says
 * "there is more". */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "guest/channel/service.h"
#include "guest/files/file_path.h"
#include "guest/files/glob.h"
#include "guest/files/walk.h"

struct file_search {
    struct walk walk;
    char base[CHANNEL_PATH_MAX]; /* without a slash at its end: "" is the root */
    char pattern[FILE_PATTERN_MAX];
    uint32_t limit;
    uint32_t count;
    bool is_more;
};

/* The next directory; 0, or an errno that is worth giving up for. What has gone, or is no place to
 * enter, is passed over. */
static int enter_next(struct file_search *f, struct records *r)
{
    int entered = walk_enter(&f->walk);

    if (entered == 0)
        r->is_done = true;
    else if (entered < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
        return errno;
    else if (entered < 0 && errno == ENAMETOOLONG)
        f->is_more = true;
    return 0;
}

/* One name; 0, or -1 with errno. */
static int judge(struct file_search *f, struct records *r, const struct dir_entry *entry)
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
    if (f->count == f->limit || records_are_full(r)) {
        f->is_more = true;
        r->is_done = true;
        return 0;
    }
    if (records_put(r, f->walk.dir.fd, entry->name, AT_SYMLINK_NOFOLLOW, whole) == 0)
        f->count++;
    else if (errno != ENOENT)
        return -1;
    return 0;
}

/* 0, or an errno. */
static int search_step(struct file_search *f, struct records *r)
{
    struct dir_entry entry;
    uint64_t begin_ns = clock_mono_ns();

    while (!r->is_done && records_have_room(r) && !records_step_is_over(begin_ns)) {
        if (f->walk.dir.fd >= 0 && dir_next(&f->walk.dir, &entry)) {
            if (judge(f, r, &entry) < 0)
                return errno;
        } else if (f->walk.dir.fd < 0) {
            int error = enter_next(f, r);
            if (error != 0)
                return error;
        } else if (dir_fill(&f->walk.dir) <= 0) {
            dir_close(&f->walk.dir);
        }
    }
    r->flags = f->is_more ? CHANNEL_END_MORE : 0;
    return 0;
}

static bool handle_pump(struct service *v, struct stream *s)
{
    struct records *r = &s->query.records;

    if (!r->is_done && records_have_room(r)) {
        int error = search_step(s->query.search, r);
        if (error != 0) {
            stream_fail(v, s, error, "searching: %s", strerror(error));
            return false;
        }
    }
    return records_pump(v, s);
}

static int handle_start(struct service *v, struct stream *s, struct wire_reader *r)
{
    char path[CHANNEL_PATH_MAX];
    uint32_t limit = wire_get_u32(r);
    int path_result = file_path_get(r, path);
    size_t pattern_size = 0;
    const char *pattern = wire_get_string(r, FILE_PATTERN_MAX - 1, &pattern_size);

    s->query = (struct file_query){0};
    if (path_result < 0 || pattern == NULL || r->left != 0 || limit < 1 ||
        limit > FILE_SEARCH_LIMIT_MAX)
        return -1;
    FD_AUTO int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct file_search *f = fd < 0 ? NULL : calloc(1, sizeof(*f));
    if (f == NULL) {
        int error = fd < 0 ? errno : ENOMEM;
        stream_fail(v, s, error, "%s: %s", path, strerror(error));
        return 0;
    }
    records_init(v, s);
    s->query.search = f;
    size_t size = strlen(path);
    while (size > 0 && path[size - 1] == '/')
        size--;
    memcpy(f->base, path, size);
    memcpy(f->pattern, pattern, pattern_size);
    f->limit = limit;
    if (walk_init(&f->walk, fd_take(&fd)) < 0)
        stream_fail(v, s, ENOMEM, "%s: %s", path, strerror(ENOMEM));
    return 0;
}

static void handle_reset(struct service *v, struct stream *s)
{
    stream_fail(v, s, ECANCELED, "the host gave up");
}

static void handle_fini(struct service *v, struct stream *s)
{
    struct file_search *f = s->query.search;

    (void)v;
    records_fini(&s->query.records);
    if (f == NULL)
        return;
    walk_fini(&f->walk);
    free(f);
}

const struct stream_op file_search_op = {
    .op = CHANNEL_OP_SEARCH,
    .start = handle_start,
    .reset = handle_reset,
    .pump = handle_pump,
    .fini = handle_fini,
};
