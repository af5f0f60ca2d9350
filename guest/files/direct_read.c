#include "guest/files/direct_read.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int switch_direct(struct direct_read *d, int fd, bool on)
{
    if (d->is_on != on && staging_set_direct(fd, on) < 0)
        return -1;
    d->is_on = on;
    return 0;
}

void direct_read_begin(struct direct_read *d, struct stagings *t, int fd, uint64_t size)
{
    if (size < STAGING_BYTES || switch_direct(d, fd, true) < 0)
        return;
    void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return;
    d->map = map;
    d->map_bytes = size;
    d->staging = staging_take(t);
}

void direct_read_end(struct direct_read *d, struct stagings *t)
{
    if (d->map != NULL)
        (void)munmap(d->map, d->map_bytes);
    staging_give(t, d->staging);
    d->map = d->staging = NULL;
    d->size = 0;
}

static bool is_cached(const struct direct_read *d, uint64_t offset)
{
    unsigned char state = 0;

    return offset >= d->map_bytes || mincore((uint8_t *)d->map + offset, 1, &state) < 0 ||
           (state & 1) != 0;
}

/* Reads the piece that begins with the page of `offset`, where that is the way to read it. */
static int fill(struct direct_read *d, struct stagings *t, int fd, uint64_t offset)
{
    uint64_t start = offset - offset % STAGING_ALIGN;

    if (is_cached(d, start))
        return 0;
    if (switch_direct(d, fd, true) < 0)
        return -1;
    d->size = 0;
    ssize_t n = pread(fd, d->staging, STAGING_BYTES, (off_t)start);
    if (n < 0 && errno == EINVAL) { /* this file system takes the flag and not the reads */
        direct_read_end(d, t);
        return 0;
    }
    if (n < 0)
        return -1;
    d->at = start;
    d->size = (size_t)n;
    return 0;
}

/* How much of what the staging has begins at `offset`. */
static size_t staged(const struct direct_read *d, uint64_t offset)
{
    return offset >= d->at && offset - d->at < d->size ? d->size - (size_t)(offset - d->at) : 0;
}

ssize_t direct_read_at(struct direct_read *d, struct stagings *t, int fd, void *to, size_t size,
                       uint64_t offset)
{
    if (d->staging != NULL && staged(d, offset) == 0 && fill(d, t, fd, offset) < 0)
        return -1;
    size_t n = staged(d, offset);
    if (n == 0)
        return switch_direct(d, fd, false) < 0 ? -1 : pread(fd, to, size, (off_t)offset);
    n = n < size ? n : size;
    memcpy(to, d->staging + (offset - d->at), n);
    return (ssize_t)n;
}
