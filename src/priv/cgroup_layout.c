#include "priv/cgroup_layout.h"

#include <string.h>

const char *const cgroup_controller_names[CGROUP_CONTROLLERS] = {
    [CGROUP_MEMORY] = "memory",
    [CGROUP_CPU] = "cpu",
    [CGROUP_PIDS] = "pids",
};

struct span {
    const char *at;
    size_t size;
};

/* Takes the part of `s` before the next `separator` (or its end) and moves `s` behind that. */
static struct span take(struct span *s, char separator)
{
    const char *end = s->size > 0 ? memchr(s->at, separator, s->size) : NULL;
    struct span part = {.at = s->at, .size = end != NULL ? (size_t)(end - s->at) : s->size};
    size_t used = part.size + (end != NULL);

    s->at = used > 0 ? s->at + used : s->at;
    s->size -= used;
    return part;
}

static bool equals(struct span s, const char *text)
{
    return s.size == strlen(text) && memcmp(s.at, text, s.size) == 0;
}

static bool is_octal(char c)
{
    return c >= '0' && c <= '7';
}

/* Copies a path of mountinfo, where blanks and backslashes stand as \ooo; false if it is too long.
 */
static bool copy_path(struct span s, char *ret_path, size_t size)
{
    size_t used = 0;

    for (size_t i = 0; i < s.size; i++) {
        char c = s.at[i];

        if (c == '\\' && s.size - i > 3 && is_octal(s.at[i + 1]) && is_octal(s.at[i + 2]) &&
            is_octal(s.at[i + 3])) {
            c = (char)((s.at[i + 1] - '0') * 64 + (s.at[i + 2] - '0') * 8 + (s.at[i + 3] - '0'));
            i += 3;
        }
        if (c == '\0' || used + 1 >= size)
            return false;
        ret_path[used++] = c;
    }
    ret_path[used] = '\0';
    return used > 0 && ret_path[0] == '/';
}

static unsigned parse_names(struct span list, char separator)
{
    unsigned bits = 0;

    while (list.size > 0) {
        struct span name = take(&list, separator);

        for (unsigned c = 0; c < CGROUP_CONTROLLERS; c++)
            if (equals(name, cgroup_controller_names[c]))
                bits |= 1u << c;
    }
    return bits;
}

unsigned cgroup_controllers_parse(const char *text, size_t size)
{
    struct span s = {.at = text, .size = size};

    if (size > 0 && text[size - 1] == '\n')
        s.size--;
    return parse_names(s, ' ');
}

static void add(struct cgroup_layout *layout, bool v2, unsigned controllers, struct span mount)
{
    struct cgroup_hierarchy *h = &layout->hierarchies[layout->count];

    for (unsigned i = 0; i < layout->count; i++) {
        if (v2 && layout->hierarchies[i].v2)
            return;
        controllers &= ~layout->hierarchies[i].controllers;
    }
    if ((!v2 && controllers == 0) || layout->count == CGROUP_HIERARCHIES_MAX)
        return;
    if (!copy_path(mount, h->path, sizeof(h->path)))
        return;
    h->v2 = v2;
    h->controllers = v2 ? 0 : controllers;
    layout->count++;
}

/* "36 35 98:0 /root /mount/point rw,noatime master:1 - type source rw,super,options" */
static void parse_line(struct cgroup_layout *layout, struct span line)
{
    struct span mount = {0};

    for (unsigned field = 0; field < 6; field++) {
        struct span s = take(&line, ' ');

        if (field == 4)
            mount = s;
    }
    /* Any number of optional fields, closed by a single dash. */
    while (line.size > 0 && !equals(take(&line, ' '), "-"))
        continue;
    struct span type = take(&line, ' ');
    (void)take(&line, ' ');
    if (equals(type, "cgroup"))
        add(layout, false, parse_names(take(&line, ' '), ','), mount);
    else if (equals(type, "cgroup2"))
        add(layout, true, 0, mount);
}

void cgroup_layout_parse(const char *text, size_t size, struct cgroup_layout *ret_layout)
{
    struct span s = {.at = text, .size = size};

    ret_layout->count = 0;
    while (s.size > 0)
        parse_line(ret_layout, take(&s, '\n'));
}
