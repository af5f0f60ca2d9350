/*
 * Errors that carry their story. A function that can fail returns 0 or -1 and takes a `struct error
 * *e` last: success leaves it untouched, failure fills it. The message is made where the fact is
 * known, callers add context in front of it on the way up, and a role prints or sends it once.
 */
#pragma once

#include <stddef.h>

/*
 * The one table of error codes: name in the API, HTTP status, exit code of the command line tool.
 * `cloche run` and `cloche exec` exit with the guest command's own code, so cloche's own failures
 * keep to 124 (time out) and 125 (anything else), as users of container tools expect; 2 is usage.
 */
#define ERROR_TABLE(X)                                                                             \
    X(ERR_INTERNAL, "internal", 500, 125)                                                          \
    X(ERR_BAD_REQUEST, "bad_request", 400, 125)                                                    \
    X(ERR_INVALID_JSON, "invalid_json", 400, 125)                                                  \
    X(ERR_UNKNOWN_FIELD, "unknown_field", 400, 125)                                                \
    X(ERR_INVALID_FIELD, "invalid_field", 400, 125)                                                \
    X(ERR_INVALID_PATH, "invalid_path", 400, 125)                                                  \
    X(ERR_NOT_FOUND, "not_found", 404, 125)                                                        \
    X(ERR_TEMPLATE_NOT_FOUND, "template_not_found", 404, 125)                                      \
    X(ERR_SANDBOX_NOT_FOUND, "sandbox_not_found", 404, 125)                                        \
    X(ERR_FILE_NOT_FOUND, "file_not_found", 404, 125)                                              \
    X(ERR_PROCESS_NOT_FOUND, "process_not_found", 404, 125)                                        \
    X(ERR_METHOD_NOT_ALLOWED, "method_not_allowed", 405, 125)                                      \
    X(ERR_REQUEST_TIMEOUT, "request_timeout", 408, 124)                                            \
    X(ERR_CONFLICT, "conflict", 409, 125)                                                          \
    X(ERR_FILE_EXISTS, "file_exists", 409, 125)                                                    \
    X(ERR_DIRECTORY_NOT_EMPTY, "directory_not_empty", 409, 125)                                    \
    X(ERR_SANDBOX_GONE, "sandbox_gone", 410, 125)                                                  \
    X(ERR_TOO_LARGE, "too_large", 413, 125)                                                        \
    X(ERR_RANGE, "range_not_satisfiable", 416, 125)                                                \
    X(ERR_FILE_REFUSED, "file_refused", 422, 125)                                                  \
    X(ERR_ARCHIVE_REFUSED, "archive_refused", 422, 125)                                            \
    X(ERR_COMMAND_NOT_STARTED, "command_not_started", 422, 125)                                    \
    X(ERR_UPGRADE_REQUIRED, "upgrade_required", 426, 125)                                          \
    X(ERR_IDEMPOTENCY_MISMATCH, "idempotency_mismatch", 422, 125)                                  \
    X(ERR_TOO_MANY, "too_many", 429, 125)                                                          \
    X(ERR_HEADER_TOO_LARGE, "header_too_large", 431, 125)                                          \
    X(ERR_NOT_IMPLEMENTED, "not_implemented", 501, 125)                                            \
    X(ERR_TEMPLATE_CORRUPT, "template_corrupt", 500, 125)                                          \
    X(ERR_BOOT_FAILED, "boot_failed", 500, 125)                                                    \
    X(ERR_NO_CAPACITY, "no_capacity", 503, 125)                                                    \
    X(ERR_SHUTTING_DOWN, "shutting_down", 503, 125)                                                \
    X(ERR_KVM_UNAVAILABLE, "kvm_unavailable", 503, 125)                                            \
    X(ERR_BOOT_TIMEOUT, "boot_timeout", 504, 124)                                                  \
    X(ERR_DEADLINE_EXCEEDED, "deadline_exceeded", 504, 124)                                        \
    X(ERR_HTTP_VERSION, "http_version_not_supported", 505, 125)                                    \
    X(ERR_DISK_FULL, "disk_full", 507, 125)                                                        \
    X(ERR_UNREACHABLE, "unreachable", 502, 125)                                                    \
    X(ERR_ALREADY_RUNNING, "already_running", 409, 125)                                            \
    X(ERR_USAGE, "usage", 400, 2)

enum error_code {
    ERR_NONE,
#define X(id, name, status, exit_code) id,
    ERROR_TABLE(X)
#undef X
        ERR_COUNT
};

struct error {
    enum error_code code;
    char message[512]; /* what is wrong, naming the field or object */
    char cause[256];   /* why, where that is more than the message says (strerror, guest's words) */
    char remedy[256];  /* what the user can do */
};

#define ERROR_INIT                                                                                 \
    {                                                                                              \
        .code = ERR_NONE                                                                           \
    }

/* Fills `e` anew and returns -1, so that a caller can `return error_set(e, ...)`. */
int error_set(struct error *e, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4), nonnull(1, 3)));

/* As error_set with ERR_INTERNAL, and strerror(err) as the cause. `err` is an errno value. */
int error_errno(struct error *e, int err, const char *format, ...)
    __attribute__((format(printf, 3, 4), nonnull(1, 3)));

/* Puts "context: " in front of the message of a failed call; returns -1. */
int error_wrap(struct error *e, const char *format, ...)
    __attribute__((format(printf, 2, 3), nonnull(1, 2)));

/* Set cause or remedy of an error that is already set; return -1. */
int error_cause(struct error *e, const char *format, ...)
    __attribute__((format(printf, 2, 3), nonnull(1, 2)));
int error_remedy(struct error *e, const char *format, ...)
    __attribute__((format(printf, 2, 3), nonnull(1, 2)));

/* One line for a log or a terminal: "message (cause)\n  remedy" without the final newline. */
void error_format(const struct error *e, char *ret_text, size_t size) __attribute__((nonnull));

const char *error_name(enum error_code code);
int error_http_status(enum error_code code);
int error_exit_code(enum error_code code);

/* The code with that API name, or ERR_INTERNAL for a name not in the table. */
enum error_code error_from_name(const char *name) __attribute__((nonnull));
