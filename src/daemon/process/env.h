/*
 * An environment: names and values, each name once, in the order in which they were first set. A
 * later set replaces the value, so layers (template, sandbox, exec) are merged from the bottom up.
 */
#pragma once

#include <stddef.h>

#include "base/error.h"

struct cJSON;

/* entries[count] is NULL when any was set; each reads "NAME=value". `bytes` counts them, NULs
 * included. Zero-initialised with {0}. */
struct env {
    char **entries;
    size_t count;
    size_t bytes;
};

/* Frees everything and empties it. */
void env_fini(struct env *env);

/*
 * Sets every member of the JSON object `over` (NULL: nothing), whose values must be strings.
 * Returns 0, or -1 with ERR_INVALID_FIELD (a value is no string; a name is empty or holds '='),
 * ERR_TOO_LARGE (more than SANDBOX_ENV_BYTES_MAX or CHANNEL_ARGS_MAX entries) or ERR_INTERNAL
 * (memory); a part may have been set then.
 */
int env_merge_json(struct env *env, const struct cJSON *over, struct error *e)
    __attribute__((warn_unused_result));

/* For NULL-terminated vectors: never NULL, also where nothing is set. */
const char *const *env_vector(const struct env *env);
