/* Finding the controllers in real mount tables of the three layouts, and in damaged ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "priv/cgroup_layout.h"

#define BIT(c) (1u << (c))
#define ALL    (BIT(CGROUP_MEMORY) | BIT(CGROUP_CPU) | BIT(CGROUP_PIDS))

static struct cgroup_layout layout;

static void parse(const char *text)
{
    cgroup_layout_parse(text, strlen(text), &layout);
}

/* Debian 12 with systemd: one tree for all. */
static void test_unified(void **state)
{
    (void)state;
    parse("22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw\n"
          "28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro\n"
          "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 "
          "rw,nsdelegate,memory_recursiveprot\n");
    assert_int_equal(layout.count, 1);
    assert_true(layout.hierarchies[0].v2);
    assert_int_equal(layout.hierarchies[0].controllers, 0);
    assert_string_equal(layout.hierarchies[0].path, "/sys/fs/cgroup");
}

/* An older distribution: controllers that share a hierarchy, and v2 without any. */
static void test_hybrid_with_systemd(void **state)
{
    (void)state;
    parse(
        "32 25 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755\n"
        "33 32 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate\n"
        "34 32 0:30 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd\n"
        "38 32 0:34 / /sys/fs/cgroup/cpuset rw shared:15 - cgroup cgroup rw,cpuset\n"
        "39 32 0:35 / /sys/fs/cgroup/cpu,cpuacct rw shared:16 - cgroup cgroup rw,cpu,cpuacct\n"
        "40 32 0:36 / /sys/fs/cgroup/memory rw shared:17 - cgroup cgroup rw,memory\n"
        "44 32 0:40 / /sys/fs/cgroup/pids rw shared:21 - cgroup cgroup rw,pids\n");
    assert_int_equal(layout.count, 4);
    assert_true(layout.hierarchies[0].v2);
    assert_string_equal(layout.hierarchies[1].path, "/sys/fs/cgroup/cpu,cpuacct");
    assert_int_equal(layout.hierarchies[1].controllers, BIT(CGROUP_CPU));
    assert_int_equal(layout.hierarchies[2].controllers, BIT(CGROUP_MEMORY));
    assert_int_equal(layout.hierarchies[3].controllers, BIT(CGROUP_PIDS));
}

/* v1 only, all in one hierarchy, as a small init mounts them. */
static void test_one_v1_hierarchy(void **state)
{
    (void)state;
    parse("31 23 0:28 / /cg rw,relatime - cgroup none rw,cpuset,cpu,cpuacct,memory,pids\n");
    assert_int_equal(layout.count, 1);
    assert_false(layout.hierarchies[0].v2);
    assert_int_equal(layout.hierarchies[0].controllers, ALL);
}

/* In a container the same hierarchies can be mounted again: the first ones count. */
static void test_mounted_twice(void **state)
{
    (void)state;
    parse("35 31 0:32 /docker/1 /sys/fs/cgroup/memory ro master:3 - cgroup cgroup rw,memory\n"
          "36 31 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
          "99 31 0:32 / /mnt/memory rw - cgroup cgroup rw,memory\n"
          "98 31 0:33 / /mnt/unified rw - cgroup2 cgroup2 rw\n");
    assert_int_equal(layout.count, 2);
    assert_string_equal(layout.hierarchies[0].path, "/sys/fs/cgroup/memory");
    assert_string_equal(layout.hierarchies[1].path, "/sys/fs/cgroup/unified");
}

static void test_names_that_only_look_alike(void **state)
{
    (void)state;
    parse("1 2 0:3 / /a rw - cgroup cgroup rw,cpuset,cpuacct,name=memory,pidsx,xcpu\n"
          "1 2 0:3 / /b rw - cgroup3 cgroup rw,memory\n"
          "1 2 0:3 / /c rw - tmpfs cgroup2 rw,memory\n");
    assert_int_equal(layout.count, 0);
}

static void test_escapes(void **state)
{
    (void)state;
    parse("1 2 0:3 / /my\\040cgroups\\134\\011x rw - cgroup cgroup rw,memory\n"
          "1 2 0:3 / /tail\\04 rw - cgroup cgroup rw,cpu\n"
          "1 2 0:3 / /nul\\000x rw - cgroup cgroup rw,pids\n");
    assert_int_equal(layout.count, 2);
    assert_string_equal(layout.hierarchies[0].path, "/my cgroups\\\tx");
    assert_string_equal(layout.hierarchies[1].path, "/tail\\04");
}

static void test_damaged(void **state)
{
    static const char *const texts[] = {
        "",
        "\n\n\n",
        " ",
        "1 2 0:3 / /a rw",
        "1 2 0:3 / /a rw shared:1 master:2 propagate_from:3",
        "1 2 0:3 / /a rw - ",
        "1 2 0:3 / /a rw - cgroup",
        "1 2 0:3 / /a rw - cgroup cgroup",
        "- - - - - - - - cgroup cgroup memory",
        "1 2 0:3 / relative rw - cgroup cgroup rw,memory",
        "1 2 0:3 /  rw - cgroup cgroup rw,memory",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        /* In memory of its own exact size, so that the sanitizer sees a step too far. */
        size_t size = strlen(texts[i]);
        char *copy = malloc(size + 1);

        memcpy(copy, texts[i], size);
        char *exact = realloc(copy, size > 0 ? size : 1);
        cgroup_layout_parse(exact, size, &layout);
        assert_int_equal(layout.count, 0);
        free(exact);
    }
    cgroup_layout_parse(NULL, 0, &layout);
    assert_int_equal(layout.count, 0);
}

static void test_long_path(void **state)
{
    char text[PATH_MAX + 100] = "1 2 0:3 / /";
    size_t used = strlen(text);

    (void)state;
    memset(text + used, 'a', PATH_MAX);
    memcpy(text + used + PATH_MAX, " rw - cgroup cgroup rw,cpu\n", 27);
    cgroup_layout_parse(text, used + PATH_MAX + 27, &layout);
    assert_int_equal(layout.count, 0);
}

/* Bytes changed at random: never more than the table holds, every path absolute and ended. */
static void test_random_changes(void **state)
{
    static const char good[] =
        "32 25 0:28 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755\n"
        "33 32 0:29 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw,nsdelegate\n"
        "39 32 0:35 / /sys/fs/cgroup/cpu,cpuacct rw shared:16 - cgroup cgroup rw,cpu,cpuacct\n"
        "40 32 0:36 / /sys/fs/cgroup/memory rw shared:17 - cgroup cgroup rw,memory\n";

    (void)state;
    srandom(7);
    for (unsigned round = 0; round < 20000; round++) {
        char text[sizeof(good)];
        size_t size = (size_t)random() % sizeof(good);

        memcpy(text, good, sizeof(good));
        for (unsigned i = 0; i < 4; i++)
            text[(size_t)random() % sizeof(good)] = (char)random();
        cgroup_layout_parse(text, size, &layout);
        assert_true(layout.count <= CGROUP_HIERARCHIES_MAX);
        unsigned seen = 0;
        for (unsigned i = 0; i < layout.count; i++) {
            const struct cgroup_hierarchy *h = &layout.hierarchies[i];

            assert_int_equal(h->path[0], '/');
            assert_non_null(memchr(h->path, '\0', sizeof(h->path)));
            assert_int_equal(seen & h->controllers, 0);
            seen |= h->controllers;
        }
    }
}

static void test_controllers(void **state)
{
    static const char text[] = "cpuset cpu io memory hugetlb pids rdma\n";

    (void)state;
    assert_int_equal(cgroup_controllers_parse(text, strlen(text)), ALL);
    assert_int_equal(cgroup_controllers_parse("memory", 6), BIT(CGROUP_MEMORY));
    assert_int_equal(cgroup_controllers_parse("cpuset pidsx", 12), 0);
    assert_int_equal(cgroup_controllers_parse("\n", 1), 0);
    assert_int_equal(cgroup_controllers_parse("", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unified),
        cmocka_unit_test(test_hybrid_with_systemd),
        cmocka_unit_test(test_one_v1_hierarchy),
        cmocka_unit_test(test_mounted_twice),
        cmocka_unit_test(test_names_that_only_look_alike),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_long_path),
        cmocka_unit_test(test_random_changes),
        cmocka_unit_test(test_controllers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
