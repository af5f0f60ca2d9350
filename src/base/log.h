/*
 * Log lines of a role, to stderr: "2026-01-31T12:00:00.123Z info daemon: text". Libraries do not
 * log; a role prints one line per failure. Control characters are written as \xNN, so that a
 * guest's or client's bytes cannot forge a line. Never give it a secret.
 */
#pragma once

struct error;

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Names the role (static storage) and the most verbose level that is printed. */
void log_init(const char *role, enum log_level level);

void log_print(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_print(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_print(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_print(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_print(LOG_DEBUG, __VA_ARGS__)

/* "context: message (cause)" at LOG_ERROR. */
void log_failure(const struct error *e, const char *context);
