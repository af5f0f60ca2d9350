/*
 * A tree that goes in is packed by a thread of its own, which writes to a pipe: reading the disk
 * blocks, and sending must not wait for it to be packed whole. One that comes out is unpacked as it
 * comes.
 */
#include "cli/commands/cp_tree.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cli/client/client.h"
#include "cli/common/progress.h"

#define PIECE_BYTES (64 * KIB)
#define EXTRACT_FLAGS                                                                              \
    (ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NODOTDOT |    \
     ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS | ARCHIVE_EXTRACT_SAFE_WRITES)
#define DISK_FLAGS                                                                                 \
    (ARCHIVE_READDISK_NO_XATTR | ARCHIVE_READDISK_NO_ACL | ARCHIVE_READDISK_NO_FFLAGS)

/* The line on a terminal, for what takes its time. */
struct meter {
    struct progress progress;
    uint64_t start_ns;
    unsigned told_s;
};

static void meter_tick(void *context, unsigned seconds)
{
    struct meter *m = context;
    unsigned passed_s = (unsigned)((clock_mono_ns() - m->start_ns) / NS_PER_S);

    (void)seconds; /* only since the last byte was sent */
    if (passed_s == m->told_s || !isatty(STDERR_FILENO))
        return;
    m->told_s = passed_s;
    progress_tick(&m->progress, passed_s);
}

static struct meter meter_start(const char *what)
{
    return (struct meter){.progress = {.what = what}, .start_ns = clock_mono_ns()};
}

static void tell_skipped(unsigned long long count)
{
    if (count > 0)
        fprintf(stderr, "cloche: left out: %llu fifos, sockets or devices\n", count);
}

static int set_archive_error(struct error *e, struct archive *a, const char *path)
{
    const char *why = archive_error_string(a);

    (void)error_set(e, ERR_CONFLICT, "cannot copy %.300s", path);
    return error_cause(e, "%.200s", why != NULL ? why : "out of memory");
}

/* --- In -----------------------------------------------------------------------------------------
 */

struct packer {
    const char *path;
    int fd; /* the pipe's end; closed when the thread ends */
    struct meter *meter;
    unsigned long long skipped;
    bool is_cut;  /* nobody reads the pipe any more, and knows why */
    bool is_over; /* nothing more may be written, and no rest of a file be filled up */
    struct error error;
};

/* Not told to libarchive, which would keep memory of a write that failed. */
static la_ssize_t on_write(struct archive *a, void *arg, const void *data, size_t size)
{
    struct packer *p = arg;

    if (p->is_over) {
        archive_set_error(a, ECANCELED, "given up");
        return ARCHIVE_FATAL;
    }
    if (!p->is_cut && fd_write_full(p->fd, data, size) < 0)
        p->is_cut = true;
    meter_tick(p->meter, 0);
    return (la_ssize_t)size;
}

static int pack_content(struct packer *p, struct archive *disk, struct archive *out, int64_t size)
{
    static char piece[PIECE_BYTES];

    while (size > 0 && !p->is_cut) {
        size_t wanted = size < (int64_t)sizeof(piece) ? (size_t)size : sizeof(piece);
        la_ssize_t n = archive_read_data(disk, piece, wanted);
        if (n < 0)
            return set_archive_error(&p->error, disk, p->path);
        if (n == 0)
            return error_set(&p->error, ERR_CONFLICT, "a file in %.300s became shorter", p->path);
        if (archive_write_data(out, piece, (size_t)n) != n)
            return set_archive_error(&p->error, out, p->path);
        size -= n;
    }
    return 0;
}

/* The entry's path as it is to be in the sandbox; NULL for the top. */
static const char *name_below(const struct packer *p, const char *path)
{
    path += strlen(p->path);
    return path[strspn(path, "/")] != '\0' ? path + strspn(path, "/") : NULL;
}

static int pack_entry(struct packer *p, struct archive *disk, struct archive *out,
                      struct archive_entry *entry)
{
    mode_t type = archive_entry_filetype(entry);
    const char *name = name_below(p, archive_entry_pathname(entry));

    if (archive_read_disk_can_descend(disk) && archive_read_disk_descend(disk) != ARCHIVE_OK)
        return set_archive_error(&p->error, disk, p->path);
    if (name == NULL)
        return 0;
    if (type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK) {
        p->skipped++;
        return 0;
    }
    char *copy = strdup(name); /* the entry's own goes when it gets another */
    if (copy == NULL)
        return error_set(&p->error, ERR_INTERNAL, "out of memory");
    archive_entry_set_pathname(entry, copy);
    free(copy);
    archive_entry_set_hardlink(entry, NULL);
    archive_entry_set_uid(entry, 0);
    archive_entry_set_gid(entry, 0);
    archive_entry_set_uname(entry, NULL);
    archive_entry_set_gname(entry, NULL);
    archive_entry_unset_atime(entry);
    archive_entry_unset_ctime(entry);
    archive_entry_unset_birthtime(entry);
    archive_entry_sparse_clear(entry);
    if (archive_write_header(out, entry) < ARCHIVE_WARN)
        return set_archive_error(&p->error, out, p->path);
    return type == AE_IFREG ? pack_content(p, disk, out, archive_entry_size(entry)) : 0;
}

static int pack_all(struct packer *p, struct archive *disk, struct archive *out,
                    struct archive_entry *entry)
{
    if (archive_read_disk_set_symlink_physical(disk) != ARCHIVE_OK ||
        archive_read_disk_set_behavior(disk, DISK_FLAGS) != ARCHIVE_OK ||
        archive_read_disk_open(disk, p->path) != ARCHIVE_OK)
        return set_archive_error(&p->error, disk, p->path);
    if (archive_write_set_format_pax_restricted(out) != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(out, PIECE_BYTES) != ARCHIVE_OK ||
        archive_write_open(out, p, NULL, on_write, NULL) != ARCHIVE_OK)
        return set_archive_error(&p->error, out, p->path);
    for (;;) {
        int result = archive_read_next_header2(disk, entry);
        if (result == ARCHIVE_EOF)
            return archive_write_close(out) == ARCHIVE_OK
                       ? 0
                       : set_archive_error(&p->error, out, p->path);
        if (result != ARCHIVE_OK)
            return set_archive_error(&p->error, disk, p->path);
        if (pack_entry(p, disk, out, entry) != 0 || p->is_cut)
            return -1;
    }
}

static void *pack_main(void *arg)
{
    struct packer *p = arg;
    struct archive *disk = archive_read_disk_new(), *out = archive_write_new();
    struct archive_entry *entry = archive_entry_new();

    if (disk == NULL || out == NULL || entry == NULL)
        (void)error_set(&p->error, ERR_INTERNAL, "out of memory");
    else
        (void)pack_all(p, disk, out, entry);
    p->is_over = true;
    (void)archive_write_free(out);
    (void)archive_read_free(disk);
    archive_entry_free(entry);
    fd_close(&p->fd);
    return NULL;
}

/* Sends what the packer makes; the pipe's other end is closed on return. */
static int send_tree(struct client *c, const char *target, int fd, struct error *e)
{
    const struct client_request request = {.method = "PUT",
                                           .target = target,
                                           .content_type = "application/x-tar",
                                           .has_file = true,
                                           .file_fd = fd,
                                           .size = UINT64_MAX};
    int result = client_send(c, &request, e);

    fd_close(&fd);
    return result == 0 ? client_finish(c, e) : result;
}

static int put_packed(struct client *c, const char *target, struct packer *p, struct error *e)
{
    pthread_t thread;
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) != 0)
        return error_errno(e, errno, "pipe");
    p->fd = fds[1];
    int rc = pthread_create(&thread, NULL, pack_main, p);
    if (rc != 0) {
        fd_close(&fds[0]);
        fd_close(&fds[1]);
        return error_errno(e, rc, "cannot start a thread");
    }
    int result = send_tree(c, target, fds[0], e);
    (void)pthread_join(thread, NULL);
    if (p->error.code == ERR_NONE)
        return result;
    *e = p->error; /* what the daemon says of it is that the archive was cut */
    return -1;
}

int cp_put_tree(const char *socket_path, const struct cp_place *from, const struct cp_place *to,
                struct error *e)
{
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    struct meter meter = meter_start("copying");
    struct packer packer = {.path = from->path, .meter = &meter};
    struct client c;
    int result = -1;

    if (cp_place_target(to, "/files/tar", "", &target, e) == 0 &&
        client_open(&c, socket_path, e) == 0) {
        c.on_wait = meter_tick;
        c.on_wait_context = &meter;
        result = put_packed(&c, (const char *)buffer_bytes(&target), &packer, e);
        client_close(&c);
    }
    progress_end(&meter.progress);
    buffer_fini(&target);
    if (result == 0)
        tell_skipped(packer.skipped);
    return result;
}

/* --- Out ----------------------------------------------------------------------------------------
 */

struct unpacker {
    struct client *client;
    struct meter *meter;
    struct error *error;
    bool is_cut; /* `error` says how */
    char piece[PIECE_BYTES];
};

static la_ssize_t on_read(struct archive *a, void *arg, const void **ret_data)
{
    struct unpacker *u = arg;
    ssize_t n = client_read(u->client, u->piece, sizeof(u->piece), u->error);

    meter_tick(u->meter, 0);
    *ret_data = u->piece;
    if (n < 0) {
        u->is_cut = true;
        archive_set_error(a, EIO, "the daemon's reply was cut");
        return ARCHIVE_FATAL;
    }
    return n;
}

static int unpack_content(struct unpacker *u, struct archive *in, struct archive *disk)
{
    const void *data;
    size_t size;
    la_int64_t offset;

    for (;;) {
        int result = archive_read_data_block(in, &data, &size, &offset);
        if (result == ARCHIVE_EOF)
            return archive_write_finish_entry(disk) == ARCHIVE_OK
                       ? 0
                       : set_archive_error(u->error, disk, "a file");
        if (result != ARCHIVE_OK)
            return u->is_cut ? -1 : set_archive_error(u->error, in, "a file");
        if (archive_write_data_block(disk, data, size, offset) < ARCHIVE_OK)
            return set_archive_error(u->error, disk, "a file");
    }
}

/* The daemon sends nothing but these three; what it passes on is a guest's all the same. */
static int unpack_entry(struct unpacker *u, struct archive *in, struct archive *disk,
                        struct archive_entry *entry)
{
    mode_t type = archive_entry_filetype(entry);
    const char *path = archive_entry_pathname(entry);
    char name[CHANNEL_PATH_MAX];

    (void)snprintf(name, sizeof(name), "%s", path != NULL ? path : "");
    if ((type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK) ||
        archive_entry_hardlink(entry) != NULL)
        return error_set(u->error, ERR_CONFLICT, "%.300s is no file, directory or symbolic link",
                         name);
    archive_entry_set_perm(entry, archive_entry_perm(entry) & 0777);
    if (archive_write_header(disk, entry) != ARCHIVE_OK)
        return set_archive_error(u->error, disk, name);
    if (unpack_content(u, in, disk) == 0)
        return 0;
    return u->is_cut ? -1 : error_wrap(u->error, "%.200s", name);
}

/* Below the working directory: paths that lead out of it are refused. */
static int unpack_all(struct unpacker *u, struct archive *in, struct archive *disk)
{
    struct archive_entry *entry;

    if (archive_read_support_format_tar(in) != ARCHIVE_OK ||
        archive_write_disk_set_options(disk, EXTRACT_FLAGS) != ARCHIVE_OK ||
        archive_read_open(in, u, NULL, on_read, NULL) != ARCHIVE_OK)
        return u->is_cut ? -1 : set_archive_error(u->error, in, "what the daemon sends");
    for (;;) {
        int result = archive_read_next_header(in, &entry);
        if (result == ARCHIVE_EOF)
            return archive_write_close(disk) == ARCHIVE_OK
                       ? 0
                       : set_archive_error(u->error, disk, "directories");
        /* A warning: a name that is not ASCII, which is taken as it is. */
        if (result != ARCHIVE_OK && result != ARCHIVE_WARN)
            return u->is_cut ? -1 : set_archive_error(u->error, in, "what the daemon sends");
        if (unpack_entry(u, in, disk, entry) != 0)
            return -1;
    }
}

static int unpack(struct client *c, struct meter *meter, struct error *e)
{
    static struct unpacker u;
    struct archive *in = archive_read_new(), *disk = archive_write_disk_new();
    int result = -1;

    u.client = c;
    u.meter = meter;
    u.error = e;
    if (in == NULL || disk == NULL)
        (void)error_set(e, ERR_INTERNAL, "out of memory");
    else
        result = unpack_all(&u, in, disk);
    (void)archive_read_free(in);
    (void)archive_write_free(disk);
    return result;
}

/* The rest of the command works in the directory. */
static int enter(const char *path, struct error *e)
{
    if ((mkdir(path, 0777) != 0 && errno != EEXIST) || chdir(path) != 0)
        return error_errno(e, errno, "%s", path);
    return 0;
}

int cp_get_tree(const char *socket_path, const struct cp_place *from, const struct cp_place *to,
                struct error *e)
{
    struct buffer target = BUFFER_INIT(HTTP_TARGET_BYTES_MAX);
    struct meter meter = meter_start("copying");
    struct client c;
    int result = -1;

    if (cp_place_target(from, "/files/tar", "", &target, e) == 0 &&
        client_open(&c, socket_path, e) == 0) {
        const struct client_request request = {.method = "GET",
                                               .target = (const char *)buffer_bytes(&target),
                                               .accept = "application/x-tar"};
        c.on_wait = meter_tick;
        c.on_wait_context = &meter;
        c.keep_header = "x-cloche-skipped";
        result = client_send(&c, &request, e);
        if (result == 0)
            result = enter(to->path, e);
        if (result == 0)
            result = unpack(&c, &meter, e);
        if (result == 0)
            result = client_finish(&c, e); /* only a reply that has its end is whole */
        client_close(&c);
    }
    progress_end(&meter.progress);
    buffer_fini(&target);
    if (result == 0)
        tell_skipped(strtoull(c.kept, NULL, 10));
    return result;
}
