/* The API's handlers and the one route table that names them (api_routes.c). */
#pragma once

#include <stddef.h>

#include "daemon/router.h"

struct exchange;

extern const struct route api_routes[];
extern const size_t api_route_count;

/* api_host.c */
void api_info(struct exchange *x);
void api_health(struct exchange *x);

/* api_sandboxes.c */
void api_sandbox_create(struct exchange *x);
void api_sandbox_list(struct exchange *x);
void api_sandbox_get(struct exchange *x);
void api_sandbox_patch(struct exchange *x);
void api_sandbox_delete(struct exchange *x);

/* api_exec.c, api_files.c, api_run.c */
void api_exec(struct exchange *x);
void api_file_put(struct exchange *x);
void api_file_get(struct exchange *x);
void api_run(struct exchange *x);
