/* The JSON bodies of POST /v1/sandboxes, POST .../exec and POST /v1/run, from what the command line
 * says. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "cli/common/arguments.h"
#include "json/json_write.h"

struct request_command {
    char *const *argv; /* the command and its arguments, `argc` of them */
    size_t argc;
    bool is_shell;                    /* argv[0] is text for the shell */
    const struct argument_items *env; /* K=V each; names without = take our own value */
    const char *cwd;                  /* NULL: the template's */
    const char *user;                 /* NULL: root */
    const char *umask;                /* NULL: the template's */
    uint64_t timeout_ms;              /* 0: none of its own */
};

/* What a new sandbox is to be; NULL or 0: the daemon's default. */
struct request_shape {
    const char *template;
    uint64_t vcpus, mem_mib, disk_mib;
    uint64_t timeout_s; /* of the sandbox's life */
};

/* Puts those fields that are set into an open object. */
void request_put_shape(struct json_writer *w, const struct request_shape *shape);

/*
 * Reads standard input into `ret_input` where it is not a terminal. Waits for its end, telling so
 * on stderr after a while. ERR_TOO_LARGE where a request cannot hold it.
 */
int request_read_stdin(struct buffer *ret_input, struct error *e)
    __attribute__((warn_unused_result));

/* Puts the command's fields into an open object, and `input` as its stdin where it is neither NULL
 * nor empty. */
int request_put_command(struct json_writer *w, const struct request_command *command,
                        const struct buffer *input, struct error *e)
    __attribute__((warn_unused_result));

/* Puts a local file as an element {"path","content"} of an open array. */
int request_put_file(struct json_writer *w, const char *local, const char *guest, struct error *e)
    __attribute__((warn_unused_result));

/* The error for a body that became larger than HTTP_JSON_BODY_MAX; returns -1. */
int request_too_large(struct error *e, const char *what);
