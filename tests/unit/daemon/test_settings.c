/* The config file, and template folders: what is wrong is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "daemon/machine/template.h"
#include "daemon/settings.h"

static void defaults_are_within_their_limits(void **state)
{
    struct settings s;
    struct error e = ERROR_INIT;

    (void)state;
    settings_init(&s);
    assert_in_range(s.default_vcpus, 1, s.max_vcpus);
    assert_in_range(s.max_vcpus, 1, SANDBOX_VCPUS_MAX);
    assert_true(s.pool_min <= s.pool_max);
    struct settings same = s;
    assert_int_equal(settings_parse(&s, "{}", 2, &e), 0);
    assert_string_equal(s.default_template, same.default_template);
    assert_int_equal(s.pool_max, same.pool_max);
    assert_int_equal(s.overcommit_percent, 100);
    assert_int_equal(s.host_mem_mib, same.host_mem_mib);
    assert_false(s.warm_named);
}

static void values_are_taken(void **state)
{
    const char *text = "{\"default_template\":\"base\",\"pool_min\":0,\"pool_max\":0,"
                       "\"warm\":[\"base\",\"python\"],\"boot_timeout_s\":7,"
                       "\"memory_overcommit\":1.15}";
    struct settings s;
    struct error e = ERROR_INIT;

    (void)state;
    settings_init(&s);
    assert_int_equal(settings_parse(&s, text, strlen(text), &e), 0);
    assert_string_equal(s.default_template, "base");
    assert_int_equal(s.pool_max, 0);
    assert_int_equal(s.boot_timeout_s, 7);
    assert_int_equal(s.overcommit_percent, 115);
    assert_true(s.warm_named);
    assert_int_equal(s.warm_count, 2);
    assert_string_equal(s.warm[1], "python");
}

static void faults_are_named(void **state)
{
    static const struct {
        const char *text;
        enum error_code code;
        const char *word;
    } cases[] = {{"{\"pool_mim\":1}", ERR_UNKNOWN_FIELD, "pool_mim"},
                 {"{\"pool_min\":-1}", ERR_INVALID_FIELD, "pool_min"},
                 {"{\"pool_min\":1.5}", ERR_INVALID_FIELD, "pool_min"},
                 {"{\"pool_min\":9,\"pool_max\":3}", ERR_INVALID_FIELD, "pool_max"},
                 {"{\"max_vcpus\":33}", ERR_INVALID_FIELD, "max_vcpus"},
                 {"{\"default_vcpus\":3,\"max_vcpus\":2}", ERR_INVALID_FIELD, "default_vcpus"},
                 {"{\"max_mem_mib\":128}", ERR_INVALID_FIELD, "default_mem_mib"},
                 {"{\"memory_overcommit\":0.99}", ERR_INVALID_FIELD, "memory_overcommit"},
                 {"{\"memory_overcommit\":65}", ERR_INVALID_FIELD, "memory_overcommit"},
                 {"{\"memory_overcommit\":\"2\"}", ERR_INVALID_FIELD, "memory_overcommit"},
                 {"{\"default_mem_mib\":0}", ERR_INVALID_FIELD, "default_mem_mib"},
                 {"{\"warm\":[1]}", ERR_INVALID_FIELD, "warm"},
                 {"{\"warm\":\"base\"}", ERR_INVALID_FIELD, "warm"},
                 {"{\"pool_min\":1", ERR_INVALID_JSON, ""},
                 {"[]", ERR_INVALID_JSON, ""}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct settings s;
        struct error e = ERROR_INIT;

        settings_init(&s);
        struct settings before = s;
        assert_int_equal(settings_parse(&s, cases[i].text, strlen(cases[i].text), &e), -1);
        assert_int_equal(e.code, cases[i].code);
        assert_non_null(strstr(e.message, cases[i].word));
        assert_int_equal(s.pool_min, before.pool_min);
    }
}

/* --- templates ---------------------------------------------------------------------------------
 */

static char images_path[64];
static unsigned skipped_count;
static struct error skipped_error;

static void on_skipped(const char *name, const struct error *e)
{
    (void)name;
    skipped_count++;
    skipped_error = *e;
}

static void put(const char *file, const void *data, size_t size)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/%s", images_path, file);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(fd_write_full(fd, data, size), 0);
    fd_close(&fd);
}

static void put_image(const char *file, uint32_t blocks, size_t size)
{
    uint8_t *image = calloc(1, 16384);
    const uint8_t magic[] = {0xe2, 0xe1, 0xf5, 0xe0};

    assert_non_null(image);
    memcpy(image + 1024, magic, 4);
    image[1024 + 12] = 12;
    image[1024 + 36] = (uint8_t)blocks;
    put(file, image, size);
    free(image);
}

static int setup_images(void **state)
{
    char path[128];

    (void)state;
    (void)snprintf(images_path, sizeof(images_path), "/tmp/test-images-XXXXXX");
    if (mkdtemp(images_path) == NULL)
        return -1;
    (void)snprintf(path, sizeof(path), "%s/base", images_path);
    if (mkdir(path, 0700) != 0)
        return -1;
    put("vmlinux", "kernel", 6);
    put("base/template.json", "{\"name\":\"base\",\"env\":{\"PATH\":\"/bin\"}}", 37);
    put_image("base/rootfs.erofs", 4, 16384);
    skipped_count = 0;
    return 0;
}

static int teardown_images(void **state)
{
    static const char *const files[] = {"base/template.json", "base/rootfs.erofs", "base",
                                        "vmlinux", ""};
    char path[128];

    (void)state;
    for (size_t i = 0; i < 5; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", images_path, files[i]);
        (void)remove(path);
    }
    return access(images_path, F_OK) == 0 ? -1 : 0;
}

static int load(struct template_set *set, struct error *e)
{
    FD_AUTO int fd = open(images_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return template_set_load(set, fd, on_skipped, e);
}

static void a_template_is_found(void **state)
{
    struct template_set set;
    struct error e = ERROR_INIT;

    (void)state;
    assert_int_equal(load(&set, &e), 0);
    assert_int_equal(set.count, 1);
    const struct template *t = template_find(&set, "base", &e);
    assert_non_null(t);
    assert_string_equal(t->cwd, "/");
    assert_string_equal(t->shell, "/bin/sh");
    assert_null(template_find(&set, "nosuch", &e));
    assert_int_equal(e.code, ERR_TEMPLATE_NOT_FOUND);
    assert_non_null(strstr(e.remedy, "base"));
    template_set_fini(&set);
}

static void expect_skipped(enum error_code code)
{
    struct template_set set;
    struct error e = ERROR_INIT;

    skipped_count = 0;
    assert_int_equal(load(&set, &e), -1);
    assert_int_equal(e.code, ERR_TEMPLATE_NOT_FOUND);
    assert_int_equal(skipped_count, 1);
    assert_int_equal(skipped_error.code, code);
}

static void damaged_templates_are_left_out(void **state)
{
    (void)state;
    put_image("base/rootfs.erofs", 5, 16384); /* one block more than there is */
    expect_skipped(ERR_TEMPLATE_CORRUPT);
    put_image("base/rootfs.erofs", 4, 1000);
    expect_skipped(ERR_TEMPLATE_CORRUPT);
    put("base/rootfs.erofs", "not an image at all", 19);
    expect_skipped(ERR_TEMPLATE_CORRUPT);
    put_image("base/rootfs.erofs", 4, 16384);
    put("base/template.json", "{\"name\":\"other\"}", 16);
    expect_skipped(ERR_INVALID_FIELD);
    put("base/template.json", "{\"name\":\"base\",\"evn\":{}}", 24);
    expect_skipped(ERR_UNKNOWN_FIELD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_within_their_limits),
        cmocka_unit_test(values_are_taken),
        cmocka_unit_test(faults_are_named),
        cmocka_unit_test_setup_teardown(a_template_is_found, setup_images, teardown_images),
        cmocka_unit_test_setup_teardown(damaged_templates_are_left_out, setup_images,
                                        teardown_images),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
