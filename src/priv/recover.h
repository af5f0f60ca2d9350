/* What an earlier instance on the same state directory left. */
#pragma once

#include "base/error.h"

struct priv;

/* Removes what is left, and starts the journal anew. What cannot be removed is logged; -1 where
 * this instance cannot be named or the journal cannot be written. */
int recover_run(struct priv *p, struct error *e) __attribute__((warn_unused_result));
