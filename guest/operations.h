/* The agent's operations: the table that the service is given, and what the streams of one
 * operation share. This is the one place that knows all of them. */
#pragma once

#include "base/error.h"
#include "guest/channel/stream.h"
#include "guest/exec/command.h"
#include "guest/files/layers.h"
#include "guest/files/staging.h"

#define OPERATION_COUNT 11u

struct operations {
    struct stream_row rows[OPERATION_COUNT];
    struct commands commands;
    struct stagings stagings;
    struct layers layers;
};

/*
 * Makes the table and what the operations share, so that the first request finds it ready.
 * `cgroup_path` may be NULL. The layers stay the caller's. operations_fini() is due in any case,
 * behind service_fini().
 */
int operations_init(struct operations *o, const char *cgroup_path, const struct layers *layers,
                    struct error *e) __attribute__((warn_unused_result));
void operations_fini(struct operations *o);

/* For service_when_idle(): `operations` are the `struct operations`. */
void operations_tidy(void *operations);
