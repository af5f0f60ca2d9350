/* The records of an NDJSON reply (one JSON object a line), as they come. */
#pragma once

#include <stddef.h>

#include "base/buffer.h"
#include "base/error.h"
#include "cli/client/client.h"

struct records {
    struct client *client;
    struct buffer text;
    size_t scanned; /* bytes of `text` that hold no line break */
};

/* Of a reply whose head has been read. */
void records_init(struct records *r, struct client *client);
void records_fini(struct records *r);

/* The next record, which the caller frees with cJSON_Delete. Returns 1, 0 at the reply's end, -1 on
 * failure; a last line without its line break is a failure, for it may be cut. */
int records_next(struct records *r, cJSON **ret_record, struct error *e)
    __attribute__((warn_unused_result));
