#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/tree.h"
#include "daemon/archive/tar_work.h"

#define READ_BYTES (64 * KIB)
/* Some 30,000 years: what every reader of archives can count in. */
#define TIME_MAX (INT64_C(1) << 40)

struct pack {
    int fd;
    struct tar_work *work;
    struct archive *archive;
    struct archive_entry *entry;
    struct tree_reader reader;
    bool is_cut;  /* nobody takes what is written */
    bool is_over; /* given up: nothing more may be written */
    uint8_t bytes[READ_BYTES];
};

/* A write that fails would leave libarchive in a state in which it does not free all that it has:
 * so only take_bytes() and pack_all() look at `is_cut`. Behind the end nothing may go out, and the
 * rest of a file, of any size, is not to be filled up with zeros. */
static la_ssize_t on_write(struct archive *a, void *arg, const void *data, size_t size)
{
    struct pack *p = arg;
    const uint8_t *at = data;

    if (p->is_over) {
        archive_set_error(a, ECANCELED, "the archive is given up");
        return ARCHIVE_FATAL;
    }
    for (size_t left = size; left > 0 && !p->is_cut;) {
        ssize_t n = send(p->fd, at, left, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            p->is_cut = true;
        if (n > 0) {
            at += n;
            left -= (size_t)n;
        }
    }
    return (la_ssize_t)size;
}

static int set_failed(struct pack *p)
{
    const char *why = archive_error_string(p->archive);

    (void)error_set(&p->work->error, ERR_INTERNAL, "an archive cannot be written");
    return error_cause(&p->work->error, "%.200s", why != NULL ? why : "nobody takes it");
}

static int64_t bounded_time(int64_t seconds)
{
    return seconds > TIME_MAX ? TIME_MAX : seconds < -TIME_MAX ? -TIME_MAX : seconds;
}

static int put_entry(struct pack *p, const struct tree_entry *t)
{
    struct archive_entry *to = archive_entry_clear(p->entry);

    if (t->type == TREE_SKIPPED) {
        __atomic_store_n(&p->work->skipped, t->size, __ATOMIC_RELEASE);
        return 0;
    }
    if (t->type == TREE_HARDLINK)
        return error_set(&p->work->error, ERR_BAD_REQUEST, "a hard link in a tree");
    archive_entry_set_pathname(to, t->path);
    archive_entry_set_filetype(to, t->type == TREE_DIRECTORY ? AE_IFDIR
                                   : t->type == TREE_SYMLINK ? AE_IFLNK
                                                             : AE_IFREG);
    archive_entry_set_perm(to, (mode_t)t->mode);
    archive_entry_set_uid(to, t->uid);
    archive_entry_set_gid(to, t->gid);
    archive_entry_set_mtime(to, bounded_time(t->mtime_s), t->mtime_ns);
    archive_entry_set_size(to, (la_int64_t)t->size);
    if (t->type == TREE_SYMLINK)
        archive_entry_set_symlink(to, t->target);
    /* It warns of names that are no UTF-8, and writes them as the bytes they are. */
    return archive_write_header(p->archive, to) >= ARCHIVE_WARN ? 0 : set_failed(p);
}

static int take_bytes(struct pack *p, const uint8_t *bytes, size_t size)
{
    struct tree_entry entry;
    enum tree_event event;
    size_t used;

    for (; size > 0; bytes += used, size -= used) {
        if (tree_reader_next(&p->reader, bytes, size, &used, &event, &entry, &p->work->error) != 0)
            return -1;
        if (event == TREE_ENTRY && put_entry(p, &entry) != 0)
            return -1;
        if (event == TREE_CONTENT &&
            archive_write_data(p->archive, bytes, used) != (la_ssize_t)used)
            return set_failed(p);
    }
    return p->is_cut ? set_failed(p) : 0;
}

static int pack_all(struct pack *p)
{
    struct archive *a = p->archive;

    if (archive_write_set_format_pax_restricted(a) != ARCHIVE_OK ||
        archive_write_add_filter_none(a) != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(a, READ_BYTES) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(a, 1) != ARCHIVE_OK ||
        archive_write_open(a, p, NULL, on_write, NULL) != ARCHIVE_OK)
        return set_failed(p);
    for (;;) {
        ssize_t n = read(p->fd, p->bytes, sizeof(p->bytes));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(&p->work->error, errno, "reading a tree");
        if (n == 0)
            break;
        if (take_bytes(p, p->bytes, (size_t)n) != 0)
            return -1;
    }
    if (!tree_reader_is_between(&p->reader))
        return error_set(&p->work->error, ERR_BAD_REQUEST, "a tree ends within a file");
    return archive_write_close(a) == ARCHIVE_OK && !p->is_cut ? 0 : set_failed(p);
}

int tar_pack(int fd, struct tar_work *work)
{
    /* Names are UTF-8 for libarchive in this locale; in "C" it would mark all that are not ASCII
     * in a way that tar complains of. */
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    locale_t before = utf8 != (locale_t)0 ? uselocale(utf8) : (locale_t)0;
    struct pack *p = calloc(1, sizeof(*p));
    int result = -1;

    if (p != NULL) {
        p->fd = fd;
        p->work = work;
        tree_reader_init(&p->reader);
        p->archive = archive_write_new();
        p->entry = archive_entry_new();
    }
    if (p == NULL || p->archive == NULL || p->entry == NULL)
        (void)error_set(&work->error, ERR_INTERNAL, "out of memory for an archive");
    else
        result = pack_all(p);
    if (p != NULL) {
        p->is_over = true;
        (void)archive_write_free(p->archive);
        archive_entry_free(p->entry);
        free(p);
    }
    if (utf8 != (locale_t)0) {
        (void)uselocale(before);
        freelocale(utf8);
    }
    return result;
}
