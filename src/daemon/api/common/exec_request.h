/*
 * The part of a request's JSON that describes a command, which POST .../exec and POST /v1/run
 * share: from fields to a process.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/process/env.h"
#include "daemon/process/exec.h"
#include "json/json.h"

struct process;
struct sandbox;
struct template;

/* As they came; strings and arrays belong to the request's tree, NULL where absent. */
struct exec_fields {
    const cJSON *argv;
    const char *shell;
    const cJSON *env;
    const char *cwd;
    const char *user;
    const char *stdin_text;
    const char *stdin_base64;
    int64_t timeout_ms;       /* 0: absent */
    int64_t max_output_bytes; /* 0: absent */
    const char *umask;
    const cJSON *limits;
};

#define EXEC_USER_BYTES_MAX 256

#define EXEC_FIELD_(at, key, member, kind, low, high, item)                                        \
    {                                                                                              \
        .name = (key), .type = (kind), .min = (low), .max = (high), .item_max = (item),            \
        .offset = (at) + offsetof(struct exec_fields, member)                                      \
    }

/* Rows for a json_field table; `at` is the offset of a struct exec_fields in what it fills. */
#define EXEC_FIELD_ROWS(at)                                                                        \
    EXEC_FIELD_(at, "argv", argv, JSON_STRINGS, 1, CHANNEL_ARGS_MAX, CHANNEL_OPEN_MAX),            \
        EXEC_FIELD_(at, "shell", shell, JSON_STRING, 1, CHANNEL_OPEN_MAX, 0),                      \
        EXEC_FIELD_(at, "cwd", cwd, JSON_STRING, 1, CHANNEL_PATH_MAX - 1, 0),                      \
        EXEC_FIELD_(at, "user", user, JSON_STRING, 1, EXEC_USER_BYTES_MAX, 0),                     \
        EXEC_FIELD_(at, "stdin", stdin_text, JSON_STRING, 0, HTTP_JSON_BODY_MAX, 0),               \
        EXEC_FIELD_(at, "stdin_base64", stdin_base64, JSON_STRING, 0, HTTP_JSON_BODY_MAX, 0),      \
        EXEC_FIELD_(at, "timeout_ms", timeout_ms, JSON_INTEGER, 1, EXEC_TIMEOUT_MS_MAX, 0),        \
        EXEC_FIELD_(at, "max_output_bytes", max_output_bytes, JSON_INTEGER, 1,                     \
                    EXEC_OUTPUT_BYTES_MAX, 0),                                                     \
        EXEC_FIELD_(at, "umask", umask, JSON_STRING, 1, 4, 0),                                     \
        EXEC_FIELD_(at, "limits", limits, JSON_OBJECT, 0, 0, 0)

/* The command's own environment; POST /v1/run has the sandbox's in its place. */
#define EXEC_FIELD_ENV(at)                                                                         \
    EXEC_FIELD_(at, "env", env, JSON_MAP, 0, CHANNEL_ARGS_MAX, SANDBOX_ENV_BYTES_MAX)

struct exec_request {
    struct exec_fields fields;
    const char **argv; /* NULL-terminated; its strings are the tree's or the template's */
    const char *cwd;
    struct env env;
    bool has_stdin;
    bool has_pty;
    uint16_t rows, columns;    /* with has_pty */
    const uint8_t *stdin_data; /* the tree's, or `decoded` */
    size_t stdin_size;
    uint8_t *decoded;
    uint32_t umask;
    struct channel_limit limits[CHANNEL_LIMIT_COUNT];
    size_t limit_count;
    char command[PROCESS_COMMAND_BYTES]; /* for people, cut where it is long */
};

/* How the process is to live on. */
struct exec_request_life {
    bool is_background;
    bool keeps_stdin;              /* open for others to write to */
    bool is_session;               /* only the shell, which reads commands from stdin */
    uint64_t output_bytes_default; /* where the request names no limit */
    uint64_t ring_bytes;
    uint64_t arrived_ns;
};

/* Judges what can be judged without a sandbox and decodes stdin. `r` was zeroed but for `fields`.
 * Returns 0, or -1 with an error that names the field. */
int exec_request_check(struct exec_request *r, struct error *e) __attribute__((warn_unused_result));

/* Fills in what the sandbox decides: shell, cwd and the layers of the environment (`sandbox_env` is
 * an object of strings, or NULL). The template and the request's tree must outlive `r`. */
int exec_request_complete(struct exec_request *r, const struct template *template,
                          const cJSON *sandbox_env, struct error *e)
    __attribute__((warn_unused_result));

/* Starts the command of a complete request, as process_table_start(). A process in the foreground
 * uses the request's stdin, so `r` outlives it then. */
int exec_request_start(const struct exec_request *r, const struct exec_request_life *life,
                       uv_loop_t *loop, struct sandbox *s, struct process **ret_process,
                       struct error *e) __attribute__((warn_unused_result));

/* Frees what is not the tree's. Accepts a zeroed one. */
void exec_request_fini(struct exec_request *r);
