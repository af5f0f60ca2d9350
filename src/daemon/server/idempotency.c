#include "daemon/server/idempotency.h"

#include <assert.h>
#include <sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "cloche/limits.h"

#define BUCKETS 4096u /* a power of two */

_Static_assert(IDEMPOTENCY_PRINT_BYTES == SHA256_DIGEST_LENGTH, "a print is a SHA-256");

enum state { RUNNING, KEPT, SPENT };

struct idempotency_entry {
    LIST_ENTRY(idempotency_entry) in_bucket;
    TAILQ_ENTRY(idempotency_entry) in_order; /* not RUNNING */
    enum state state;
    uint8_t name[SHA256_DIGEST_LENGTH];
    uint8_t print[IDEMPOTENCY_PRINT_BYTES];
    uint64_t done_ms;
    enum idempotency_waste why;     /* SPENT */
    struct idempotency_reply reply; /* KEPT */
    uint8_t *data;
};

LIST_HEAD(bucket, idempotency_entry);

struct idempotency_table {
    struct bucket buckets[BUCKETS];
    TAILQ_HEAD(, idempotency_entry) done; /* oldest first */
    size_t count;
    size_t bytes; /* of the replies that are kept */
};

int idempotency_table_new(struct idempotency_table **ret_table, struct error *e)
{
    struct idempotency_table *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory");
    TAILQ_INIT(&t->done);
    *ret_table = t;
    return 0;
}

static void drop(struct idempotency_table *t, struct idempotency_entry *entry)
{
    if (entry->state != RUNNING)
        TAILQ_REMOVE(&t->done, entry, in_order);
    LIST_REMOVE(entry, in_bucket);
    t->count--;
    t->bytes -= entry->reply.size;
    free(entry->data);
    free(entry);
}

void idempotency_table_free(struct idempotency_table *t)
{
    struct idempotency_entry *entry;

    if (t == NULL)
        return;
    while ((entry = TAILQ_FIRST(&t->done)) != NULL)
        drop(t, entry);
    assert(t->count == 0 && t->bytes == 0);
    free(t);
}

int idempotency_check_key(const char *key, struct error *e)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789._-";
    size_t size = strlen(key);

    if (size > 0 && size <= IDEMPOTENCY_KEY_MAX && strspn(key, allowed) == size)
        return 0;
    (void)error_set(e, ERR_INVALID_FIELD, "the header Idempotency-Key is \"%.80s\"", key);
    return error_remedy(e, "Give 1 to %u letters, digits, '.', '_' or '-' (a UUID, for example).",
                        IDEMPOTENCY_KEY_MAX);
}

/* None of the parts holds a line feed: where one ends is never in doubt. */
static void digest_name(const struct idempotency_request *r, uint8_t digest[SHA256_DIGEST_LENGTH])
{
    const char *const parts[] = {r->method, r->target, r->key};
    SHA2_CTX sha;

    SHA256Init(&sha);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        SHA256Update(&sha, (const uint8_t *)parts[i], strlen(parts[i]));
        SHA256Update(&sha, (const uint8_t *)"\n", 1);
    }
    SHA256Final(digest, &sha);
}

static struct bucket *bucket_of(struct idempotency_table *t,
                                const uint8_t name[SHA256_DIGEST_LENGTH])
{
    return &t->buckets[(name[0] | (unsigned)name[1] << 8) & (BUCKETS - 1)];
}

uint64_t idempotency_expire(struct idempotency_table *t, uint64_t now_ms)
{
    struct idempotency_entry *entry;

    while ((entry = TAILQ_FIRST(&t->done)) != NULL) {
        if (now_ms < entry->done_ms + IDEMPOTENCY_KEEP_MS)
            return entry->done_ms + IDEMPOTENCY_KEEP_MS;
        drop(t, entry);
    }
    return 0;
}

/* Why a key that is known gives no reply. */
static int refuse(const struct idempotency_entry *entry, struct error *e)
{
    static const char *const reasons[] = {
        [IDEMPOTENCY_STREAMED] = "it was answered with a stream, and streams are not kept",
        [IDEMPOTENCY_UNKEPT] = "it was done, but its reply was too large to be kept",
        [IDEMPOTENCY_BROKEN_OFF] = "it failed or was broken off, and may be done in part",
    };

    if (entry->state == RUNNING) {
        (void)error_set(e, ERR_CONFLICT,
                        "the first request with this Idempotency-Key is still running");
        return error_remedy(e, "Ask again in a moment.");
    }
    (void)error_set(e, ERR_CONFLICT, "the request with this Idempotency-Key is not done again");
    (void)error_cause(e, "%s", reasons[entry->why]);
    return error_remedy(e, "See GET .../processes for what runs in the sandbox; to do it once more,"
                           " use a new key.");
}

static int claim_known(const struct idempotency_entry *entry,
                       const struct idempotency_request *request,
                       const struct idempotency_reply **ret_reply, struct error *e)
{
    if (memcmp(entry->print, request->print, sizeof(entry->print)) != 0) {
        (void)error_set(e, ERR_IDEMPOTENCY_MISMATCH,
                        "this Idempotency-Key came before, with another body or Accept");
        return error_remedy(e, "Use a new key for each new request.");
    }
    if (entry->state != KEPT)
        return refuse(entry, e);
    *ret_reply = &entry->reply;
    return 0;
}

int idempotency_claim(struct idempotency_table *t, const struct idempotency_request *request,
                      uint64_t now_ms, struct idempotency_entry **ret_entry,
                      const struct idempotency_reply **ret_reply, struct error *e)
{
    uint8_t name[SHA256_DIGEST_LENGTH];
    struct idempotency_entry *entry;

    digest_name(request, name);
    (void)idempotency_expire(t, now_ms);
    LIST_FOREACH (entry, bucket_of(t, name), in_bucket) {
        if (memcmp(entry->name, name, sizeof(name)) != 0)
            continue;
        if (claim_known(entry, request, ret_reply, e) != 0)
            return -1;
        *ret_entry = NULL;
        return 0;
    }
    if (t->count == IDEMPOTENCY_ENTRIES_MAX && !TAILQ_EMPTY(&t->done))
        drop(t, TAILQ_FIRST(&t->done));
    if (t->count == IDEMPOTENCY_ENTRIES_MAX || (entry = calloc(1, sizeof(*entry))) == NULL) {
        (void)error_set(e, ERR_NO_CAPACITY, "too many requests with an Idempotency-Key at once");
        return error_remedy(e, "Ask again in a moment.");
    }
    memcpy(entry->name, name, sizeof(name));
    memcpy(entry->print, request->print, sizeof(entry->print));
    LIST_INSERT_HEAD(bucket_of(t, name), entry, in_bucket);
    t->count++;
    *ret_entry = entry;
    return 0;
}

static void finish(struct idempotency_table *t, struct idempotency_entry *entry, enum state state,
                   uint64_t now_ms)
{
    assert(entry->state == RUNNING && state != RUNNING);
    entry->state = state;
    entry->done_ms = now_ms;
    TAILQ_INSERT_TAIL(&t->done, entry, in_order);
}

void idempotency_keep(struct idempotency_table *t, struct idempotency_entry *entry, uint64_t now_ms,
                      int status, const char *content_type, const void *data, size_t size)
{
    struct idempotency_reply *reply = &entry->reply;

    if (content_type == NULL)
        content_type = "";
    if (size <= IDEMPOTENCY_REPLY_MAX && strlen(content_type) < sizeof(reply->content_type))
        entry->data = malloc(size + 1); /* a reply without a byte has its place too */
    if (entry->data == NULL) {
        idempotency_spend(t, entry, now_ms, IDEMPOTENCY_UNKEPT);
        return;
    }
    while (t->bytes > IDEMPOTENCY_BYTES_MAX - size)
        drop(t, TAILQ_FIRST(&t->done));
    if (size > 0)
        memcpy(entry->data, data, size);
    reply->status = status;
    (void)snprintf(reply->content_type, sizeof(reply->content_type), "%s", content_type);
    reply->data = entry->data;
    reply->size = size;
    t->bytes += size;
    finish(t, entry, KEPT, now_ms);
}

void idempotency_spend(struct idempotency_table *t, struct idempotency_entry *entry,
                       uint64_t now_ms, enum idempotency_waste why)
{
    entry->why = why;
    finish(t, entry, SPENT, now_ms);
}

void idempotency_forget(struct idempotency_table *t, struct idempotency_entry *entry)
{
    assert(entry->state == RUNNING);
    drop(t, entry);
}
