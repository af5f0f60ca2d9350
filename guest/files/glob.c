#include "guest/files/glob.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/utf8.h"

struct span {
    const char *at;
    size_t size;
};

/* Takes a character off the front. A byte that is no UTF-8 gets a value of its own. */
static uint32_t take_character(struct span *s)
{
    static const uint8_t masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    size_t size = utf8_sequence(s->at, s->size);
    uint32_t value = size > 0 ? (uint8_t)s->at[0] & masks[size] : 0x110000u + (uint8_t)s->at[0];

    for (size_t i = 1; i < size; i++)
        value = value << 6 | ((uint8_t)s->at[i] & 0x3f);
    s->at += size > 0 ? size : 1;
    s->size -= size > 0 ? size : 1;
    return value;
}

/* A set behind its '[': whether it has the character; false in *ret_closed where it has no end. */
static bool take_set(struct span *pattern, uint32_t character, bool *ret_closed)
{
    bool is_negative = pattern->size > 0 && (pattern->at[0] == '!' || pattern->at[0] == '^');
    bool is_first = true, is_found = false;

    if (is_negative)
        (void)take_character(pattern);
    while (pattern->size > 0 && (is_first || pattern->at[0] != ']')) {
        is_first = false;
        if (pattern->at[0] == '\\' && pattern->size > 1)
            (void)take_character(pattern);
        uint32_t low = take_character(pattern);
        uint32_t high = low;
        if (pattern->size > 1 && pattern->at[0] == '-' && pattern->at[1] != ']') {
            (void)take_character(pattern);
            high = take_character(pattern);
        }
        is_found = is_found || (low <= character && character <= high);
    }
    *ret_closed = pattern->size > 0;
    if (*ret_closed)
        (void)take_character(pattern);
    return is_found != is_negative;
}

/* Takes one element that is no '*' off the pattern, and its character off the name; both are not
 * empty. False where they do not fit. */
static bool take_one(struct span *pattern, struct span *name)
{
    struct span set = *pattern;
    bool is_closed = false;

    if (pattern->at[0] == '?') {
        (void)take_character(pattern);
        (void)take_character(name);
        return true;
    }
    if (pattern->at[0] == '[') {
        struct span rest = *name;
        (void)take_character(&set);
        bool is_found = take_set(&set, take_character(&rest), &is_closed);
        if (is_closed) {
            *pattern = set;
            *name = rest;
            return is_found;
        }
    }
    if (pattern->at[0] == '\\' && pattern->size > 1)
        (void)take_character(pattern);
    return take_character(pattern) == take_character(name);
}

/* One component. What a '*' takes grows by a character whenever the rest does not fit; only the
 * last one seen can be at fault. */
static bool match_component(struct span pattern, struct span name)
{
    struct span star_pattern = {NULL, 0}, star_name = {NULL, 0};

    for (;;) {
        if (pattern.size > 0 && pattern.at[0] == '*') {
            (void)take_character(&pattern);
            star_pattern = pattern;
            star_name = name;
            continue;
        }
        if (pattern.size == 0 && name.size == 0)
            return true;
        if (pattern.size > 0 && name.size > 0 && take_one(&pattern, &name))
            continue;
        if (star_pattern.at == NULL || star_name.size == 0)
            return false;
        (void)take_character(&star_name);
        pattern = star_pattern;
        name = star_name;
    }
}

static struct span component(const char *path)
{
    return (struct span){path, strcspn(path, "/")};
}

static const char *behind(const char *path)
{
    size_t size = strcspn(path, "/");

    return path + size + (path[size] == '/');
}

static bool is_any_depth(const char *pattern)
{
    return strcspn(pattern, "/") == 2 && memcmp(pattern, "**", 2) == 0;
}

bool glob_match(const char *pattern, const char *path)
{
    const char *deep_pattern = NULL, *deep_path = NULL;

    for (;;) {
        if (is_any_depth(pattern)) {
            deep_pattern = pattern = behind(pattern);
            deep_path = path;
            continue;
        }
        if (*pattern == '\0' && *path == '\0')
            return true;
        if (*pattern != '\0' && *path != '\0' &&
            match_component(component(pattern), component(path))) {
            pattern = behind(pattern);
            path = behind(path);
            continue;
        }
        if (deep_pattern == NULL || *deep_path == '\0')
            return false;
        pattern = deep_pattern;
        path = deep_path = behind(deep_path);
    }
}

bool glob_leads(const char *pattern, const char *path)
{
    while (*path != '\0') {
        if (is_any_depth(pattern))
            return true;
        if (*pattern == '\0' || !match_component(component(pattern), component(path)))
            return false;
        pattern = behind(pattern);
        path = behind(path);
    }
    return *pattern != '\0';
}
