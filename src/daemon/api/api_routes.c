#include "daemon/api/api_routes.h"

#include "daemon/api/exec/handlers.h"
#include "daemon/api/files/handlers.h"
#include "daemon/api/host/handlers.h"
#include "daemon/api/processes/handlers.h"
#include "daemon/api/sandboxes/handlers.h"

const struct route api_routes[] = {
    {"GET", "/v1/info", api_info, ROUTE_NO_KEY},
    {"GET", "/v1/health", api_health, ROUTE_NO_KEY},
    {"POST", "/v1/run", api_run, ROUTE_UNDONE},
    {"POST", "/v1/sandboxes", api_sandbox_create, ROUTE_UNDONE},
    {"GET", "/v1/sandboxes", api_sandbox_list, ROUTE_NO_KEY},
    {"GET", "/v1/sandboxes/{id}", api_sandbox_get, ROUTE_NO_KEY},
    {"PATCH", "/v1/sandboxes/{id}", api_sandbox_patch, ROUTE_NO_KEY},
    {"DELETE", "/v1/sandboxes/{id}", api_sandbox_delete, ROUTE_NO_KEY},
    {"POST", "/v1/sandboxes/{id}/exec", api_exec, ROUTE_ONCE},
    {"GET", "/v1/sandboxes/{id}/processes", api_process_list, ROUTE_NO_KEY},
    {"GET", "/v1/sandboxes/{id}/processes/{pid}", api_process_get, ROUTE_NO_KEY},
    {"DELETE", "/v1/sandboxes/{id}/processes/{pid}", api_process_delete, ROUTE_NO_KEY},
    {"POST", "/v1/sandboxes/{id}/processes/{pid}/signal", api_process_signal, ROUTE_NO_KEY},
    {"POST", "/v1/sandboxes/{id}/processes/{pid}/stdin", api_process_stdin, ROUTE_NO_KEY},
    {"GET", "/v1/sandboxes/{id}/processes/{pid}/output", api_process_output, ROUTE_NO_KEY},
    {"GET", "/v1/sandboxes/{id}/pty", api_pty, ROUTE_NO_KEY},
    {"PUT", "/v1/sandboxes/{id}/files", api_file_put, ROUTE_NO_KEY},
    {"GET", "/v1/sandboxes/{id}/files", api_file_get, ROUTE_NO_KEY},
    {"DELETE", "/v1/sandboxes/{id}/files", api_file_delete, ROUTE_NO_KEY},
    {"GET", "/v1/sandboxes/{id}/files/stat", api_file_stat, ROUTE_NO_KEY},
    {"GET", "/v1/sandboxes/{id}/files/list", api_file_list, ROUTE_NO_KEY},
    {"GET", "/v1/sandboxes/{id}/files/search", api_file_search, ROUTE_NO_KEY},
    {"GET", "/v1/sandboxes/{id}/files/watch", api_file_watch, ROUTE_NO_KEY},
    {"PUT", "/v1/sandboxes/{id}/files/tar", api_tree_put, ROUTE_NO_KEY},
    {"GET", "/v1/sandboxes/{id}/files/tar", api_tree_get, ROUTE_NO_KEY},
    {"POST", "/v1/sandboxes/{id}/files/mkdir", api_file_mkdir, ROUTE_NO_KEY},
    {"POST", "/v1/sandboxes/{id}/files/rename", api_file_rename, ROUTE_NO_KEY},
    {"POST", "/v1/sandboxes/{id}/files/chmod", api_file_chmod, ROUTE_NO_KEY},
    {"POST", "/v1/sandboxes/{id}/files/symlink", api_file_symlink, ROUTE_NO_KEY},
};
const size_t api_route_count = sizeof(api_routes) / sizeof(api_routes[0]);
