/* What of the rooms below the API only GET /v1/info and the handlers of /v1/sandboxes need, which
 * have no role test: the route table names them, so they are linked. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/machine/shape.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/sandbox/sandbox_describe.h"
#include "daemon/sandbox/sandbox_table.h"
#include "json/json_write.h"

void sandbox_describe(const struct sandbox *s, struct json_writer *w)
{
    (void)s, (void)w;
    fail();
}

void sandbox_set_timeout(struct sandbox *s, uint32_t timeout_s)
{
    (void)s, (void)timeout_s;
    fail();
}

int sandbox_set_labels(struct sandbox *s, const struct cJSON *labels, struct error *e)
{
    (void)s, (void)labels, (void)e;
    fail();
    return -1;
}

bool sandbox_has_label(const struct sandbox *s, const char *name, const char *value)
{
    (void)s, (void)name, (void)value;
    fail();
    return false;
}

unsigned sandbox_count(const struct sandbox_table *t)
{
    (void)t;
    fail();
    return 0;
}

struct sandbox *sandbox_at(const struct sandbox_table *t, unsigned index)
{
    (void)t, (void)index;
    fail();
    return NULL;
}

struct shape_set_memory shape_set_memory(const struct shape_set *set)
{
    (void)set;
    fail();
    return (struct shape_set_memory){0};
}

void shape_set_describe(const struct shape_set *set,
                        void (*visit)(const struct shape_facts *f, void *context), void *context)
{
    (void)set, (void)visit, (void)context;
    fail();
}
