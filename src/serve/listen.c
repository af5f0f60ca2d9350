#include "serve/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "serve/state_dir.h"

#define LOCK_ATTEMPTS 50
#define PAUSE_US      20000u

/*
 * Two daemons that start at once on the same path must not both find the socket stale. The
 * directory's lock is advice among ourselves: whoever can open the directory could hold it, so
 * after a while we go on without.
 */
static void lock_dir(int dir_fd)
{
    for (unsigned i = 0; i < LOCK_ATTEMPTS && flock(dir_fd, LOCK_EX | LOCK_NB) != 0; i++)
        (void)usleep(PAUSE_US);
}

static int split_path(const char *path, char ret_dir[PATH_MAX], char ret_name[NAME_MAX + 1],
                      struct error *e)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    size_t dir_size = slash == NULL ? 0 : (size_t)(slash - path);

    if (name[0] == '\0' || strlen(name) > NAME_MAX || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0 || dir_size >= PATH_MAX)
        return error_set(e, ERR_USAGE, "--socket: '%s' does not name a socket", path);
    if (slash == NULL)
        (void)snprintf(ret_dir, PATH_MAX, ".");
    else
        (void)snprintf(ret_dir, PATH_MAX, "%.*s/", (int)dir_size, path);
    (void)snprintf(ret_name, NAME_MAX + 1, "%s", name);
    return 0;
}

/* True when somebody listens there (or would, with a shorter queue). */
static bool answers(const struct sockaddr_un *address)
{
    FD_AUTO int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return true; /* not known: do not take the name away */
    return connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
           (errno != ECONNREFUSED && errno != ENOENT);
}

static int say_running(const struct sockaddr_un *address, struct error *e)
{
    (void)error_set(e, ERR_ALREADY_RUNNING, "another daemon already listens on %s",
                    address->sun_path);
    return error_remedy(e, "stop it first, or choose another --socket and --state-dir");
}

static int set_address(const char *path, struct sockaddr_un *ret_address, struct error *e)
{
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(ret_address->sun_path))
        return error_set(e, ERR_USAGE, "--socket: the path is too long");
    (void)snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "%s", path);
    return 0;
}

int listen_check(const char *path, unsigned wait_ms, struct error *e)
{
    uint64_t end_ns = clock_mono_ns() + wait_ms * NS_PER_MS;
    struct sockaddr_un address;
    struct stat st;

    if (set_address(path, &address, e) != 0)
        return -1;
    while (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && answers(&address)) {
        if (clock_mono_ns() >= end_ns)
            return say_running(&address, e);
        (void)usleep(PAUSE_US);
    }
    return 0;
}

static int remove_stale(int dir_fd, const char *name, const struct sockaddr_un *address,
                        struct error *e)
{
    struct stat st;

    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT)
            return 0;
        return error_errno(e, errno, "cannot look at %s", address->sun_path);
    }
    if (!S_ISSOCK(st.st_mode)) {
        (void)error_set(e, ERR_USAGE, "%s exists and is not a socket", address->sun_path);
        return error_remedy(e, "choose another --socket, or remove it");
    }
    if (answers(address))
        return say_running(address, e);
    if (unlinkat(dir_fd, name, 0) != 0 && errno != ENOENT)
        return error_errno(e, errno, "cannot remove the stale socket %s", address->sun_path);
    return 0;
}

static int bind_socket(struct listen_socket *s, const struct sockaddr_un *address, gid_t group,
                       struct error *e)
{
    struct stat st;

    s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->fd < 0)
        return error_errno(e, errno, "cannot make a socket");
    /* The umask gives the right mode from the first moment on. */
    mode_t old = umask(0117);
    int r = bind(s->fd, (const struct sockaddr *)address, sizeof(*address));
    int err = errno;
    (void)umask(old);
    if (r != 0)
        return error_errno(e, err, "cannot bind the socket %s", address->sun_path);
    if (fstatat(s->dir_fd, s->name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISSOCK(st.st_mode))
        return error_errno(e, errno, "the socket %s vanished", address->sun_path);
    s->dev = st.st_dev;
    s->ino = st.st_ino;
    if (fchownat(s->dir_fd, s->name, 0, group, AT_SYMLINK_NOFOLLOW) != 0 ||
        listen(s->fd, SOMAXCONN) != 0) {
        (void)error_errno(e, errno, "cannot listen on %s", address->sun_path);
        listen_unlink(s);
        return -1;
    }
    return 0;
}

int listen_open(const char *path, gid_t group, struct listen_socket *ret_socket, struct error *e)
{
    struct listen_socket s = {.fd = -1, .dir_fd = -1};
    struct sockaddr_un address;
    char dir[PATH_MAX];

    if (set_address(path, &address, e) != 0 || split_path(path, dir, s.name, e) != 0 ||
        state_make_path(dir, e) != 0)
        return -1;
    s.dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s.dir_fd < 0)
        return error_errno(e, errno, "cannot open directory %s", dir);
    lock_dir(s.dir_fd);
    if (remove_stale(s.dir_fd, s.name, &address, e) != 0 ||
        bind_socket(&s, &address, group, e) != 0) {
        listen_close(&s);
        return -1;
    }
    (void)flock(s.dir_fd, LOCK_UN);
    *ret_socket = s;
    return 0;
}

void listen_close(struct listen_socket *s)
{
    fd_close(&s->fd);
    fd_close(&s->dir_fd);
}

void listen_unlink(const struct listen_socket *s)
{
    struct stat st;

    if (fstatat(s->dir_fd, s->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(st.st_mode) &&
        st.st_dev == s->dev && st.st_ino == s->ino)
        (void)unlinkat(s->dir_fd, s->name, 0);
}
