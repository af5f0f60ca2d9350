#include "daemon/server/router.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Takes the next segment off the front of a pattern; false at its end. */
static bool take_segment(const char **pattern, const char **ret_segment, size_t *ret_size)
{
    if (**pattern == '\0')
        return false;
    assert(**pattern == '/');
    *ret_segment = *pattern + 1;
    *ret_size = strcspn(*ret_segment, "/");
    *pattern = *ret_segment + *ret_size;
    return *ret_size > 0;
}

/* Whether the pattern takes this path; fills the parameters then. */
static bool match_pattern(const char *pattern, const struct http_target *target,
                          struct route_match *m)
{
    const char *segment;
    size_t size, count = 0;

    m->param_count = 0;
    for (; take_segment(&pattern, &segment, &size); count++) {
        if (count == target->segment_count)
            return false;
        const char *value = target->segments[count];
        if (segment[0] != '{') {
            if (strlen(value) != size || memcmp(value, segment, size) != 0)
                return false;
            continue;
        }
        assert(size > 2 && segment[size - 1] == '}' && m->param_count < ROUTE_PARAMS_MAX);
        m->params[m->param_count].name = segment + 1;
        m->params[m->param_count].name_size = size - 2;
        m->params[m->param_count].value = value;
        m->param_count++;
    }
    return count == target->segment_count;
}

static bool takes_method(const struct route *r, const char *method)
{
    return strcmp(r->method, method) == 0 ||
           (strcmp(r->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static void add_allowed(struct route_match *m, const char *method)
{
    size_t used = strlen(m->allow);
    int added = snprintf(m->allow + used, sizeof(m->allow) - used, "%s%s%s", used > 0 ? ", " : "",
                         method, strcmp(method, "GET") == 0 ? ", HEAD" : "");

    assert(added > 0 && (size_t)added < sizeof(m->allow) - used);
}

void router_match(const struct route *routes, size_t count, const char *method,
                  const struct http_target *target, struct route_match *ret_match)
{
    *ret_match = (struct route_match){0};
    for (size_t i = 0; i < count; i++) {
        if (!match_pattern(routes[i].pattern, target, ret_match))
            continue;
        if (takes_method(&routes[i], method)) {
            ret_match->route = &routes[i];
            return;
        }
        add_allowed(ret_match, routes[i].method);
    }
    ret_match->param_count = 0;
}

const char *route_param(const struct route_match *m, const char *name)
{
    for (size_t i = 0; i < m->param_count; i++) {
        if (strlen(name) == m->params[i].name_size &&
            memcmp(name, m->params[i].name, m->params[i].name_size) == 0)
            return m->params[i].value;
    }
    return NULL;
}
