#include "daemon/process/env.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cloche/limits.h"
#include "json/json.h"

static const char *const empty_vector[] = {NULL};

void env_fini(struct env *env)
{
    for (size_t i = 0; i < env->count; i++)
        free(env->entries[i]);
    free(env->entries);
    *env = (struct env){0};
}

/* The index of `name`, or `count` where it is not set. */
static size_t find(const struct env *env, const char *name, size_t name_size)
{
    size_t i = 0;

    while (i < env->count &&
           (strncmp(env->entries[i], name, name_size) != 0 || env->entries[i][name_size] != '='))
        i++;
    return i;
}

/* Room for one entry more and the final NULL, growing by doubling. */
static int make_room(struct env *env, struct error *e)
{
    size_t wanted = env->count + 2;

    if (env->entries != NULL && (wanted & (wanted - 1)) != 0)
        return 0; /* grown at the last power of two */
    char **entries = realloc(env->entries, 2 * wanted * sizeof(*entries));
    if (entries == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for an environment");
    env->entries = entries;
    return 0;
}

/* On failure `env` is as it was. */
static int set(struct env *env, const char *name, const char *value, struct error *e)
{
    size_t name_size = strlen(name);
    size_t size = name_size + strlen(value) + 2;

    if (name_size == 0 || strchr(name, '=') != NULL) {
        (void)error_set(e, ERR_INVALID_FIELD, "env: \"%.100s\" is not a variable's name", name);
        return error_remedy(e, "A name is not empty and holds no '='.");
    }
    size_t at = find(env, name, name_size);
    size_t old = at < env->count ? strlen(env->entries[at]) + 1 : 0;
    if (env->bytes - old + size > SANDBOX_ENV_BYTES_MAX || at >= CHANNEL_ARGS_MAX) {
        (void)error_set(e, ERR_TOO_LARGE, "env: larger than %u bytes or %u variables",
                        (unsigned)SANDBOX_ENV_BYTES_MAX, (unsigned)CHANNEL_ARGS_MAX);
        return error_remedy(e, "Put large values into a file.");
    }
    if (make_room(env, e) != 0)
        return -1;
    char *entry = malloc(size);
    if (entry == NULL)
        return error_set(e, ERR_INTERNAL, "out of memory for an environment");
    memcpy(entry, name, name_size);
    entry[name_size] = '=';
    memcpy(entry + name_size + 1, value, size - name_size - 1);
    if (at < env->count)
        free(env->entries[at]);
    else
        env->count++;
    env->entries[at] = entry;
    env->entries[env->count] = NULL;
    env->bytes += size - old;
    return 0;
}

int env_merge_json(struct env *env, const struct cJSON *over, struct error *e)
{
    const cJSON *member;

    cJSON_ArrayForEach (member, over) {
        if (!cJSON_IsString(member)) {
            (void)error_set(e, ERR_INVALID_FIELD, "env: the value of \"%.100s\" is not a string",
                            member->string);
            return error_remedy(e, "Write it in quotes, as in {\"DEBUG\":\"1\"}.");
        }
        if (set(env, member->string, member->valuestring, e) != 0)
            return -1;
    }
    return 0;
}

const char *const *env_vector(const struct env *env)
{
    /* The double cast only adds const, at both levels. */
    return env->count > 0 ? (const char *const *)(const void *)env->entries : empty_vector;
}
