#include "daemon/sandbox/sandbox_table.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "daemon/context.h"
#include "daemon/sandbox/sandbox_private.h"

#define TOMBSTONE_COUNT   1024u /* ended sandboxes whose reason is remembered */
#define MEMINFO_EVERY_NS  (200 * NS_PER_MS)
#define MEMINFO_BYTES_MAX 4096u

/* What is known of a sandbox that is gone, so that a late request gets an answer it can use. */
struct tombstone {
    char id[SANDBOX_ID_BYTES_MAX];
    enum sandbox_end why;
    char text[256];
};

struct sandbox_table {
    TAILQ_HEAD(, sandbox) sandboxes;
    unsigned count;
    struct tombstone tombstones[TOMBSTONE_COUNT]; /* a ring */
    unsigned tombstone_next;
    uint64_t meminfo_ns; /* when available_mib was read */
    uint64_t available_mib;
};

int sandbox_table_new(struct sandbox_table **ret_table, struct error *e)
{
    struct sandbox_table *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    TAILQ_INIT(&t->sandboxes);
    *ret_table = t;
    return 0;
}

void sandbox_table_free(struct sandbox_table *t)
{
    assert(t == NULL || t->count == 0);
    free(t);
}

/* MemAvailable of /proc/meminfo in MiB; plenty when it cannot be read, so that the cgroups decide.
 */
static uint64_t read_available_mib(void)
{
    char text[MEMINFO_BYTES_MAX];
    FD_AUTO int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? fd_read_full(fd, text, sizeof(text) - 1) : -1;

    if (n <= 0)
        return UINT64_MAX;
    text[n] = '\0';
    const char *at = strstr(text, "MemAvailable:");
    return at != NULL ? strtoull(at + strlen("MemAvailable:"), NULL, 10) / 1024 : UINT64_MAX;
}

int sandbox_table_admit(struct daemon *d, struct error *e)
{
    struct sandbox_table *t = d->sandboxes;
    uint64_t now_ns = clock_mono_ns();

    if (d->stopping)
        return error_set(e, ERR_SHUTTING_DOWN, "the daemon stops");
    if (t->count >= d->settings.max_sandboxes) {
        (void)error_set(e, ERR_NO_CAPACITY, "%u sandboxes are running, which is the limit",
                        t->count);
        return error_remedy(e, "delete some, or raise max_sandboxes in the configuration");
    }
    if (t->meminfo_ns == 0 || now_ns - t->meminfo_ns > MEMINFO_EVERY_NS) {
        t->available_mib = read_available_mib();
        t->meminfo_ns = now_ns;
    }
    if (t->available_mib < d->settings.reserve_mem_mib) {
        (void)error_set(e, ERR_NO_CAPACITY,
                        "the host has %llu MiB of memory available; %u MiB are kept in reserve",
                        (unsigned long long)t->available_mib, d->settings.reserve_mem_mib);
        return error_remedy(e, "delete sandboxes, or lower reserve_mem_mib in the configuration");
    }
    return 0;
}

void sandbox_table_add(struct sandbox *s)
{
    struct sandbox_table *t = s->daemon->sandboxes;

    TAILQ_INSERT_TAIL(&t->sandboxes, s, link);
    t->count++;
}

void sandbox_table_remove(struct sandbox *s)
{
    struct sandbox_table *t = s->daemon->sandboxes;
    struct tombstone *stone = &t->tombstones[t->tombstone_next];

    TAILQ_REMOVE(&t->sandboxes, s, link);
    t->count--;
    t->tombstone_next = (t->tombstone_next + 1) % TOMBSTONE_COUNT;
    memcpy(stone->id, s->id, sizeof(stone->id));
    stone->why = s->why;
    (void)snprintf(stone->text, sizeof(stone->text), "%.255s", s->error.message);
}

static int set_gone(struct error *e, const char *id, enum sandbox_end why, const char *text)
{
    (void)error_set(e, ERR_SANDBOX_GONE, "sandbox %s has ended: %s", id, sandbox_end_name(why));
    if (text[0] != '\0')
        (void)error_cause(e, "%.250s", text);
    return error_remedy(e, "create a new one with POST /v1/sandboxes");
}

struct sandbox *sandbox_find(struct daemon *d, const char *id, struct error *e)
{
    struct sandbox_table *t = d->sandboxes;
    struct sandbox *s;

    TAILQ_FOREACH (s, &t->sandboxes, link) {
        if (strcmp(s->id, id) != 0)
            continue;
        if (s->state == SANDBOX_RUNNING)
            return s;
        if (s->why_open) {
            (void)error_set(e, ERR_SANDBOX_GONE, "sandbox %s is ending: its monitor has gone",
                            s->id);
            (void)error_remedy(e, "ask again in a moment for the reason");
        } else if (s->state == SANDBOX_ENDING) {
            (void)set_gone(e, s->id, s->why, s->error.message);
        } else {
            (void)error_set(e, ERR_CONFLICT, "sandbox %s is still starting", s->id);
            (void)error_remedy(e, "wait for the reply of the request that creates it");
        }
        return NULL;
    }
    for (unsigned i = 0; i < TOMBSTONE_COUNT; i++) {
        if (t->tombstones[i].id[0] != '\0' && strcmp(t->tombstones[i].id, id) == 0) {
            (void)set_gone(e, t->tombstones[i].id, t->tombstones[i].why, t->tombstones[i].text);
            return NULL;
        }
    }
    (void)error_set(e, ERR_SANDBOX_NOT_FOUND, "there is no sandbox %.40s", id);
    (void)error_remedy(e, "GET /v1/sandboxes (`cloche ps`) lists those that run.");
    return NULL;
}

void sandbox_end_all(struct daemon *d)
{
    struct sandbox *s;

    TAILQ_FOREACH (s, &d->sandboxes->sandboxes, link)
        sandbox_stop(s);
}

unsigned sandbox_count(const struct daemon *d)
{
    return d->sandboxes->count;
}

struct sandbox *sandbox_next(const struct daemon *d, const struct sandbox *after)
{
    return after == NULL ? TAILQ_FIRST(&d->sandboxes->sandboxes) : TAILQ_NEXT(after, link);
}
