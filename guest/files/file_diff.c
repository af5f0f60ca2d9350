/*
 * DIFF: what has changed of the sandbox's files between two moments. Everything that differs from
 * the template lies in the overlay's upper directory, so two walks over that, which is usually
 * small, are enough; a file that was deleted from the template is a character device 0/0 there
 * (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories").
 *
 * The first walk remembers each path with a stamp of what stat(2) says, the second compares. A file
 * that is changed within the same tick of the kernel's clock as it was before, and keeps its size,
 * goes unnoticed. Directories are told when they come and go, not for what happens in them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/channel/records.h"
#include "guest/files/file_ops.h"
#include "guest/files/layers.h"
#include "guest/files/walk.h"

#define BUCKETS 4096u
#define NO_FILE UINT32_MAX

enum diff_kind { DIFF_FILE, DIFF_DIRECTORY, DIFF_WHITEOUT };

struct diff_file {
    uint32_t path_at; /* in `paths` */
    uint32_t next;    /* of the same bucket */
    uint64_t stamp;
    uint8_t kind;
    bool is_seen; /* by the second walk */
};

enum diff_phase { DIFF_FIRST, DIFF_WAITING, DIFF_SECOND, DIFF_GONE };

struct file_diff {
    struct records records;
    enum diff_phase phase;
    const struct layers *layers; /* shared */
    unsigned root;               /* which tree is walked */
    struct walk walk;
    struct buffer paths;
    struct buffer files; /* struct diff_file */
    uint32_t buckets[BUCKETS];
    uint32_t gone_next; /* DIFF_GONE: the next file to look at */
    bool is_more;       /* more than can be remembered or told */
};

static const struct {
    const char *prefix; /* in the guest's tree */
    bool is_overlay;
} roots[] = {{"", true}, {"/tmp", false}};

static int root_fd(const struct file_diff *f)
{
    return roots[f->root].is_overlay ? f->layers->upper_fd : f->layers->tmp_fd;
}

/* FNV-1a: the tenant can make it collide, and then misses its own changes. */
static uint64_t hash(uint64_t h, const void *data, size_t size)
{
    const uint8_t *bytes = data;

    for (size_t i = 0; i < size; i++)
        h = (h ^ bytes[i]) * UINT64_C(0x100000001b3);
    return h;
}

static uint64_t stamp_of(const struct stat *st, enum diff_kind kind)
{
    const uint64_t parts[] = {st->st_mode,
                              st->st_uid,
                              st->st_gid,
                              st->st_ino,
                              (uint64_t)st->st_size,
                              (uint64_t)st->st_mtim.tv_sec,
                              (uint64_t)st->st_mtim.tv_nsec,
                              (uint64_t)st->st_ctim.tv_sec,
                              (uint64_t)st->st_ctim.tv_nsec};
    size_t count = kind == DIFF_FILE ? sizeof(parts) : 3 * sizeof(parts[0]);

    return kind == DIFF_WHITEOUT ? 0 : hash(UINT64_C(0xcbf29ce484222325), parts, count);
}

static struct diff_file *file_at(const struct file_diff *f, uint32_t index)
{
    return (struct diff_file *)(void *)buffer_bytes(&f->files) + index;
}

static uint32_t *bucket_of(struct file_diff *f, const char *path)
{
    return &f->buckets[hash(UINT64_C(0xcbf29ce484222325), path, strlen(path)) % BUCKETS];
}

static struct diff_file *find(struct file_diff *f, const char *path)
{
    for (uint32_t i = *bucket_of(f, path); i != NO_FILE; i = file_at(f, i)->next) {
        if (strcmp((const char *)buffer_bytes(&f->paths) + file_at(f, i)->path_at, path) == 0)
            return file_at(f, i);
    }
    return NULL;
}

static void remember(struct file_diff *f, const char *path, enum diff_kind kind, uint64_t stamp)
{
    uint32_t *bucket = bucket_of(f, path);
    struct diff_file file = {
        .path_at = (uint32_t)f->paths.size, .next = *bucket, .stamp = stamp, .kind = (uint8_t)kind};
    uint32_t index = (uint32_t)(f->files.size / sizeof(file));

    if (buffer_append(&f->paths, path, strlen(path) + 1) < 0 ||
        buffer_append(&f->files, &file, sizeof(file)) < 0)
        f->is_more = true;
    else
        *bucket = index;
}

static void tell(struct file_diff *f, enum channel_event event, bool is_directory, const char *path)
{
    if (records_are_full(&f->records))
        f->is_more = true;
    else
        records_put_event(&f->records, event, is_directory, path, "");
}

/* Whether the template has it: then what is new in the upper layer is a changed copy. */
static bool is_in_template(const struct file_diff *f, const char *path)
{
    struct stat st;

    return roots[f->root].is_overlay &&
           fstatat(f->layers->lower_fd, path + 1, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static void compare(struct file_diff *f, const char *path, enum diff_kind kind, uint64_t stamp)
{
    struct diff_file *old = find(f, path);
    bool is_directory = kind == DIFF_DIRECTORY;

    if (old != NULL)
        old->is_seen = true;
    if (kind == DIFF_WHITEOUT) {
        if (old == NULL || old->kind != DIFF_WHITEOUT)
            tell(f, CHANNEL_EVENT_DELETED, old != NULL && old->kind == DIFF_DIRECTORY, path);
    } else if (old == NULL && is_in_template(f, path)) {
        if (!is_directory) /* one in the way to what has changed */
            tell(f, CHANNEL_EVENT_MODIFIED, false, path);
    } else if (old == NULL || old->kind == DIFF_WHITEOUT) {
        tell(f, CHANNEL_EVENT_CREATED, is_directory, path);
    } else if (old->kind != kind || old->stamp != stamp) {
        tell(f, CHANNEL_EVENT_MODIFIED, is_directory, path);
    }
}

static void judge(struct file_diff *f, const struct dir_entry *entry)
{
    const char *prefix = roots[f->root].prefix;
    char path[CHANNEL_PATH_MAX];
    struct stat st;

    int size = snprintf(path, sizeof(path), "%s/%s%s%s", prefix, f->walk.at,
                        f->walk.at[0] != '\0' ? "/" : "", entry->name);
    if (size >= (int)sizeof(path)) {
        f->is_more = true;
        return;
    }
    if (fstatat(f->walk.dir.fd, entry->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return; /* gone just now */
    enum diff_kind kind = S_ISDIR(st.st_mode) ? DIFF_DIRECTORY
                          : S_ISCHR(st.st_mode) && st.st_rdev == 0 && roots[f->root].is_overlay
                              ? DIFF_WHITEOUT
                              : DIFF_FILE;
    const char *below = path + strlen(prefix) + 1;
    if (kind == DIFF_DIRECTORY && walk_push(&f->walk, below) < 0)
        f->is_more = true;
    if (f->phase == DIFF_FIRST)
        remember(f, path, kind, stamp_of(&st, kind));
    else
        compare(f, path, kind, stamp_of(&st, kind));
}

static void begin_walk(struct file_diff *f, unsigned root)
{
    f->root = root;
    if (walk_begin(&f->walk, root_fd(f)) < 0)
        f->is_more = true;
}

/* The next directory of the walk; false where it has come to its end. */
static bool next_directory(struct file_diff *f)
{
    int entered = walk_enter(&f->walk);

    if (entered < 0 && errno != ENOENT)
        f->is_more = true;
    if (entered != 0)
        return true;
    if (f->root + 1 == sizeof(roots) / sizeof(roots[0]))
        return false;
    begin_walk(f, f->root + 1);
    return true;
}

/* What the second walk did not meet. */
static bool tell_gone(struct file_diff *f)
{
    if (f->gone_next == f->files.size / sizeof(struct diff_file))
        return false;
    const struct diff_file *file = file_at(f, f->gone_next++);
    if (!file->is_seen && file->kind != DIFF_WHITEOUT)
        tell(f, CHANNEL_EVENT_DELETED, file->kind == DIFF_DIRECTORY,
             (const char *)buffer_bytes(&f->paths) + file->path_at);
    return true;
}

static void diff_step(struct file_diff *f)
{
    uint64_t begin_ns = clock_mono_ns();
    struct dir_entry entry;

    while (f->phase != DIFF_WAITING && !f->records.is_done && records_have_room(&f->records) &&
           !stream_step_is_over(begin_ns)) {
        if (f->phase == DIFF_GONE)
            f->records.is_done = !tell_gone(f);
        else if (f->walk.dir.fd >= 0 && dir_next(&f->walk.dir, &entry))
            judge(f, &entry);
        else if (f->walk.dir.fd >= 0 && dir_fill(&f->walk.dir) <= 0)
            dir_close(&f->walk.dir);
        else if (f->walk.dir.fd < 0 && !next_directory(f))
            f->phase = f->phase == DIFF_FIRST ? DIFF_WAITING : DIFF_GONE;
    }
    f->records.flags = f->is_more ? CHANNEL_END_MORE : 0;
}

static bool handle_pump(struct stream *s)
{
    struct file_diff *f = s->state;

    if (f->phase == DIFF_WAITING)
        return false;
    diff_step(f);
    if (f->phase == DIFF_WAITING) {
        stream_info(s, NULL, 0);
        return false;
    }
    return f->phase == DIFF_FIRST || records_pump(s, &f->records);
}

static int handle_start(struct stream *s, struct wire_reader *reader)
{
    struct file_diff *f = s->state;

    f->layers = s->shared;
    f->paths = (struct buffer)BUFFER_INIT(FILE_DIFF_PATHS_MAX);
    f->files = (struct buffer)BUFFER_INIT(FILE_DIFF_FILES_MAX * sizeof(struct diff_file));
    memset(f->buckets, 0xff, sizeof(f->buckets));
    walk_init(&f->walk);
    if (reader->left != 0)
        return -1;
    if (f->layers->upper_fd < 0) {
        stream_fail(s, ENOTSUP, "the root is no overlay");
        return 0;
    }
    if (records_init_events(&f->records) < 0) {
        stream_fail(s, ENOMEM, "%s", strerror(ENOMEM));
        return 0;
    }
    begin_walk(f, 0);
    return 0;
}

/* The second moment. Where the first was more than can be remembered, nothing can be told. */
static int handle_eof(struct stream *s)
{
    struct file_diff *f = s->state;

    if (f->phase != DIFF_WAITING)
        return -1;
    f->phase = DIFF_SECOND;
    if (f->is_more)
        f->records.is_done = true;
    else
        begin_walk(f, 0);
    return 0;
}

static void handle_fini(struct stream *s)
{
    struct file_diff *f = s->state;

    records_fini(&f->records);
    walk_fini(&f->walk);
    buffer_fini(&f->paths);
    buffer_fini(&f->files);
}

const struct stream_op file_diff_op = {
    .op = CHANNEL_OP_DIFF,
    .state_bytes = sizeof(struct file_diff),
    .start = handle_start,
    .eof = handle_eof,
    .pump = handle_pump,
    .fini = handle_fini,
};
