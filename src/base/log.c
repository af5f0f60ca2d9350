#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

static const char *log_role = "cloche";
static enum log_level log_level_max = LOG_INFO;

void log_init(const char *role, enum log_level level)
{
    log_role = role;
    log_level_max = level;
}

/* Copies `text` to `to` with control characters escaped; returns the length. */
static size_t escape(char *to, size_t size, const char *text)
{
    size_t used = 0;

    for (const unsigned char *p = (const unsigned char *)text; *p != '\0' && used + 5 < size; p++) {
        if (*p >= 0x20 && *p != 0x7f)
            to[used++] = (char)*p;
        else
            used += (size_t)snprintf(to + used, size - used, "\\x%02x", *p);
    }
    return used;
}

void log_print(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    char text[2048];
    char line[4096];
    struct timespec now;
    struct tm tm;
    va_list ap;

    if (level > log_level_max)
        return;
    va_start(ap, format);
    (void)vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &tm);
    size_t used = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
    used +=
        (size_t)snprintf(line + used, sizeof(line) - used,
                         ".%03dZ %s %s: ", (int)(now.tv_nsec / 1000000), names[level], log_role);
    used += escape(line + used, sizeof(line) - used - 1, text);
    line[used++] = '\n';
    /* One write, so that lines of several processes do not mix. */
    (void)!write(STDERR_FILENO, line, used);
}

void log_failure(const struct error *e, const char *context)
{
    log_error("%s: %s%s%s%s", context, e->message, e->cause[0] ? " (" : "", e->cause,
              e->cause[0] ? ")" : "");
}
