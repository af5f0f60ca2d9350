/* The body of POST /v1/run: a sandbox, files to put into it, a command, files to bring back. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/api/common/exec_request.h"
#include "daemon/api/common/sandbox_fields.h"
#include "json/json.h"

/* A file to put into the sandbox. */
struct run_file {
    const char *path; /* checked; the tree's */
    uint32_t mode;
    const uint8_t *data; /* the tree's, or `decoded` */
    size_t size;
    uint8_t *decoded;
};

struct run_request {
    cJSON *tree;
    struct sandbox_fields sandbox;
    struct exec_request exec; /* checked, not complete */
    const cJSON *file_items;  /* arrays, or NULL */
    const cJSON *collect;     /* of checked paths */
    struct run_file *files;
    size_t file_count;
};

/* Reads and judges all of a body. `r` was zeroed. Returns 0, or -1 with an error that names the
 * field; run_request_fini frees in both cases. */
int run_request_parse(struct run_request *r, const void *body, size_t size, struct error *e)
    __attribute__((warn_unused_result));

void run_request_fini(struct run_request *r);
