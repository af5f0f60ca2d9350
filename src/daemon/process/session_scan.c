#include "daemon/process/session_scan.h"

#include <assert.h>
#include <string.h>

void session_scan_begin(struct session_scan *s, const char *marker, bool has_report)
{
    assert(strlen(marker) == SESSION_MARKER_BYTES);
    *s = (struct session_scan){.has_report = has_report};
    memcpy(s->marker, marker, SESSION_MARKER_BYTES);
}

bool session_scan_done(const struct session_scan *s)
{
    return s->markers == (s->has_report ? 2 : 1);
}

static void put_bytes(struct session_scan *s, const uint8_t *data, size_t size,
                      void (*put)(void *arg, const uint8_t *data, size_t size), void *arg)
{
    if (size == 0)
        return;
    if (s->markers == 0) {
        put(arg, data, size);
    } else if (size > SESSION_REPORT_MAX - s->report_size) {
        s->is_too_long = true;
    } else {
        memcpy(s->report + s->report_size, data, size);
        s->report_size += size;
    }
}

size_t session_scan_feed(struct session_scan *s, const uint8_t *data, size_t size,
                         void (*put)(void *arg, const uint8_t *data, size_t size), void *arg)
{
    size_t used = 0;

    while (used < size && !session_scan_done(s)) {
        if (s->matched > 0 && data[used] != (uint8_t)s->marker[s->matched]) {
            /* Not a marker. Its first byte does not come again in it, so none began inside. */
            size_t matched = s->matched;

            s->matched = 0;
            put_bytes(s, (const uint8_t *)s->marker, matched, put, arg);
            continue;
        }
        if (s->matched > 0 || data[used] == (uint8_t)s->marker[0]) {
            used++;
            if (++s->matched == SESSION_MARKER_BYTES) {
                s->matched = 0;
                s->markers++;
            }
            continue;
        }
        const uint8_t *next = memchr(data + used, s->marker[0], size - used);
        size_t plain = next != NULL ? (size_t)(next - (data + used)) : size - used;
        put_bytes(s, data + used, plain, put, arg);
        used += plain;
    }
    return used;
}
