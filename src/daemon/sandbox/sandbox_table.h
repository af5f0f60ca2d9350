/* The table of a daemon's sandboxes, and the memory of those that have ended. */
#pragma once

#include "base/error.h"

struct daemon;
struct sandbox_table;

int sandbox_table_new(struct sandbox_table **ret_table, struct error *e)
    __attribute__((warn_unused_result));
/* The table must be empty. Accepts NULL. */
void sandbox_table_free(struct sandbox_table *t);
