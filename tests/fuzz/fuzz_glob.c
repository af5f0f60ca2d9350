/*
 * Patterns for paths: an input is a pattern, a NUL and a path. Properties: matching agrees with a
 * matcher that compiles the pattern and fills a table; a path matches itself with its special
 * characters escaped, and "**" whatever it is; each directory of a path that matches is one that
 * the pattern leads to.
 */
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "guest/files/glob.h"

#define BYTES_MAX 96u /* of a pattern, or a path */

enum kind { STAR, ANY, SET };

struct range {
    uint32_t low, high;
};

/* What stands for any characters, for one, or for one of some. */
struct element {
    enum kind kind;
    bool is_negative;
    size_t count;
    struct range ranges[BYTES_MAX];
};

struct component {
    bool is_any_depth;
    size_t count;
    struct element elements[BYTES_MAX];
};

struct characters {
    size_t count;
    uint32_t values[BYTES_MAX];
};

static struct characters decode(const char *at, size_t size)
{
    struct characters c = {0};

    while (size > 0) {
        size_t used = utf8_sequence(at, size);
        uint32_t value = (uint8_t)at[0];

        if (used == 0)
            value += 0x110000; /* a byte that is no text */
        else if (used > 1)
            value &= 0x7fu >> used;
        used = used > 0 ? used : 1;
        for (size_t i = 1; i < used; i++)
            value = value * 64 + ((uint8_t)at[i] - 0x80u);
        c.values[c.count++] = value;
        at += used;
        size -= used;
    }
    return c;
}

static struct element literal(uint32_t value)
{
    return (struct element){.kind = SET, .count = 1, .ranges = {{value, value}}};
}

/* The set that begins at `*at`, a '['; false where none does, as it is not closed. */
static bool compile_set(const struct characters *c, size_t *at, struct element *ret_set)
{
    struct element set = {.kind = SET};
    size_t i = *at + 1;

    if (i < c->count && (c->values[i] == '!' || c->values[i] == '^')) {
        set.is_negative = true;
        i++;
    }
    for (size_t start = i; i < c->count && (c->values[i] != ']' || i == start);) {
        if (c->values[i] == '\\' && i + 1 < c->count)
            i++;
        struct range r = {c->values[i], c->values[i]};
        i++;
        if (i + 1 < c->count && c->values[i] == '-' && c->values[i + 1] != ']') {
            r.high = c->values[i + 1];
            i += 2;
        }
        set.ranges[set.count++] = r;
    }
    if (i >= c->count)
        return false;
    *at = i + 1;
    *ret_set = set;
    return true;
}

static void compile(const char *pattern, size_t size, struct component *to)
{
    struct characters c = decode(pattern, size);

    to->is_any_depth = size == 2 && memcmp(pattern, "**", 2) == 0;
    to->count = 0;
    for (size_t i = 0; i < c.count;) {
        struct element *element = &to->elements[to->count++];

        if (c.values[i] == '[' && compile_set(&c, &i, element))
            continue;
        if (c.values[i] == '*' || c.values[i] == '?') {
            element->kind = c.values[i++] == '*' ? STAR : ANY;
            continue;
        }
        i += c.values[i] == '\\' && i + 1 < c.count;
        *element = literal(c.values[i++]);
    }
}

static bool has(const struct element *e, uint32_t value)
{
    bool is_found = e->kind == ANY;

    for (size_t i = 0; e->kind == SET && i < e->count; i++)
        is_found = is_found || (e->ranges[i].low <= value && value <= e->ranges[i].high);
    return is_found != (e->kind == SET && e->is_negative);
}

/* fits[i][k]: elements from i on against characters from k on. */
static bool fits_name(const struct component *p, const char *name, size_t size)
{
    static bool fits[BYTES_MAX + 1][BYTES_MAX + 2];
    struct characters c = decode(name, size);

    memset(fits, 0, sizeof(fits));
    fits[p->count][c.count] = true;
    for (size_t i = p->count; i-- > 0;) {
        for (size_t k = c.count + 1; k-- > 0;) {
            if (p->elements[i].kind == STAR)
                fits[i][k] = fits[i + 1][k] || (k < c.count && fits[i][k + 1]);
            else
                fits[i][k] = k < c.count && has(&p->elements[i], c.values[k]) && fits[i + 1][k + 1];
        }
    }
    return fits[0][0];
}

struct names {
    size_t count;
    const char *at[BYTES_MAX];
    size_t size[BYTES_MAX];
};

static struct names split(const char *path)
{
    struct names n = {0};

    while (*path != '\0') {
        size_t size = strcspn(path, "/");

        n.at[n.count] = path;
        n.size[n.count++] = size;
        path += size + (path[size] == '/');
    }
    return n;
}

/* The same of components and names. */
static bool fits_path(const char *pattern, const char *path)
{
    static struct component component;
    static bool fits[BYTES_MAX + 1][BYTES_MAX + 2];
    struct names p = split(pattern), n = split(path);

    memset(fits, 0, sizeof(fits));
    fits[p.count][n.count] = true;
    for (size_t i = p.count; i-- > 0;) {
        compile(p.at[i], p.size[i], &component);
        for (size_t k = n.count + 1; k-- > 0;) {
            if (component.is_any_depth)
                fits[i][k] = fits[i + 1][k] || (k < n.count && fits[i][k + 1]);
            else
                fits[i][k] =
                    k < n.count && fits[i + 1][k + 1] && fits_name(&component, n.at[k], n.size[k]);
        }
    }
    return fits[0][0];
}

static void check_escaped(const char *path)
{
    char escaped[2 * BYTES_MAX];
    size_t used = 0;

    for (const char *at = path; *at != '\0'; at++) {
        if (strchr("*?[\\", *at) != NULL)
            escaped[used++] = '\\';
        escaped[used++] = *at;
    }
    escaped[used] = '\0';
    bool is_itself = glob_match(escaped, path), is_any = glob_match("**", path);
    assert(is_itself && is_any);
}

static void check_leads(const char *pattern, const char *path)
{
    char parent[BYTES_MAX];

    for (size_t i = 0; i == 0 || path[i] != '\0'; i++) {
        if (i > 0 && path[i] != '/')
            continue;
        memcpy(parent, path, i);
        parent[i] = '\0';
        bool leads = glob_leads(pattern, parent);
        assert(leads || path[0] == '\0');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char pattern[BYTES_MAX], path[BYTES_MAX];
    const uint8_t *end = size > 0 ? memchr(data, '\0', size) : NULL;
    size_t pattern_size = end != NULL ? (size_t)(end - data) : size;
    size_t path_size = end != NULL ? size - pattern_size - 1 : 0;

    if (pattern_size >= BYTES_MAX || path_size >= BYTES_MAX)
        return 0;
    memcpy(pattern, data, pattern_size);
    memcpy(path, data + size - path_size, path_size);
    pattern[pattern_size] = path[path_size] = '\0';
    /* A path is relative, with one slash between its names. */
    if (strlen(path) != path_size || path[0] == '/' || strstr(path, "//") != NULL ||
        (path_size > 0 && path[path_size - 1] == '/'))
        return 0;
    bool is_match = glob_match(pattern, path);
    assert(is_match == fits_path(pattern, path));
    if (is_match)
        check_leads(pattern, path);
    check_escaped(path);
    return 0;
}
