/*
 * WATCH: what inotify(7) tells, as events. A tree needs a watch for each of its directories, and
 * one that appears gets its own before it is read, so that nothing in it is missed; what was in it
 * already is told as created. What cannot be told or watched is told as an overflow.
 *
 * While the host takes nothing no event is read: they wait in the kernel's queue, which is bounded
 * and says so when it was full.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/fd.h"
#include "guest/channel/records.h"
#include "guest/files/dir.h"
#include "guest/files/file_ops.h"
#include "guest/files/file_path.h"
#include "guest/files/watch_set.h"

#define EVENTS                                                                                     \
    (IN_CREATE | IN_MODIFY | IN_ATTRIB | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR |    \
     IN_EXCL_UNLINK)
#define QUEUE_BYTES 8192u
/* The two halves of a move come one right behind the other, but maybe not to the same read. */
#define MOVE_WAIT_NS (20 * NS_PER_MS)

struct file_watch {
    struct records records;
    int fd;
    int base_wd;
    char base[CHANNEL_PATH_MAX]; /* without a slash at its end: "" is the root */
    bool is_tree;
    bool is_started;  /* INFO is out */
    bool is_readable; /* a read of `fd` is worth trying */
    struct watch_set set;
    struct buffer pending;     /* new directories: is_told, the path below the base, a NUL */
    struct dir dir;            /* the one that is read, ... */
    char at[CHANNEL_PATH_MAX]; /* ... its path below the base, ... */
    bool is_told;              /* ... and whether what is in it is told as created */
    uint64_t moved_ns;         /* the first half of a move was seen then; 0: none waits */
    uint32_t moved_cookie;
    bool moved_directory;
    char moved_from[CHANNEL_PATH_MAX];
    size_t queue_at, queue_used;
    uint8_t queue[QUEUE_BYTES] __attribute__((aligned(8)));
};

static void put_overflow(struct file_watch *f)
{
    records_put_event(&f->records, CHANNEL_EVENT_OVERFLOW, false, "", "");
}

/* --- new directories ----------------------------------------------------------------------------
 */

static void push_pending(struct file_watch *f, bool is_told, const char *path)
{
    size_t size = strlen(path) + 1;
    uint8_t *to = buffer_reserve(&f->pending, size + 1);

    if (to == NULL) {
        put_overflow(f);
        return;
    }
    to[0] = is_told ? 1 : 2;
    memcpy(to + 1, path, size);
    buffer_commit(&f->pending, size + 1);
}

static bool take_pending(struct file_watch *f)
{
    const uint8_t *bytes = buffer_bytes(&f->pending);

    if (f->pending.size == 0)
        return false;
    size_t start = f->pending.size - 1;
    while (start > 0 && bytes[start - 1] != '\0')
        start--;
    f->is_told = bytes[start] == 1;
    memcpy(f->at, bytes + start + 1, f->pending.size - start - 1);
    f->pending.size = start;
    return true;
}

/* Watches the directory f->at and opens it to be read. 0, or an errno: EMFILE where there are
 * too many. What has gone, or is no place to enter, is passed over. */
static int open_pending(struct file_watch *f)
{
    char link[64], path[CHANNEL_PATH_MAX];
    /* Not kept: a directory that somebody has open says nothing when it is removed. */
    FD_AUTO int base_fd =
        open(f->base[0] != '\0' ? f->base : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    FD_AUTO int fd = base_fd < 0 ? -1 : dir_open_below(base_fd, f->at);

    if (fd < 0)
        return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? errno : 0;
    int size = snprintf(path, sizeof(path), "%s%s%s", f->base, f->at[0] != '\0' ? "/" : "", f->at);
    if (size >= (int)sizeof(path))
        return ENAMETOOLONG;
    if (f->set.count >= FILE_WATCHES_MAX)
        return EMFILE;
    /* The directory that was opened, whatever its path leads to by now. */
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    int wd = inotify_add_watch(f->fd, link, EVENTS);
    if (wd < 0) /* ENOSPC, which is not the disk's here */
        return errno == ENOSPC ? EMFILE : errno;
    if (f->at[0] == '\0')
        f->base_wd = wd;
    if (watch_set_put(&f->set, wd, path) < 0)
        return ENOMEM;
    if (f->is_tree)
        dir_set(&f->dir, fd_take(&fd));
    return 0;
}

/* An entry of a directory that is new. */
static void judge_entry(struct file_watch *f, const struct dir_entry *entry)
{
    char path[CHANNEL_PATH_MAX], whole[CHANNEL_PATH_MAX];
    bool is_directory = entry->type == DT_DIR;
    int size =
        snprintf(path, sizeof(path), "%s%s%s", f->at, f->at[0] != '\0' ? "/" : "", entry->name);
    int whole_size = snprintf(whole, sizeof(whole), "%s/%s", f->base, path);

    if (size >= (int)sizeof(path) || whole_size >= (int)sizeof(whole)) {
        put_overflow(f);
        return;
    }
    if (f->is_told)
        records_put_event(&f->records, CHANNEL_EVENT_CREATED, is_directory, whole, "");
    if (is_directory || entry->type == DT_UNKNOWN)
        push_pending(f, f->is_told, path);
}

/* Goes on with what is new; false where nothing is left. An errno in *ret_error. */
static bool scan_step(struct file_watch *f, int *ret_error)
{
    struct dir_entry entry;
    uint64_t begin_ns = clock_mono_ns();

    while (records_have_room(&f->records) && !stream_step_is_over(begin_ns)) {
        if (f->dir.fd < 0) {
            if (!take_pending(f))
                return false;
            *ret_error = open_pending(f);
            if (*ret_error != 0)
                return true;
        } else if (dir_next(&f->dir, &entry)) {
            judge_entry(f, &entry);
        } else if (dir_fill(&f->dir) <= 0) {
            dir_close(&f->dir);
        }
    }
    return true;
}

/* --- events -------------------------------------------------------------------------------------
 */

/* A first half whose second did not come: it has left what is watched. */
static void end_move(struct file_watch *f)
{
    if (f->moved_ns == 0)
        return;
    f->moved_ns = 0;
    records_put_event(&f->records, CHANNEL_EVENT_DELETED, f->moved_directory, f->moved_from, "");
    if (!f->moved_directory)
        return;
    for (int wd = 0; (wd = watch_set_next_below(&f->set, wd, f->moved_from)) >= 0; wd++) {
        (void)inotify_rm_watch(f->fd, wd);
        watch_set_remove(&f->set, wd);
    }
}

static void end_move_at(struct file_watch *f, const struct inotify_event *event, bool is_directory,
                        const char *path)
{
    if (f->moved_ns != 0 && f->moved_cookie == event->cookie) {
        f->moved_ns = 0;
        records_put_event(&f->records, CHANNEL_EVENT_MOVED, is_directory, path, f->moved_from);
        if (is_directory && watch_set_rename(&f->set, f->moved_from, path) < 0)
            put_overflow(f);
        return;
    }
    end_move(f);
    records_put_event(&f->records, CHANNEL_EVENT_CREATED, is_directory, path, "");
    if (is_directory && f->is_tree)
        push_pending(f, true, path + strlen(f->base) + 1);
}

static void take_named(struct file_watch *f, const struct inotify_event *event, const char *path)
{
    bool is_directory = (event->mask & IN_ISDIR) != 0;

    if ((event->mask & IN_MOVED_TO) != 0) {
        end_move_at(f, event, is_directory, path);
        return;
    }
    end_move(f);
    if ((event->mask & IN_MOVED_FROM) != 0) {
        f->moved_ns = clock_mono_ns();
        f->moved_cookie = event->cookie;
        f->moved_directory = is_directory;
        memcpy(f->moved_from, path, strlen(path) + 1);
    } else if ((event->mask & IN_CREATE) != 0) {
        records_put_event(&f->records, CHANNEL_EVENT_CREATED, is_directory, path, "");
        if (is_directory && f->is_tree)
            push_pending(f, true, path + strlen(f->base) + 1);
    } else if ((event->mask & IN_DELETE) != 0) {
        records_put_event(&f->records, CHANNEL_EVENT_DELETED, is_directory, path, "");
    } else {
        records_put_event(&f->records, CHANNEL_EVENT_MODIFIED, is_directory, path, "");
    }
}

static void take_event(struct file_watch *f, const struct inotify_event *event)
{
    char path[CHANNEL_PATH_MAX];

    if ((event->mask & IN_Q_OVERFLOW) != 0) {
        put_overflow(f);
        /* Directories may have come with what is lost. */
        if (f->is_tree)
            push_pending(f, false, "");
        return;
    }
    if ((event->mask & IN_IGNORED) != 0) {
        watch_set_remove(&f->set, event->wd);
        f->records.is_done = event->wd == f->base_wd;
        return;
    }
    const char *directory = watch_set_find(&f->set, event->wd);
    /* A directory's news of itself comes from the one above as well. */
    if (directory == NULL || event->len == 0)
        return;
    if (snprintf(path, sizeof(path), "%s/%s", directory, event->name) >= (int)sizeof(path))
        put_overflow(f);
    else
        take_named(f, event, path);
}

/* Events that wait, as far as there is room; 0, or an errno. */
static int event_step(struct file_watch *f)
{
    uint64_t begin_ns = clock_mono_ns();

    while (records_have_room(&f->records) && f->pending.size == 0 && !f->records.is_done &&
           !stream_step_is_over(begin_ns)) {
        if (f->queue_at < f->queue_used) {
            const struct inotify_event *event =
                (const struct inotify_event *)(const void *)(f->queue + f->queue_at);
            f->queue_at += sizeof(*event) + event->len;
            take_event(f, event);
            continue;
        }
        ssize_t n = read(f->fd, f->queue, sizeof(f->queue));
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return errno;
        f->queue_at = 0;
        f->queue_used = n > 0 ? (size_t)n : 0;
        if (n < 0 && errno == EAGAIN) {
            f->is_readable = false;
            break;
        }
    }
    if (f->moved_ns != 0 && clock_mono_ns() - f->moved_ns >= MOVE_WAIT_NS &&
        records_have_room(&f->records))
        end_move(f);
    return 0;
}

/* --- the operation ------------------------------------------------------------------------------
 */

/* 0, or an errno; *ret_more: there is work left that waits for nothing but room. */
static int step(struct stream *s, bool *ret_more)
{
    struct file_watch *f = s->state;
    int error = 0;

    if (scan_step(f, &error)) {
        /* Where events flow already, it is one more that is lost. */
        if (error != 0 && f->is_started)
            put_overflow(f);
        *ret_more = true;
        return f->is_started ? 0 : error;
    }
    if (!f->is_started) {
        if (f->set.count == 0)
            return ENOENT;
        f->is_started = true;
        stream_info(s, NULL, 0);
    }
    error = event_step(f);
    *ret_more =
        f->is_readable || f->queue_at < f->queue_used || f->pending.size > 0 || f->moved_ns != 0;
    return error;
}

static bool handle_pump(struct stream *s)
{
    struct file_watch *f = s->state;
    bool is_more = false;

    if (!f->records.is_done && records_have_room(&f->records)) {
        int error = step(s, &is_more);
        if (error != 0) {
            stream_fail(s, error, "watching: %s", strerror(error));
            return false;
        }
    }
    if (f->records.is_done)
        return records_pump(s, &f->records);
    if (f->is_started)
        records_send(s, &f->records);
    return (is_more && records_have_room(&f->records)) ||
           (f->records.out.size > 0 && s->send_credit[CHANNEL_LANE_IN] > 0);
}

/* Something has happened in what is watched. */
static void handle_event(struct stream *s, unsigned tag, uint32_t events)
{
    struct file_watch *f = s->state;

    (void)tag;
    (void)events;
    f->is_readable = true;
}

static void take_base(struct file_watch *f, const char *path)
{
    size_t size = strlen(path);

    while (size > 0 && path[size - 1] == '/')
        size--;
    memcpy(f->base, path, size);
}

/* 0, or an errno. */
static int start(struct stream *s, const char *path)
{
    struct file_watch *f = s->state;
    FD_AUTO int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return errno;
    if (records_init_events(&f->records) < 0)
        return ENOMEM;
    f->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (f->fd < 0 || stream_watch(s, 0, f->fd, EPOLLIN | EPOLLET) < 0)
        return errno;
    take_base(f, path);
    push_pending(f, false, "");
    return 0;
}

static int handle_start(struct stream *s, struct wire_reader *reader)
{
    struct file_watch *f = s->state;
    char path[CHANNEL_PATH_MAX];
    uint32_t flags = wire_get_u32(reader);

    f->fd = -1;
    f->pending = (struct buffer)BUFFER_INIT(FILE_SEARCH_PENDING_MAX);
    dir_init(&f->dir);
    if (file_path_get(reader, path) < 0 || reader->left != 0 || (flags & ~CHANNEL_WATCH_TREE) != 0)
        return -1;
    f->is_tree = (flags & CHANNEL_WATCH_TREE) != 0;
    int error = start(s, path);
    if (error != 0)
        stream_fail(s, error, "%s: %s", path, strerror(error));
    return 0;
}

static void handle_fini(struct stream *s)
{
    struct file_watch *f = s->state;

    records_fini(&f->records);
    fd_close(&f->fd);
    dir_close(&f->dir);
    buffer_fini(&f->pending);
    watch_set_fini(&f->set);
}

const struct stream_op file_watch_op = {
    .op = CHANNEL_OP_WATCH,
    .state_bytes = sizeof(struct file_watch),
    .start = handle_start,
    .pump = handle_pump,
    .event = handle_event,
    .fini = handle_fini,
};
