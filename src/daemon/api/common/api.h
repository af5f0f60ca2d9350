/* What the API's handlers are given: the context of every exchange. The daemon's, which keeps it up
 * to date. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct exchange;
struct sandbox;
struct sandbox_limits;
struct sandbox_table;
struct shape_set;
struct template_set;

struct api {
    struct sandbox_table *sandboxes;
    const struct shape_set *shapes;
    const struct template_set *templates;
    const struct sandbox_limits *limits;
    uint64_t started_ns; /* CLOCK_MONOTONIC */
    bool warm;           /* every shape that is to be kept warm has its minimum of shells */
    bool stopping;
};

/* The running sandbox that the path names, or NULL with an error (as sandbox_find). */
struct sandbox *api_sandbox(struct exchange *x, struct error *e)
    __attribute__((warn_unused_result));
