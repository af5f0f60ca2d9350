/* Environments merged from layers of JSON, and their bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cloche/limits.h"
#include "daemon/process/env.h"
#include "json/json.h"

static int merge(struct env *env, const char *text, struct error *e)
{
    cJSON *tree = cJSON_Parse(text);

    assert_non_null(tree);
    int result = env_merge_json(env, tree, e);
    cJSON_Delete(tree);
    return result;
}

static void test_layers(void **state)
{
    struct env env = {0};
    struct error e = ERROR_INIT;

    (void)state;
    assert_non_null(env_vector(&env));
    assert_null(env_vector(&env)[0]);
    assert_int_equal(env_merge_json(&env, NULL, &e), 0);
    assert_int_equal(merge(&env, "{\"PATH\":\"/bin\",\"PAT\":\"x\"}", &e), 0);
    assert_int_equal(merge(&env, "{\"PATH\":\"/usr/bin\",\"EMPTY\":\"\"}", &e), 0);
    assert_string_equal(env_vector(&env)[0], "PATH=/usr/bin");
    assert_string_equal(env_vector(&env)[1], "PAT=x");
    assert_string_equal(env_vector(&env)[2], "EMPTY=");
    assert_null(env_vector(&env)[3]);
    assert_int_equal(env.bytes, sizeof("PATH=/usr/bin") + sizeof("PAT=x") + sizeof("EMPTY="));
    env_fini(&env);
    assert_null(env_vector(&env)[0]);
}

static void test_bad_members(void **state)
{
    static const char *const bad[] = {"{\"\":\"x\"}", "{\"A=B\":\"x\"}", "{\"A\":1}",
                                      "{\"A\":null}"};
    struct env env = {0};
    struct error e = ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(merge(&env, bad[i], &e), -1);
        assert_int_equal(e.code, ERR_INVALID_FIELD);
        assert_int_equal(env.count, 0);
    }
    env_fini(&env);
}

static void test_bounds(void **state)
{
    struct env env = {0};
    struct error e = ERROR_INIT;
    cJSON *many = cJSON_CreateObject();
    cJSON *large = cJSON_CreateObject();
    char *value = malloc(SANDBOX_ENV_BYTES_MAX);
    char name[16];

    (void)state;
    assert_non_null(value);
    for (unsigned i = 0; i < 1000; i++) {
        (void)snprintf(name, sizeof(name), "N%u", i);
        assert_non_null(cJSON_AddStringToObject(many, name, "value"));
    }
    assert_int_equal(env_merge_json(&env, many, &e), 0);
    assert_string_equal(env_vector(&env)[777], "N777=value");
    memset(value, 'x', SANDBOX_ENV_BYTES_MAX);
    value[SANDBOX_ENV_BYTES_MAX - 1] = '\0';
    assert_non_null(cJSON_AddStringToObject(large, "LARGE", value));
    size_t bytes = env.bytes;
    assert_int_equal(env_merge_json(&env, large, &e), -1);
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_int_equal(env.count, 1000);
    assert_int_equal(env.bytes, bytes);
    free(value);
    cJSON_Delete(many);
    cJSON_Delete(large);
    env_fini(&env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_bad_members),
        cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
