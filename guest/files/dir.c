#include "guest/files/dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

/* struct linux_dirent64 of getdents64(2). */
struct raw_entry {
    uint64_t inode;
    int64_t offset;
    uint16_t size; /* of the entry, name and padding included */
    uint8_t type;
    char name[];
};

void dir_init(struct dir *d)
{
    d->fd = -1;
    d->at = d->used = 0;
}

void dir_set(struct dir *d, int fd)
{
    fd_close(&d->fd);
    d->fd = fd;
    d->at = d->used = 0;
}

void dir_close(struct dir *d)
{
    dir_set(d, -1);
}

int dir_fill(struct dir *d)
{
    long n = syscall(SYS_getdents64, d->fd, d->bytes, sizeof(d->bytes));

    d->at = 0;
    d->used = n > 0 ? (size_t)n : 0;
    return n > 0 ? 1 : (int)n;
}

void dir_rewind(struct dir *d)
{
    (void)lseek(d->fd, 0, SEEK_SET);
    d->at = d->used = 0;
}

int dir_next(struct dir *d, struct dir_entry *ret_entry)
{
    while (d->at < d->used) {
        const struct raw_entry *raw = (const struct raw_entry *)(const void *)(d->bytes + d->at);

        d->at += raw->size;
        if (strcmp(raw->name, ".") == 0 || strcmp(raw->name, "..") == 0)
            continue;
        *ret_entry = (struct dir_entry){.name = raw->name, .type = raw->type};
        return 1;
    }
    return 0;
}

int dir_open_below(int base_fd, const char *path)
{
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};

    return (int)syscall(SYS_openat2, base_fd, path[0] != '\0' ? path : ".", &how, sizeof(how));
}
