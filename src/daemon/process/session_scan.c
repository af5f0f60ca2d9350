#include "daemon/process/session_scan.h"

#include <assert.h>
#include <string.h>

void session_scan_begin(struct session_scan *scan, const char *marker, bool has_report)
{
    assert(strlen(marker) == SESSION_MARKER_BYTES);
    *scan = (struct session_scan){.has_report = has_report};
    memcpy(scan->marker, marker, SESSION_MARKER_BYTES);
}

bool session_scan_done(const struct session_scan *scan)
{
    return scan->markers == (scan->has_report ? 2 : 1);
}

static void put_bytes(struct session_scan *scan, const uint8_t *data, size_t size,
                      void (*put)(void *arg, const uint8_t *data, size_t size), void *arg)
{
    if (size == 0)
        return;
    if (scan->markers == 0) {
        put(arg, data, size);
    } else if (size > SESSION_REPORT_MAX - scan->report_size) {
        scan->is_too_long = true;
    } else {
        memcpy(scan->report + scan->report_size, data, size);
        scan->report_size += size;
    }
}

size_t session_scan_feed(struct session_scan *scan, const uint8_t *data, size_t size,
                         void (*put)(void *arg, const uint8_t *data, size_t size), void *arg)
{
    size_t used = 0;

    while (used < size && !session_scan_done(scan)) {
        if (scan->matched > 0 && data[used] != (uint8_t)scan->marker[scan->matched]) {
            /* Not a marker. Its first byte does not come again in it, so none began inside. */
            size_t matched = scan->matched;

            scan->matched = 0;
            put_bytes(scan, (const uint8_t *)scan->marker, matched, put, arg);
            continue;
        }
        if (scan->matched > 0 || data[used] == (uint8_t)scan->marker[0]) {
            used++;
            if (++scan->matched == SESSION_MARKER_BYTES) {
                scan->matched = 0;
                scan->markers++;
            }
            continue;
        }
        const uint8_t *next = memchr(data + used, scan->marker[0], size - used);
        size_t plain = next != NULL ? (size_t)(next - (data + used)) : size - used;
        put_bytes(scan, data + used, plain, put, arg);
        used += plain;
    }
    return used;
}
