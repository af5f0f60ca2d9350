#include "daemon/machine/snapshot_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/fd.h"

#define COPY_BYTES (64 * KIB)
#define PAGE_BYTES 4096u

void snapshot_fini(struct snapshot *s)
{
    fd_close(&s->mem_fd);
    fd_close(&s->state_fd);
    fd_close(&s->scratch_fd);
}

static int make_memfd(const char *name, uint64_t bytes, struct error *e)
{
    FD_AUTO int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0)
        return error_errno(e, errno, "cannot make %llu MiB of memory for a snapshot",
                           (unsigned long long)(bytes / MIB));
    return fd_take(&fd);
}

int snapshot_prepare(struct snapshot *s, const struct snapshot_key *key, int tmp_fd,
                     struct error *e)
{
    *s = (struct snapshot)SNAPSHOT_INIT;
    s->mem_fd = make_memfd("cloche-mem", key->mem_mib * MIB, e);
    if (s->mem_fd < 0)
        return -1;
    s->state_fd = make_memfd("cloche-state", 0, e);
    if (s->state_fd < 0)
        return -1;
    s->scratch_fd = openat(tmp_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (s->scratch_fd < 0 || ftruncate(s->scratch_fd, (off_t)(key->disk_mib * MIB)) != 0)
        return error_errno(e, errno, "cannot make a scratch disk of %u MiB", key->disk_mib);
    return 0;
}

int snapshot_seal(struct snapshot *s, struct error *e)
{
    const int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

    if (fcntl(s->mem_fd, F_ADD_SEALS, seals) != 0 || fcntl(s->state_fd, F_ADD_SEALS, seals) != 0)
        return error_errno(e, errno, "cannot seal a snapshot's memory");
    return 0;
}

static bool is_zero(const uint8_t *p, size_t size)
{
    return p[0] == 0 && memcmp(p, p + 1, size - 1) == 0;
}

/* Adds every page that is not all zeroes, with its place, to the checksum: the same for the same
 * content however a file system lays out holes. */
static uint32_t checksum_pages(uint32_t crc, const uint8_t *data, size_t size, uint64_t offset)
{
    for (size_t at = 0; at < size; at += PAGE_BYTES) {
        size_t part = size - at < PAGE_BYTES ? size - at : PAGE_BYTES;
        uint64_t place = offset + at;

        if (is_zero(data + at, part))
            continue;
        crc = crc32c(crc, &place, sizeof(place));
        crc = crc32c(crc, data + at, part);
    }
    return crc;
}

/*
 * Walks the data of sparse `from`: with `to` >= 0 it is written there at the same offsets, with
 * `ret_crc` its checksum is made.
 */
static int copy_sparse(int from, int to, uint64_t bytes, uint32_t *ret_crc, struct error *e)
{
    uint8_t *chunk = malloc(COPY_BYTES);
    uint32_t crc = 0;
    off_t at = 0;
    int result = -1;

    if (chunk == NULL)
        return error_errno(e, ENOMEM, "cannot copy a snapshot");
    while ((at = lseek(from, at, SEEK_DATA)) >= 0) {
        off_t end = lseek(from, at, SEEK_HOLE);

        /* Whole pages of the checksum, also where a hole's edge is not on one. */
        at -= at % (off_t)PAGE_BYTES;
        while (at < end) {
            uint64_t left = bytes - (uint64_t)at;
            ssize_t n = fd_pread_full(from, chunk, left < COPY_BYTES ? left : COPY_BYTES, at);

            if (n <= 0 || (to >= 0 && !is_zero(chunk, (size_t)n) &&
                           fd_pwrite_full(to, chunk, (size_t)n, at) != 0)) {
                (void)error_errno(e, n == 0 ? EIO : errno, "cannot copy a snapshot");
                goto out;
            }
            if (ret_crc != NULL)
                crc = checksum_pages(crc, chunk, (size_t)n, (uint64_t)at);
            at += n;
        }
    }
    if (errno != ENXIO) {
        (void)error_errno(e, errno, "cannot copy a snapshot");
        goto out;
    }
    if (ret_crc != NULL)
        *ret_crc = crc;
    result = 0;
out:
    free(chunk);
    return result;
}

/* Writes `from` as file `name` in `dir`, synced. */
static int save_file(int dir, const char *name, int from, uint64_t bytes, uint32_t *ret_crc,
                     struct error *e)
{
    FD_AUTO int to = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (to < 0 || ftruncate(to, (off_t)bytes) != 0)
        return error_errno(e, errno, "cannot write a snapshot's %s", name);
    if (copy_sparse(from, to, bytes, ret_crc, e) != 0)
        return -1;
    if (fsync(to) != 0)
        return error_errno(e, errno, "cannot write a snapshot's %s", name);
    return 0;
}

static void remove_folder(int parent, const char *name)
{
    static const char *const files[] = {"manifest", "state", "mem", "scratch"};
    FD_AUTO int dir = openat(parent, name, O_DIRECTORY | O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    if (dir < 0)
        return;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        (void)unlinkat(dir, files[i], 0);
    (void)unlinkat(parent, name, AT_REMOVEDIR);
}

/* Counts the folders; the name of the one that was used longest ago comes back. */
static unsigned find_oldest(int snapshots_fd, char ret_name[NAME_MAX + 1])
{
    struct timespec oldest = {0};
    struct dirent *entry;
    struct stat st;
    unsigned count = 0;
    int fd = openat(snapshots_fd, ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (dir == NULL) {
        fd_close(&fd);
        return 0;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.' ||
            fstatat(snapshots_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISDIR(st.st_mode))
            continue;
        if (count++ == 0 || st.st_mtim.tv_sec < oldest.tv_sec ||
            (st.st_mtim.tv_sec == oldest.tv_sec && st.st_mtim.tv_nsec < oldest.tv_nsec)) {
            oldest = st.st_mtim;
            (void)snprintf(ret_name, NAME_MAX + 1, "%s", entry->d_name);
        }
    }
    (void)closedir(dir);
    return count;
}

/* Makes room for one more: a client that asks for ever new shapes must not fill the disk. Those in
 * use need no folder. */
static void prune(int snapshots_fd)
{
    char name[NAME_MAX + 1];
    unsigned count = find_oldest(snapshots_fd, name);

    for (; count >= SNAPSHOT_STORED_MAX; count--) {
        remove_folder(snapshots_fd, name);
        (void)find_oldest(snapshots_fd, name);
    }
}

static int write_folder(const struct snapshot *s, const struct snapshot_key *key, int dir,
                        struct error *e)
{
    struct snapshot_manifest m;
    uint8_t bytes[SNAPSHOT_MANIFEST_BYTES];
    struct stat st;

    if (fstat(s->state_fd, &st) != 0)
        return error_errno(e, errno, "cannot read a snapshot's state");
    m.state_bytes = (uint64_t)st.st_size;
    if (save_file(dir, "state", s->state_fd, m.state_bytes, &m.state_crc, e) != 0 ||
        save_file(dir, "mem", s->mem_fd, key->mem_mib * MIB, &m.mem_crc, e) != 0 ||
        save_file(dir, "scratch", s->scratch_fd, key->disk_mib * MIB, &m.scratch_crc, e) != 0)
        return -1;
    snapshot_manifest_put(&m, key, bytes);
    FD_AUTO int fd = openat(dir, "manifest", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || fd_write_full(fd, bytes, sizeof(bytes)) != 0 || fsync(fd) != 0 || fsync(dir) != 0)
        return error_errno(e, errno, "cannot write a snapshot's manifest");
    return 0;
}

int snapshot_save(const struct snapshot *s, const struct snapshot_key *key, int snapshots_fd,
                  struct error *e)
{
    char name[SNAPSHOT_NAME_MAX + 8];

    prune(snapshots_fd);
    (void)snprintf(name, sizeof(name), ".new-%s", key->name);
    remove_folder(snapshots_fd, name);
    if (mkdirat(snapshots_fd, name, 0700) != 0)
        return error_errno(e, errno, "cannot make the snapshot folder %s", name);
    FD_AUTO int dir = openat(snapshots_fd, name, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    if (dir < 0) {
        (void)error_errno(e, errno, "cannot open the snapshot folder %s", name);
        return -1;
    }
    if (write_folder(s, key, dir, e) != 0) {
        remove_folder(snapshots_fd, name);
        return -1;
    }
    remove_folder(snapshots_fd, key->name);
    if (renameat(snapshots_fd, name, snapshots_fd, key->name) != 0 || fsync(snapshots_fd) != 0)
        return error_errno(e, errno, "cannot rename the snapshot folder %s", name);
    return 0;
}

static int load_file(int dir, const char *name, int to, uint64_t bytes, uint32_t crc,
                     const struct snapshot_key *key, struct error *e)
{
    FD_AUTO int from = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    uint32_t found;
    char what[64];

    if (from < 0 || fstat(from, &st) != 0) {
        (void)snprintf(what, sizeof(what), "its file %s cannot be opened", name);
        return snapshot_corrupt(key, e, what);
    }
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != bytes) {
        (void)snprintf(what, sizeof(what), "its file %s has the wrong size", name);
        return snapshot_corrupt(key, e, what);
    }
    if (copy_sparse(from, to, bytes, &found, e) != 0)
        return error_wrap(e, "snapshot %s, file %s", key->name, name);
    if (found != crc) {
        (void)snprintf(what, sizeof(what), "the checksum of its file %s does not match", name);
        return snapshot_corrupt(key, e, what);
    }
    return 0;
}

/* As snapshot_manifest_parse(). */
static int read_manifest(int dir, const struct snapshot_key *key,
                         struct snapshot_manifest *ret_manifest, struct error *e)
{
    FD_AUTO int fd = openat(dir, "manifest", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    uint8_t bytes[SNAPSHOT_MANIFEST_BYTES];
    ssize_t n = fd >= 0 ? fd_read_full(fd, bytes, sizeof(bytes)) : -1;

    return snapshot_manifest_parse(bytes, n > 0 ? (size_t)n : 0, key, ret_manifest, e);
}

static int load_folder(struct snapshot *s, const struct snapshot_key *key, int dir,
                       const struct snapshot_manifest *m, struct error *e)
{
    s->mem_fd = make_memfd("cloche-mem", key->mem_mib * MIB, e);
    if (s->mem_fd < 0)
        return -1;
    s->state_fd = make_memfd("cloche-state", m->state_bytes, e);
    if (s->state_fd < 0)
        return -1;
    if (load_file(dir, "state", s->state_fd, m->state_bytes, m->state_crc, key, e) != 0 ||
        load_file(dir, "mem", s->mem_fd, key->mem_mib * MIB, m->mem_crc, key, e) != 0 ||
        load_file(dir, "scratch", -1, key->disk_mib * MIB, m->scratch_crc, key, e) != 0)
        return -1;
    s->scratch_fd = openat(dir, "scratch", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (s->scratch_fd < 0)
        return snapshot_corrupt(key, e, "its file scratch cannot be opened");
    return snapshot_seal(s, e);
}

/* Being removed, or left by a process that ended while it did: the manifest goes first. */
static bool is_removed(int dir)
{
    return faccessat(dir, "manifest", F_OK, 0) != 0 && errno == ENOENT;
}

int snapshot_load(struct snapshot *ret_snapshot, const struct snapshot_key *key, int snapshots_fd,
                  struct error *e)
{
    FD_AUTO int dir =
        openat(snapshots_fd, key->name, O_DIRECTORY | O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct snapshot s = SNAPSHOT_INIT;
    struct snapshot_manifest m = {0};

    if (dir < 0 && errno == ENOENT)
        return 1;
    if (dir < 0)
        return snapshot_corrupt(key, e, strerror(errno));
    (void)futimens(dir, NULL); /* for find_oldest, before somebody prunes */
    int result = read_manifest(dir, key, &m, e);
    if (result == 0)
        result = load_folder(&s, key, dir, &m, e);
    if (result == 0)
        *ret_snapshot = s;
    else
        snapshot_fini(&s);
    if (result < 0 && is_removed(dir)) {
        *e = (struct error)ERROR_INIT;
        result = 1;
    }
    return result;
}

int snapshot_scratch(const struct snapshot *s, int scratch_dir_fd, struct error *e)
{
    FD_AUTO int fd = openat(scratch_dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    struct stat st;

    if (fd < 0 || fstat(s->scratch_fd, &st) != 0)
        return error_errno(e, errno, "cannot make a sandbox's scratch disk");
    if (ioctl(fd, FICLONE, s->scratch_fd) == 0)
        return fd_take(&fd);
    if (ftruncate(fd, st.st_size) != 0)
        return error_errno(e, errno, "cannot make a sandbox's scratch disk");
    if (copy_sparse(s->scratch_fd, fd, (uint64_t)st.st_size, NULL, e) != 0)
        return error_wrap(e, "a sandbox's scratch disk");
    return fd_take(&fd);
}
