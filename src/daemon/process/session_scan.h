/*
 * Where in a shell's output a command ends: behind each command the shell prints a marker, which
 * nobody can print by accident as it is random. Everything in front of the marker is the command's
 * output. The report of the end stands between two markers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cloche/limits.h"

#define SESSION_MARKER_BYTES 34u /* a record separator, 32 hexadecimal digits, a colon */
#define SESSION_REPORT_MAX   (CHANNEL_PATH_MAX + 16)

struct session_scan {
    char marker[SESSION_MARKER_BYTES + 1];
    size_t matched;   /* bytes of a marker that may be one */
    bool has_report;  /* a report is to come, and a second marker */
    unsigned markers; /* that have come */
    bool is_too_long; /* what should be the report */
    size_t report_size;
    char report[SESSION_REPORT_MAX + 1];
};

/* A fresh scan. `marker` has SESSION_MARKER_BYTES characters, of which only the first is '\036'. */
void session_scan_begin(struct session_scan *scan, const char *marker, bool has_report);

/* Whether the last marker has come; the report is a string then. */
bool session_scan_done(const struct session_scan *scan);

/* Looks at the next bytes, gives those that are output to `put`, and stops behind the last marker.
 * Returns how many bytes were used: all, unless the scan is done. */
size_t session_scan_feed(struct session_scan *scan, const uint8_t *data, size_t size,
                         void (*put)(void *arg, const uint8_t *data, size_t size), void *arg);
