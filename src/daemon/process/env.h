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
 * Sets a variable. Returns 0, or -1 with ERR_INVALID_FIELD (the name is empty or holds '=', or name
 * or value holds NUL), ERR_TOO_LARGE (more than SANDBOX_ENV_BYTES_MAX or CHANNEL_ARGS_MAX entries)
 * or ERR_INTERNAL (memory); `env` is as it was then.
 */
int env_set(struct env *env, const char *name, const char *value, struct error *e)
    __attribute__((warn_unused_result));

/* Sets in `env` every member of the JSON object `over` (NULL: nothing), whose values must be
 * strings. As env_set(); on failure a part may have been set. */
int env_merge_json(struct env *env, const struct cJSON *over, struct error *e)
    __attribute__((warn_unused_result));

/* The value of `name`, or NULL; valid until the next change. */
const char *env_get(const struct env *env, const char *name);

/* For NULL-terminated vectors: never NULL, also where nothing is set. */
const char *const *env_vector(const struct env *env);
