#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int status;
    int exit_code;
} table[ERR_COUNT] = {[ERR_NONE] = {"none", 200, 0},
#define X(id, name, status, exit_code) [id] = {name, status, exit_code},
                      ERROR_TABLE(X)
#undef X
};

int error_set(struct error *e, enum error_code code, const char *format, ...)
{
    va_list ap;

    *e = (struct error){.code = code};
    va_start(ap, format);
    (void)vsnprintf(e->message, sizeof(e->message), format, ap);
    va_end(ap);
    return -1;
}

int error_errno(struct error *e, int err, const char *format, ...)
{
    va_list ap;

    *e = (struct error){.code = ERR_INTERNAL};
    va_start(ap, format);
    (void)vsnprintf(e->message, sizeof(e->message), format, ap);
    va_end(ap);
    (void)snprintf(e->cause, sizeof(e->cause), "%s", strerror(err));
    return -1;
}

int error_wrap(struct error *e, const char *format, ...)
{
    char context[sizeof(e->message)];
    char inner[sizeof(e->message)];
    va_list ap;

    va_start(ap, format);
    (void)vsnprintf(context, sizeof(context), format, ap);
    va_end(ap);
    memcpy(inner, e->message, sizeof(inner));
    /* What does not fit is cut at the end: the outermost context is what the reader needs first. */
    int used = snprintf(e->message, sizeof(e->message), "%s: ", context);
    if (used > 0 && (size_t)used < sizeof(e->message)) {
        size_t length = strnlen(inner, sizeof(e->message) - (size_t)used - 1);

        memcpy(e->message + used, inner, length);
        e->message[(size_t)used + length] = '\0';
    }
    return -1;
}

int error_cause(struct error *e, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    (void)vsnprintf(e->cause, sizeof(e->cause), format, ap);
    va_end(ap);
    return -1;
}

int error_remedy(struct error *e, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    (void)vsnprintf(e->remedy, sizeof(e->remedy), format, ap);
    va_end(ap);
    return -1;
}

void error_format(const struct error *e, char *ret_text, size_t size)
{
    (void)snprintf(ret_text, size, "%s%s%s%s%s%s", e->message, e->cause[0] ? " (" : "", e->cause,
                   e->cause[0] ? ")" : "", e->remedy[0] ? "\n  " : "", e->remedy);
}

const char *error_name(enum error_code code)
{
    return code < ERR_COUNT ? table[code].name : table[ERR_INTERNAL].name;
}

int error_http_status(enum error_code code)
{
    return code < ERR_COUNT ? table[code].status : table[ERR_INTERNAL].status;
}

int error_exit_code(enum error_code code)
{
    return code < ERR_COUNT ? table[code].exit_code : table[ERR_INTERNAL].exit_code;
}

enum error_code error_from_name(const char *name)
{
    for (unsigned i = ERR_NONE + 1; i < ERR_COUNT; i++) {
        if (strcmp(table[i].name, name) == 0)
            return (enum error_code)i;
    }
    return ERR_INTERNAL;
}
