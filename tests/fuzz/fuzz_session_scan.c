/*
 * A shell's output, cut into that of its commands. The first byte says whether a report follows,
 * the second how the rest is cut; in the rest a byte of 1 stands for the whole marker and one of 2
 * for its first half, which no fuzzer would find. Property: what comes out is what a search for
 * the marker in the whole finds, however the bytes were cut.
 */
#include <assert.h>
#include <string.h>

#include "base/buffer.h"
#include "daemon/process/session_scan.h"

#define OUTPUT_MAX (256 * KIB)

static const char marker[] = "\036"
                             "0123456789abcdef0123456789abcdef:";

static struct buffer output;

static void put(void *arg, const uint8_t *data, size_t size)
{
    assert(arg == &output && size > 0);
    int failed = buffer_append(&output, data, size);
    assert(failed == 0);
}

/* The input as the shell's bytes. */
static size_t expand(const uint8_t *data, size_t size, uint8_t *to, size_t room)
{
    size_t used = 0;

    for (size_t i = 0; i < size && used + SESSION_MARKER_BYTES <= room; i++) {
        size_t part = data[i] == 1   ? SESSION_MARKER_BYTES
                      : data[i] == 2 ? 1 + i % (SESSION_MARKER_BYTES - 1)
                                     : 0;
        memcpy(to + used, marker, part);
        if (part == 0)
            to[used++] = data[i];
        used += part;
    }
    return used;
}

/* Where the first marker begins; `size` for nowhere. */
static size_t find(const uint8_t *bytes, size_t size)
{
    const uint8_t *at = memmem(bytes, size, marker, SESSION_MARKER_BYTES);

    return at != NULL ? (size_t)(at - bytes) : size;
}

/* How much of the end of `bytes` may be the beginning of a marker, and is held back. */
static size_t held_back(const uint8_t *bytes, size_t size)
{
    for (size_t part = SESSION_MARKER_BYTES - 1; part > 0; part--)
        if (size >= part && memcmp(bytes + size - part, marker, part) == 0)
            return part;
    return 0;
}

static void check(const struct session_scan *s, const uint8_t *bytes, size_t size, size_t used,
                  bool has_report)
{
    size_t first = find(bytes, size), behind = first + SESSION_MARKER_BYTES;
    size_t second = first < size ? behind + find(bytes + behind, size - behind) : size;
    size_t report = first < size ? second - behind : 0;
    size_t shown = first < size ? first : size - held_back(bytes, size);

    assert(output.size == shown && (shown == 0 || memcmp(output.data, bytes, shown) == 0));
    assert(session_scan_done(s) == (has_report ? second < size : first < size));
    if (!session_scan_done(s))
        assert(used == size);
    else
        assert(used == (has_report ? second : first) + SESSION_MARKER_BYTES);
    if (!session_scan_done(s) || !has_report)
        return;
    assert(s->report_size <= SESSION_REPORT_MAX && s->report[s->report_size] == '\0');
    if (report > SESSION_REPORT_MAX)
        assert(s->is_too_long);
    else
        assert(!s->is_too_long && s->report_size == report &&
               memcmp(s->report, bytes + behind, report) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[OUTPUT_MAX];
    static struct session_scan s;
    size_t used = 0;

    if (size < 2)
        return 0;
    bool has_report = data[0] % 2 != 0;
    size_t total = expand(data + 2, size - 2, bytes, sizeof(bytes));
    output = (struct buffer)BUFFER_INIT(OUTPUT_MAX);
    session_scan_begin(&s, marker, has_report);
    while (used < total && !session_scan_done(&s)) {
        size_t piece = data[1] == 0 ? total : 1 + bytes[used] % (1 + (size_t)data[1]);
        size_t left = total - used;

        piece = piece < left ? piece : left;
        size_t n = session_scan_feed(&s, bytes + used, piece, put, &output);
        assert(n == piece || (session_scan_done(&s) && n < piece));
        used += n;
    }
    check(&s, bytes, total, used, has_report);
    buffer_fini(&output);
    return 0;
}
