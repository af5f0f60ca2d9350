/* The process that a request's path names. */
#pragma once

#include "base/error.h"

struct exchange;
struct process;

/* NULL with an error, also for a query with names that are not in `query`, as
 * exchange_check_query(). */
struct process *process_find(struct exchange *x, const char *const *query, struct error *e);
