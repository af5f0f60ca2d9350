/*
 * The kernel's table of mounts, in which another container's owner may choose names. The first byte
 * picks the parser. Properties: each controller is in one hierarchy at most, v2 is there once and
 * each path is absolute and was in the text; a line is judged by itself, so that a table with every
 * line twice, or with noise between the lines, says the same.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "cloche/limits.h"
#include "priv/cgroup_layout.h"

#define TEXT_MAX (64 * KIB)

static struct cgroup_layout layout, again;

static void check(void)
{
    unsigned controllers = 0, v2 = 0;

    assert(layout.count <= CGROUP_HIERARCHIES_MAX);
    for (unsigned i = 0; i < layout.count; i++) {
        const struct cgroup_hierarchy *h = &layout.hierarchies[i];

        assert(h->path[0] == '/' && memchr(h->path, '\0', sizeof(h->path)) != NULL);
        assert((h->controllers & controllers) == 0 && h->controllers < 1u << CGROUP_CONTROLLERS);
        assert(h->v2 == (h->controllers == 0));
        controllers |= h->controllers;
        v2 += h->v2;
    }
    assert(v2 <= 1);
}

static void check_same(const struct buffer *text)
{
    cgroup_layout_parse((const char *)buffer_bytes(text), text->size, &again);
    assert(again.count == layout.count);
    for (unsigned i = 0; i < layout.count; i++) {
        const struct cgroup_hierarchy *a = &layout.hierarchies[i], *b = &again.hierarchies[i];

        assert(a->v2 == b->v2 && a->controllers == b->controllers && strcmp(a->path, b->path) == 0);
    }
}

static void fuzz_layout(const char *text, size_t size)
{
    static const char noise[] = "1 2 0:3 / /proc rw shared:12 - proc proc rw\n\n \n- cgroup\n";
    struct buffer twice = BUFFER_INIT(4 * TEXT_MAX), noisy = BUFFER_INIT(128 * TEXT_MAX);
    int failed = 0;

    cgroup_layout_parse(text, size, &layout);
    check();
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t line = end != NULL ? (size_t)(end - (text + at)) : size - at;

        for (int i = 0; i < 2; i++) {
            failed |= buffer_append(&twice, text + at, line);
            failed |= buffer_append_text(&twice, "\n");
        }
        failed |= buffer_append_text(&noisy, noise);
        failed |= buffer_append(&noisy, text + at, line);
        failed |= buffer_append_text(&noisy, "\n");
        at += line + 1;
    }
    assert(failed == 0);
    check_same(&twice);
    check_same(&noisy);
    buffer_fini(&twice);
    buffer_fini(&noisy);
}

/* Names between blanks: what is found is there, and is found wherever it stands. */
static void fuzz_controllers(const char *text, size_t size)
{
    struct buffer more = BUFFER_INIT(2 * TEXT_MAX);
    unsigned bits = cgroup_controllers_parse(text, size);
    int failed = buffer_append_text(&more, "cpu cpuset memoryx ");

    assert(bits < 1u << CGROUP_CONTROLLERS);
    for (unsigned c = 0; c < CGROUP_CONTROLLERS; c++) {
        const char *name = cgroup_controller_names[c];

        if ((bits & 1u << c) != 0)
            assert(memmem(text, size, name, strlen(name)) != NULL);
    }
    failed |= buffer_append(&more, text, size);
    assert(failed == 0);
    unsigned found = cgroup_controllers_parse((const char *)buffer_bytes(&more), more.size);
    assert(found == (bits | 1u << CGROUP_CPU));
    buffer_fini(&more);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > TEXT_MAX)
        return 0;
    char *text = malloc(size);
    assert(text != NULL);
    memcpy(text, data + 1, size - 1);
    if (data[0] % 2 == 0)
        fuzz_layout(text, size - 1);
    else
        fuzz_controllers(text, size - 1);
    free(text);
    return 0;
}
