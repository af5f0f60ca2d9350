#include "cli/client/records.h"

#include <string.h>

/* The largest record is a collected file. */
#define RECORD_BYTES_MAX (RUN_COLLECT_BYTES_MAX / 3 * 4 + MIB)
#define PIECE_BYTES      (64 * KIB)

void records_init(struct records *r, struct client *client)
{
    *r = (struct records){.client = client, .text = BUFFER_INIT(RECORD_BYTES_MAX + PIECE_BYTES)};
}

void records_fini(struct records *r)
{
    buffer_fini(&r->text);
}

/* The first whole line's bytes, its line break included; 0 where there is none yet. */
static size_t line_size(struct records *r)
{
    if (r->scanned == r->text.size)
        return 0;
    const char *start = (const char *)buffer_bytes(&r->text);
    const char *end = memchr(start + r->scanned, '\n', r->text.size - r->scanned);

    if (end != NULL)
        return (size_t)(end - start) + 1;
    r->scanned = r->text.size;
    return 0;
}

int records_next(struct records *r, cJSON **ret_record, struct error *e)
{
    size_t size;

    while ((size = line_size(r)) == 0) {
        uint8_t *to = buffer_reserve(&r->text, PIECE_BYTES);
        if (to == NULL)
            return error_set(e, ERR_TOO_LARGE, "the daemon sent a record larger than %llu bytes",
                             (unsigned long long)RECORD_BYTES_MAX);
        ssize_t n = client_read(r->client, to, PIECE_BYTES, e);
        if (n < 0)
            return -1;
        if (n == 0 && r->text.size > 0)
            return error_set(e, ERR_UNREACHABLE, "the daemon's reply ends within a record");
        if (n == 0)
            return 0;
        buffer_commit(&r->text, (size_t)n);
    }
    int result = json_parse_object(buffer_bytes(&r->text), size - 1, ret_record, e);
    buffer_consume(&r->text, size);
    r->scanned = 0;
    return result == 0 ? 1 : error_wrap(e, "a record of the daemon's reply");
}
