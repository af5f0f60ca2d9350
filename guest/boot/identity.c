#include "guest/boot/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

/* What the kernel's pool can hold. */
#define ENTROPY_BYTES 32u
/* What may wait of /dev/hwrng: 64 bytes in the core, 64 in the driver, 64 in the virtqueue. */
#define HWRNG_STALE_BYTES 192u
_Static_assert(sizeof(((struct identity_page *)NULL)->entropy) == 2 * ENTROPY_BYTES, "two halves");

/* RNDADDENTROPY's argument with room for its buffer. */
struct entropy_pool {
    int bit_count;
    int byte_count;
    uint8_t bytes[ENTROPY_BYTES];
};
_Static_assert(sizeof(struct rand_pool_info) == offsetof(struct entropy_pool, bytes), "ABI");

int identity_map(struct identity *i, struct error *e)
{
    /* Without O_SYNC: RAM is mapped cached. The doorbell is no memory, so its mapping's type
     * does not matter: every store leaves the guest. */
    FD_AUTO int fd = open("/dev/mem", O_RDWR | O_CLOEXEC);

    *i = (struct identity){.random_fd = -1, .hwrng_fd = -1};
    if (fd < 0)
        return error_errno(e, errno, "/dev/mem");
    void *page = mmap(NULL, GUEST_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                      (off_t)GUEST_IDENTITY_GPA);
    if (page == MAP_FAILED)
        return error_errno(e, errno, "the identity page");
    void *doorbell = mmap(NULL, GUEST_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                          (off_t)GUEST_DOORBELL_GPA);
    if (doorbell == MAP_FAILED)
        return error_errno(e, errno, "the doorbell page");
    i->page = page;
    i->doorbell = doorbell;
    return 0;
}

/*
 * The pool takes in 256 bits, however many it is given; hashing the rest would cost a millisecond
 * where the kernel is interpreted. So the two halves are folded into one here: it is uniform as
 * long as one of them is, and no byte of the page is unused.
 */
static int add_entropy(int random_fd, const uint8_t bytes[2 * ENTROPY_BYTES])
{
    struct entropy_pool pool = {.bit_count = ENTROPY_BYTES * 8, .byte_count = ENTROPY_BYTES};

    for (size_t n = 0; n < ENTROPY_BYTES; n++)
        pool.bytes[n] = bytes[n] ^ bytes[n + ENTROPY_BYTES];
    int result = ioctl(random_fd, RNDADDENTROPY, &pool);
    explicit_bzero(&pool, sizeof(pool));
    return result;
}

/* The seed of before the snapshot protects nothing: it is the same in every clone, and replaced in
 * each. But a reseed is refused by a generator that has never been initialised. */
static int initialise_random(int random_fd)
{
    static const uint8_t ZEROES[2 * ENTROPY_BYTES];
    uint8_t byte;

    if (getrandom(&byte, sizeof(byte), GRND_NONBLOCK) == sizeof(byte))
        return 0;
    return add_entropy(random_fd, ZEROES);
}

int identity_prepare(struct identity *i, struct error *e)
{
    char text[MACHINE_ID_BYTES];
    FD_AUTO int fd = -1;

    i->hwrng_fd = open("/dev/hwrng", O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* may be missing */
    i->random_fd = open("/dev/random", O_RDWR | O_CLOEXEC);
    if (i->random_fd < 0 || initialise_random(i->random_fd) < 0)
        return error_errno(e, errno, "/dev/random");
    memset(text, '0', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\n';
    fd = open("/run/machine-id", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0444);
    if (fd < 0 || fd_write_full(fd, text, sizeof(text)) < 0)
        return error_errno(e, errno, "/run/machine-id");
    void *mapped = mmap(NULL, sizeof(text), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        return error_errno(e, errno, "/run/machine-id");
    i->machine_id = mapped;
    /* Written to once, so that the page is mapped for writing when it counts. */
    memcpy(i->machine_id, text, sizeof(text));
    return 0;
}

void identity_ring(const struct identity *i, uint32_t doorbell)
{
    *i->doorbell = doorbell;
}

int identity_check(const struct identity_page *page)
{
    if (page->magic != IDENTITY_MAGIC || page->version != IDENTITY_VERSION || page->reserved != 0 ||
        page->hostname[0] == '\0' || memchr(page->hostname, '\0', sizeof(page->hostname)) == NULL)
        return GUEST_FAILURE_IDENTITY;
    return 0;
}

void identity_format_machine_id(const uint8_t id[16], char ret_text[MACHINE_ID_BYTES])
{
    static const char DIGITS[] = "0123456789abcdef";

    for (unsigned i = 0; i < 16; i++) {
        ret_text[2 * i] = DIGITS[id[i] >> 4];
        ret_text[2 * i + 1] = DIGITS[id[i] & 15];
    }
    ret_text[32] = '\n';
}

static int apply(const struct identity *i, const struct identity_page *page)
{
    struct timespec now = {.tv_sec = (time_t)(page->realtime_ns / NS_PER_S),
                           .tv_nsec = (long)(page->realtime_ns % NS_PER_S)};

    /* Mixed in first, then made to count at once, in all that the kernel hands out from here on. */
    if (add_entropy(i->random_fd, page->entropy) < 0 || ioctl(i->random_fd, RNDRESEEDCRNG) < 0)
        return GUEST_FAILURE_RESEED;
    if (clock_settime(CLOCK_REALTIME, &now) < 0)
        return GUEST_FAILURE_CLOCK;
    if (sethostname(page->hostname, strlen(page->hostname)) < 0)
        return GUEST_FAILURE_HOSTNAME;
    identity_format_machine_id(page->machine_id, i->machine_id);
    return 0;
}

int identity_assume(const struct identity *i)
{
    volatile uint32_t *doorbell = i->doorbell;
    struct identity_page page;

    *doorbell = DOORBELL_PARK;
    *doorbell = DOORBELL_FIRST;

    volatile uint8_t *from = (volatile uint8_t *)i->page;
    uint8_t *to = (uint8_t *)&page;
    for (size_t n = 0; n < sizeof(page); n++) {
        to[n] = from[n];
        from[n] = 0;
    }
    int failure = identity_check(&page);
    if (failure == 0)
        failure = apply(i, &page);
    explicit_bzero(&page, sizeof(page));
    return failure;
}

void identity_drop_stale(struct identity *i)
{
    uint8_t bytes[64];
    size_t dropped = 0;
    ssize_t n = 1;

    while (i->hwrng_fd >= 0 && dropped < HWRNG_STALE_BYTES && n > 0) {
        n = read(i->hwrng_fd, bytes, sizeof(bytes));
        dropped += n > 0 ? (size_t)n : 0;
    }
    fd_close(&i->hwrng_fd);
}
