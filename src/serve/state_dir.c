#include "serve/state_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

#define LOCK_PAUSE_US 20000u

int state_make_path(const char *path, struct error *e)
{
    char part[PATH_MAX];
    size_t size = strlen(path);

    if (size == 0 || size >= sizeof(part))
        return error_set(e, ERR_USAGE, "'%s' is not a usable path", path);
    for (size_t i = 1; i <= size; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST) {
            (void)error_errno(e, errno, "cannot make directory %s", part);
            return error_remedy(e, "choose another path, or make the directory writable for root");
        }
    }
    return 0;
}

static bool is_empty(int dir_fd)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    bool empty = dir != NULL;

    if (dir == NULL) {
        fd_close(&fd);
        return false;
    }
    for (struct dirent *d; empty && (d = readdir(dir)) != NULL;)
        empty = strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0;
    (void)closedir(dir);
    return empty;
}

/*
 * Files in the state directory are opened by name as root, so nobody else may be able to put any
 * there. The rights of a directory that was there with something in it are not changed: it may be
 * somebody's by a slip of the keyboard.
 */
static int check_rights(int fd, const char *path, struct error *e)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return error_errno(e, errno, "cannot look at state directory %s", path);
    if (st.st_uid != 0) {
        (void)error_set(e, ERR_USAGE, "state directory %s belongs to uid %u", path, st.st_uid);
        return error_remedy(e, "chown it to root, or choose another --state-dir");
    }
    if ((st.st_mode & 07077) == 0)
        return 0;
    if (!is_empty(fd)) {
        (void)error_set(e, ERR_USAGE, "state directory %s is open to other users (mode %04o)", path,
                        st.st_mode & 07777);
        return error_remedy(e, "if it is cloche's, chmod 700 it; else choose another --state-dir");
    }
    if (fchmod(fd, 0700) != 0)
        return error_errno(e, errno, "cannot close state directory %s to others", path);
    return 0;
}

static int say_running(int lock_fd, const char *path, struct error *e)
{
    char text[16] = "";
    ssize_t n = fd_pread_full(lock_fd, text, sizeof(text) - 1, 0);
    long pid = n > 0 ? strtol(text, NULL, 10) : 0;

    if (pid > 0)
        (void)error_set(e, ERR_ALREADY_RUNNING,
                        "a daemon with pid %ld already runs on state directory %s", pid, path);
    else
        (void)error_set(e, ERR_ALREADY_RUNNING, "another daemon already runs on state directory %s",
                        path);
    return error_remedy(e, "stop it first, or choose another --state-dir and --socket");
}

/* Takes the lock; the pid in the file is for people. */
static int take_lock(int dir_fd, const char *path, unsigned wait_ms, int *ret_fd, struct error *e)
{
    uint64_t end_ns = clock_mono_ns() + wait_ms * NS_PER_MS;
    char text[16];
    FD_AUTO int fd = openat(dir_fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return error_errno(e, errno, "cannot open %s/lock", path);
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return error_errno(e, errno, "cannot lock %s/lock", path);
        if (clock_mono_ns() >= end_ns)
            return say_running(fd, path, e);
        (void)usleep(LOCK_PAUSE_US);
    }
    int size = snprintf(text, sizeof(text), "%d\n", getpid());
    if (ftruncate(fd, 0) != 0 || fd_pwrite_full(fd, text, (size_t)size, 0) != 0)
        return error_errno(e, errno, "cannot write %s/lock", path);
    *ret_fd = fd_take(&fd);
    return 0;
}

static int open_part(int dir_fd, const char *path, const char *name, uint32_t uid, int *ret_fd,
                     struct error *e)
{
    if (mkdirat(dir_fd, name, 0700) != 0 && errno != EEXIST)
        return error_errno(e, errno, "cannot make %s/%s", path, name);
    FD_AUTO int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_uid != 0 && st.st_uid != uid) {
        (void)error_set(e, ERR_USAGE, "%s/%s belongs to uid %u; with this uid base it must be %u",
                        path, name, st.st_uid, uid);
        return error_remedy(e, "start with --uid-base %u, or remove %s/%s (it is made anew)",
                            st.st_uid, path, name);
    }
    if (fd < 0 || fchown(fd, uid, uid) != 0 || fchmod(fd, 0700) != 0)
        return error_errno(e, errno, "cannot take %s/%s", path, name);
    *ret_fd = fd_take(&fd);
    return 0;
}

/* FNV-1a over the path and the file system: containers often share a path, rarely both. */
static uint64_t instance_of(const char *path, dev_t device)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (const char *p = path; *p != '\0'; p++)
        hash = (hash ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
    for (unsigned i = 0; i < 8; i++)
        hash = (hash ^ ((uint64_t)device >> (8 * i) & 0xff)) * UINT64_C(0x100000001b3);
    return hash;
}

static int open_all(struct state_dir *d, const char *path, uint32_t uid, unsigned wait_ms,
                    struct error *e)
{
    struct stat st;

    if (state_make_path(path, e) != 0)
        return -1;
    if (realpath(path, d->path) == NULL)
        return error_errno(e, errno, "cannot resolve state directory %s", path);
    FD_AUTO int fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0)
        return error_errno(e, errno, "cannot open state directory %s", d->path);
    d->instance = instance_of(d->path, st.st_dev);
    if (check_rights(fd, d->path, e) != 0 || take_lock(fd, d->path, wait_ms, &d->lock_fd, e) != 0 ||
        open_part(fd, d->path, "snapshots", uid, &d->snapshots_fd, e) != 0 ||
        open_part(fd, d->path, "scratch", uid, &d->scratch_fd, e) != 0 ||
        open_part(fd, d->path, "tmp", uid, &d->tmp_fd, e) != 0)
        return -1;
    d->journal_fd = openat(fd, "journal", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (d->journal_fd < 0)
        return error_errno(e, errno, "cannot open %s/journal", d->path);
    return 0;
}

int state_dir_open(const char *path, uint32_t daemon_uid, unsigned wait_ms,
                   struct state_dir *ret_dir, struct error *e)
{
    *ret_dir = (struct state_dir){
        .lock_fd = -1, .journal_fd = -1, .snapshots_fd = -1, .scratch_fd = -1, .tmp_fd = -1};
    if (open_all(ret_dir, path, daemon_uid, wait_ms, e) == 0)
        return 0;
    state_dir_close(ret_dir);
    return -1;
}

void state_dir_close(struct state_dir *d)
{
    fd_close(&d->lock_fd);
    fd_close(&d->journal_fd);
    fd_close(&d->snapshots_fd);
    fd_close(&d->scratch_fd);
    fd_close(&d->tmp_fd);
}
