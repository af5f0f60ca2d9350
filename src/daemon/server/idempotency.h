/*
 * What is remembered of requests that came with an Idempotency-Key, so that one that is sent again
 * is not done again: which of them run, and the replies of those that are done.
 *
 *   (claim) -> RUNNING -> KEPT    the reply is there for whoever asks again
 *                      -> SPENT   it was done, or begun, and there is no reply to give: refused
 *                      -> (forgotten: the next claim is a first one)
 *
 * A key counts for one method and target. Entries have a fixed size but for the reply: what a key
 * belongs to is remembered as SHA-256, and so is what was asked for. All but the running ones go
 * IDEMPOTENCY_KEEP_MS after their reply, or earlier, oldest first, where there are too many entries
 * or bytes.
 *
 * Times are milliseconds of any clock that does not go back.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct idempotency_entry;
struct idempotency_table;

#define IDEMPOTENCY_TYPE_BYTES  64u /* of a content type that is kept, NUL included */
#define IDEMPOTENCY_PRINT_BYTES 32u

struct idempotency_request {
    const char *method;
    const char *target; /* as it came */
    const char *key;
    uint8_t print[IDEMPOTENCY_PRINT_BYTES]; /* SHA-256 of what is asked for */
};

struct idempotency_reply {
    int status;
    char content_type[IDEMPOTENCY_TYPE_BYTES]; /* "": it had none */
    const void *data;                          /* not NULL even where `size` is 0 */
    size_t size;
};

/* Why a key is spent. */
enum idempotency_waste {
    IDEMPOTENCY_STREAMED,   /* the reply was a stream */
    IDEMPOTENCY_UNKEPT,     /* the reply is too large, or memory was short */
    IDEMPOTENCY_BROKEN_OFF, /* it ended without a result, and may have done something */
};

int idempotency_table_new(struct idempotency_table **ret_table, struct error *e)
    __attribute__((nonnull, warn_unused_result));
/* Nothing may run any more. Accepts NULL. */
void idempotency_table_free(struct idempotency_table *t);

/* Whether a header's value is a key: 1 to IDEMPOTENCY_KEY_MAX of A-Z a-z 0-9 . _ - */
int idempotency_check_key(const char *key, struct error *e)
    __attribute__((nonnull, warn_unused_result));

/*
 * Claims a key for a request. Returns 0 and either `*ret_entry`, which is the caller's until it
 * calls one of the three functions below, or (`*ret_entry` is NULL) `*ret_reply`, the reply that is
 * kept, valid until the next call. Returns -1 with ERR_CONFLICT where the first request still runs
 * or the key is spent, ERR_IDEMPOTENCY_MISMATCH where it had another body, ERR_NO_CAPACITY.
 */
int idempotency_claim(struct idempotency_table *t, const struct idempotency_request *request,
                      uint64_t now_ms, struct idempotency_entry **ret_entry,
                      const struct idempotency_reply **ret_reply, struct error *e)
    __attribute__((nonnull, warn_unused_result));

/* The reply was made: keeps a copy. One that cannot be kept spends the key. `content_type` may be
 * NULL. */
void idempotency_keep(struct idempotency_table *t, struct idempotency_entry *entry, uint64_t now_ms,
                      int status, const char *content_type, const void *data, size_t size);
void idempotency_spend(struct idempotency_table *t, struct idempotency_entry *entry,
                       uint64_t now_ms, enum idempotency_waste why);
/* Nothing was done, or all of it undone. */
void idempotency_forget(struct idempotency_table *t, struct idempotency_entry *entry);

/* Drops what is too old; returns when the next one will be, or 0 where nothing is left to age. */
uint64_t idempotency_expire(struct idempotency_table *t, uint64_t now_ms);
