#include <archive.h>
#include <archive_entry.h>
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/tree.h"
#include "daemon/archive/tar_work.h"

/* A multiple of an archive's blocks, so that none lies across two pieces. */
#define PIECE_BYTES (64 * KIB)
#define BLOCK_BYTES 512u

struct unpack {
    int fd;
    struct error *e;
    uint8_t *piece;
    size_t piece_size;
    int64_t piece_offset; /* in the archive */
    uint64_t header_left; /* that the header being read may still take; UINT64_MAX outside of one */
    bool is_header_over;  /* it wanted more */
    uint32_t count;
    uint8_t *record; /* TREE_RECORD_BYTES_MAX */
    char *path, *target;
};

static la_ssize_t on_read(struct archive *a, void *arg, const void **ret_data)
{
    struct unpack *u = arg;

    if (u->header_left == 0) {
        u->is_header_over = true;
        archive_set_error(a, E2BIG, "its headers do not end");
        return ARCHIVE_FATAL;
    }
    ssize_t n =
        fd_read_full(u->fd, u->piece, u->header_left < PIECE_BYTES ? u->header_left : PIECE_BYTES);
    if (n < 0) {
        archive_set_error(a, errno, "reading the archive");
        return ARCHIVE_FATAL;
    }
    if (n > 0) { /* else the last piece is still there, for check_end() */
        u->piece_offset += (int64_t)u->piece_size;
        u->piece_size = (size_t)n;
    }
    if (u->header_left != UINT64_MAX)
        u->header_left -= (uint64_t)n;
    *ret_data = u->piece;
    return n;
}

static int send_all(struct unpack *u, const void *data, size_t size)
{
    const uint8_t *at = data;

    while (size > 0) {
        ssize_t n = send(u->fd, at, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(u->e, errno, "nobody takes the tree");
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

static int refuse(struct unpack *u, const char *path, const char *what)
{
    (void)error_set(u->e, ERR_ARCHIVE_REFUSED, "\"%.300s\" in the archive %s", path, what);
    return error_remedy(u->e, "Make the archive anew without it, as in tar c -C DIR .");
}

static int set_damaged(struct unpack *u, struct archive *a, const char *what)
{
    const char *why = archive_error_string(a);

    (void)error_set(u->e, ERR_ARCHIVE_REFUSED, "the archive %s", what);
    (void)error_cause(u->e, "%.200s", why != NULL ? why : "");
    return error_remedy(u->e, "Send an uncompressed tar archive whole, as in tar c DIR | "
                              "curl -T - ...");
}

/* "./a//b/" is "a/b". The rest is judged by tree_path_fault(). Returns what is wrong, or NULL. */
static const char *clean_path(const char *from, char to[CHANNEL_PATH_MAX])
{
    size_t used = 0;

    if (from == NULL || from[0] == '\0')
        return "is empty";
    if (from[0] == '/')
        return "is absolute";
    for (const char *at = from; *at != '\0';) {
        size_t part = strcspn(at, "/");
        if (part > 0 && !(part == 1 && at[0] == '.')) {
            if (used + 1 + part >= CHANNEL_PATH_MAX)
                return "is too long";
            if (used > 0)
                to[used++] = '/';
            memcpy(to + used, at, part);
            used += part;
        }
        at += part + (at[part] == '/');
    }
    to[used] = '\0';
    return used > 0 ? tree_path_fault(to) : NULL;
}

/* What libarchive says of the entry, as one of ours; `ret_entry->path` is "" for the top. */
static int judge(struct unpack *u, struct archive_entry *from, struct tree_entry *ret_entry)
{
    const char *name = archive_entry_pathname(from);
    const char *link = archive_entry_hardlink(from);
    const char *fault = clean_path(name, u->path);
    struct tree_entry t = {.type = TREE_FILE,
                           .mode = (uint32_t)archive_entry_perm(from) & 07777,
                           .uid = (uint32_t)archive_entry_uid(from),
                           .gid = (uint32_t)archive_entry_gid(from),
                           .path = u->path,
                           .target = ""};

    name = name != NULL ? name : "";
    if (fault != NULL)
        return refuse(u, name, fault);
    if (archive_entry_mtime_is_set(from)) {
        t.mtime_s = archive_entry_mtime(from);
        t.mtime_ns = (uint32_t)archive_entry_mtime_nsec(from) % 1000000000;
    }
    if (archive_entry_uid(from) < 0 || archive_entry_uid(from) >= UINT32_MAX ||
        archive_entry_gid(from) < 0 || archive_entry_gid(from) >= UINT32_MAX)
        return refuse(u, name, "has an owner that cannot be");
    if (link != NULL) {
        t.type = TREE_HARDLINK;
        t.target = u->target;
        if (clean_path(link, u->target) != NULL || u->target[0] == '\0')
            return refuse(u, name, "is a hard link to what is not below its top");
    } else if (archive_entry_filetype(from) == AE_IFDIR) {
        t.type = TREE_DIRECTORY;
    } else if (archive_entry_filetype(from) == AE_IFLNK) {
        t.type = TREE_SYMLINK;
        t.target = archive_entry_symlink(from);
        if (t.target == NULL || t.target[0] == '\0' || strlen(t.target) >= CHANNEL_PATH_MAX)
            return refuse(u, name, "is a symbolic link that says nothing, or too much");
    } else if (archive_entry_filetype(from) != AE_IFREG) {
        return refuse(u, name, "is a device, fifo or socket");
    } else if (archive_entry_size(from) < 0 ||
               (uint64_t)archive_entry_size(from) > TREE_FILE_BYTES_MAX) {
        return refuse(u, name, "is larger than any sandbox's disk");
    } else {
        t.size = (uint64_t)archive_entry_size(from);
    }
    if (t.path[0] == '\0' && t.type != TREE_DIRECTORY)
        return refuse(u, name, "is the top, and no directory");
    *ret_entry = t;
    return 0;
}

static int send_content(struct unpack *u, struct archive *a, const struct tree_entry *t)
{
    uint8_t bytes[16 * KIB];
    uint64_t left = t->size;

    while (left > 0) {
        la_ssize_t n = archive_read_data(a, bytes, left < sizeof(bytes) ? left : sizeof(bytes));
        if (n <= 0) {
            (void)set_damaged(u, a, "ends, or is damaged, within a file");
            return error_wrap(u->e, "%.200s", t->path);
        }
        if (send_all(u, bytes, (size_t)n) != 0)
            return -1;
        left -= (uint64_t)n;
    }
    return 0;
}

static int take_entry(struct unpack *u, struct archive *a, struct archive_entry *from)
{
    struct tree_entry t;

    if (++u->count >= TREE_ENTRIES_MAX) {
        (void)error_set(u->e, ERR_ARCHIVE_REFUSED, "the archive has more than %u entries",
                        TREE_ENTRIES_MAX - 1);
        return error_remedy(u->e, "Send it in several parts.");
    }
    if (judge(u, from, &t) != 0)
        return -1;
    if (t.path[0] == '\0')
        return 0;
    size_t size = tree_entry_put(&t, u->record, TREE_RECORD_BYTES_MAX);
    if (size == 0)
        return refuse(u, t.path, "is too long");
    if (send_all(u, u->record, size) != 0)
        return -1;
    return t.type == TREE_FILE ? send_content(u, a, &t) : 0;
}

/* Names that are not ASCII are taken as the bytes they are, of which libarchive warns in the locale
 * "C". Whatever else it warns of means that it had to guess. */
static bool is_fine(struct archive *a, int result)
{
    const char *why = archive_error_string(a);

    return result == ARCHIVE_OK || (result == ARCHIVE_WARN && why != NULL &&
                                    strstr(why, "can't be converted from UTF-8") != NULL);
}

/* An archive ends with a block of zeros, or it was cut; nothing but zeros may follow. */
static int check_end(struct unpack *u, struct archive *a)
{
    int64_t end = archive_filter_bytes(a, 0);
    const void *piece;

    if (end - archive_read_header_position(a) < BLOCK_BYTES) {
        (void)archive_clear_error(a);
        return set_damaged(u, a, "ends before its end: it was cut off");
    }
    size_t skip = end > u->piece_offset ? (size_t)(end - u->piece_offset) : 0;
    for (;;) {
        for (size_t i = skip; i < u->piece_size; i++) {
            if (u->piece[i] != 0) {
                (void)archive_clear_error(a);
                return set_damaged(u, a, "has something behind its end");
            }
        }
        skip = 0;
        la_ssize_t n = on_read(a, u, &piece);
        if (n <= 0)
            return n == 0 ? 0 : set_damaged(u, a, "cannot be read");
    }
}

static int refuse_header(struct unpack *u, struct archive_entry *entry)
{
    const char *name = entry != NULL ? archive_entry_pathname(entry) : NULL;

    if (name != NULL && name[0] != '\0')
        (void)error_set(u->e, ERR_ARCHIVE_REFUSED,
                        "\"%.300s\" in the archive has headers of more than %u KiB", name,
                        (unsigned)(TAR_HEADER_BYTES_MAX / KIB));
    else
        (void)error_set(u->e, ERR_ARCHIVE_REFUSED,
                        "entry %u of the archive has headers of more than %u KiB", u->count + 1,
                        (unsigned)(TAR_HEADER_BYTES_MAX / KIB));
    return error_remedy(u->e, "Make the archive anew without maps of sparse files, extended "
                              "attributes and ACLs, as tar does without -S, --xattrs and --acls.");
}

/*
 * libarchive keeps what it reads in one call of archive_read_next_header(), and a map of a sparse
 * file or a list of rights is in memory up to 32 times as large as it comes. It bounds few of them,
 * so on_read() bounds all. The count starts where the headers do: what is unread of the entry
 * before, which libarchive would skip in the same call, is skipped here.
 */
static int next_header(struct unpack *u, struct archive *a, struct archive_entry **ret_entry)
{
    if (u->count > 0 && archive_read_data_skip(a) != ARCHIVE_OK)
        return ARCHIVE_FATAL;
    int64_t known = u->piece_offset + (int64_t)u->piece_size - archive_filter_bytes(a, 0);

    assert(known >= 0);
    u->header_left =
        (uint64_t)known < TAR_HEADER_BYTES_MAX ? TAR_HEADER_BYTES_MAX - (uint64_t)known : 0;
    int result = archive_read_next_header(a, ret_entry);
    u->header_left = UINT64_MAX;
    return result;
}

static int unpack_all(struct unpack *u, struct archive *a)
{
    struct archive_entry *entry = NULL;

    if (archive_read_support_format_tar(a) != ARCHIVE_OK ||
        archive_read_open(a, u, NULL, on_read, NULL) != ARCHIVE_OK)
        return set_damaged(u, a, "cannot be read");
    for (;;) {
        int result = next_header(u, a, &entry);
        if (u->is_header_over)
            return refuse_header(u, entry);
        if (result == ARCHIVE_EOF)
            return check_end(u, a);
        if (!is_fine(a, result))
            return set_damaged(u, a, "is damaged, cut off, or no tar archive");
        if (take_entry(u, a, entry) != 0)
            return -1;
    }
}

int tar_unpack(int fd, struct tar_work *work)
{
    struct unpack u = {.fd = fd,
                       .e = &work->error,
                       .header_left = UINT64_MAX,
                       .piece = malloc(PIECE_BYTES),
                       .record = malloc(TREE_RECORD_BYTES_MAX),
                       .path = malloc(CHANNEL_PATH_MAX),
                       .target = malloc(CHANNEL_PATH_MAX)};
    struct archive *a = archive_read_new();
    int result = -1;

    if (u.piece == NULL || u.record == NULL || u.path == NULL || u.target == NULL || a == NULL)
        (void)error_set(u.e, ERR_INTERNAL, "out of memory for an archive");
    else
        result = unpack_all(&u, a);
    (void)archive_read_free(a);
    free(u.piece);
    free(u.record);
    free(u.path);
    free(u.target);
    return result;
}
