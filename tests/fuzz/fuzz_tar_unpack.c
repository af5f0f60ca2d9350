/*
 * Archives on their way into a guest. The first byte says what is done to the rest: bit 0 mends the
 * checksum of each block that looks like a header, bit 1 repeats the last block for long enough to
 * meet every bound. Properties: what comes out are entries that a guest's agent takes
 * (base/tree.h); an archive that is taken was whole, one that is refused says why and what to do;
 * and whatever it is, little memory is held for it at any one time.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/tree.h"
#include "daemon/archive/tar_work.h"

#define BLOCK      512u
#define INPUT_MAX  (64 * KIB)
#define REPEATED   (16 * TAR_HEADER_BYTES_MAX)
#define OUTPUT_MAX (256 * KIB) /* then nobody takes it any more */
#define MEMORY_MAX (4 * MIB)

/* As in <sanitizer/allocator_interface.h>, which gcc has not. */
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                              void (*on_free)(const volatile void *));
size_t __sanitizer_get_allocated_size(const volatile void *at);

static int64_t held, peak; /* by all threads */

static void on_malloc(const volatile void *at, size_t size)
{
    int64_t now = __atomic_add_fetch(&held, (int64_t)size, __ATOMIC_RELAXED);
    int64_t most = __atomic_load_n(&peak, __ATOMIC_RELAXED);

    (void)at;
    while (now > most && !__atomic_compare_exchange_n(&peak, &most, now, true, __ATOMIC_RELAXED,
                                                      __ATOMIC_RELAXED))
        continue;
}

static void on_free(const volatile void *at)
{
    if (at != NULL)
        (void)__atomic_sub_fetch(&held, (int64_t)__sanitizer_get_allocated_size(at),
                                 __ATOMIC_RELAXED);
}

/* The other end: gives the archive, and judges what comes as an agent would. */
struct peer {
    int fd;
    const uint8_t *data;
    size_t size;
    size_t taken;
    struct tree_reader reader;
    bool is_cut; /* had enough */
};

static void judge(struct peer *p, const uint8_t *bytes, size_t size)
{
    struct error e = ERROR_INIT;
    struct tree_entry entry;
    enum tree_event event;
    size_t used;

    for (size_t at = 0; at < size; at += used) {
        int rc = tree_reader_next(&p->reader, bytes + at, size - at, &used, &event, &entry, &e);
        assert(rc == 0 && used > 0);
        assert(event != TREE_ENTRY || entry.type != TREE_SKIPPED);
        assert(event != TREE_ENTRY || entry.size <= TREE_FILE_BYTES_MAX);
    }
    p->taken += size;
    if (p->taken > OUTPUT_MAX) {
        p->is_cut = true;
        (void)shutdown(p->fd, SHUT_RDWR);
    }
}

static void *peer_main(void *arg)
{
    static uint8_t bytes[64 * KIB];
    struct peer *p = arg;

    for (size_t sent = 0;;) {
        struct pollfd poll_fd = {.fd = p->fd, .events = POLLIN | (sent < p->size ? POLLOUT : 0)};
        int ready = poll(&poll_fd, 1, -1);
        assert(ready == 1);
        if ((poll_fd.revents & POLLOUT) != 0) {
            ssize_t n = send(p->fd, p->data + sent, p->size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
            sent = n < 0 ? p->size : sent + (size_t)n;
            if (sent == p->size)
                (void)shutdown(p->fd, SHUT_WR);
        }
        if ((poll_fd.revents & (POLLIN | POLLHUP)) != 0) {
            ssize_t n = recv(p->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
            if (n <= 0 && !(n < 0 && errno == EAGAIN))
                return NULL;
            if (n > 0)
                judge(p, bytes, (size_t)n);
        }
    }
}

static void run(const uint8_t *data, size_t size)
{
    static struct peer p;
    struct tar_work work = {0};
    pthread_t thread;
    int fds[2];

    int rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);
    assert(rc == 0);
    p = (struct peer){.fd = fds[0], .data = data, .size = size};
    tree_reader_init(&p.reader);
    /* An empty archive has nothing to wait for. */
    if (size == 0)
        (void)shutdown(fds[0], SHUT_WR);
    rc = pthread_create(&thread, NULL, peer_main, &p);
    assert(rc == 0);
    int64_t before = __atomic_load_n(&held, __ATOMIC_RELAXED);
    __atomic_store_n(&peak, before, __ATOMIC_RELAXED);
    int result = tar_unpack(fds[1], &work);
    assert(__atomic_load_n(&peak, __ATOMIC_RELAXED) - before <= (int64_t)MEMORY_MAX);
    (void)close(fds[1]);
    rc = pthread_join(thread, NULL);
    assert(rc == 0);
    (void)close(fds[0]);
    assert((result == 0) == (work.error.code == ERR_NONE));
    if (p.is_cut)
        return;
    if (result == 0) {
        assert(tree_reader_is_between(&p.reader) && size >= BLOCK && data[size - 1] == 0);
    } else {
        assert(work.error.code == ERR_ARCHIVE_REFUSED);
        assert(work.error.message[0] != '\0' && work.error.remedy[0] != '\0');
    }
}

static void mend(uint8_t block[BLOCK])
{
    unsigned sum = 0;
    char text[8];

    memset(block + 148, ' ', 8);
    for (size_t i = 0; i < BLOCK; i++)
        sum += block[i];
    (void)snprintf(text, sizeof(text), "%06o", sum);
    memcpy(block + 148, text, sizeof(text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[INPUT_MAX + REPEATED];
    static bool is_hooked;

    if (!is_hooked) {
        int installed = __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
        assert(installed > 0);
        is_hooked = true;
    }
    if (size < 1 || size > INPUT_MAX)
        return 0;
    size_t used = size - 1;
    memcpy(bytes, data + 1, used);
    for (size_t at = 0; (data[0] & 1) != 0 && at + BLOCK <= used; at += BLOCK)
        if (memcmp(bytes + at + 257, "ustar", 5) == 0)
            mend(bytes + at);
    size_t block = used < BLOCK ? used : BLOCK;
    if ((data[0] & 2) != 0 && block > 0)
        for (size_t end = used + REPEATED; used + block <= end; used += block)
            memcpy(bytes + used, bytes + used - block, block);
    run(bytes, used);
    return 0;
}
