/* The API's handlers and the one route table that names them (api_routes.c). */
#pragma once

#include <stddef.h>

#include "base/error.h"
#include "daemon/server/router.h"

struct exchange;
struct process;

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

/* api_processes.c, api_process_io.c */
void api_process_list(struct exchange *x);
void api_process_get(struct exchange *x);
void api_process_delete(struct exchange *x);
void api_process_signal(struct exchange *x);
void api_process_stdin(struct exchange *x);
void api_process_output(struct exchange *x);
/* The process that the path names; NULL with an error, also for a query with other names. */
struct process *api_process_find(struct exchange *x, const char *const *query, struct error *e);

/* api_file_query.c, api_file_watch.c, api_file_change.c */
void api_file_stat(struct exchange *x);
void api_file_list(struct exchange *x);
void api_file_search(struct exchange *x);
void api_file_watch(struct exchange *x);
void api_file_delete(struct exchange *x);
void api_file_mkdir(struct exchange *x);
void api_file_rename(struct exchange *x);
void api_file_chmod(struct exchange *x);
void api_file_symlink(struct exchange *x);

/* api_trees.c */
void api_tree_put(struct exchange *x);
void api_tree_get(struct exchange *x);

/* api_exec.c, api_files.c, api_run.c */
void api_exec(struct exchange *x);
void api_file_put(struct exchange *x);
void api_file_get(struct exchange *x);
void api_run(struct exchange *x);

/* api_pty.c */
void api_pty(struct exchange *x);
