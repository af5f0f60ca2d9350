#include "daemon/api.h"
#include "daemon/router.h"

const struct route api_routes[] = {
    {"GET", "/v1/info", api_info},
    {"GET", "/v1/health", api_health},
    {"POST", "/v1/run", api_run},
    {"POST", "/v1/sandboxes", api_sandbox_create},
    {"GET", "/v1/sandboxes", api_sandbox_list},
    {"GET", "/v1/sandboxes/{id}", api_sandbox_get},
    {"PATCH", "/v1/sandboxes/{id}", api_sandbox_patch},
    {"DELETE", "/v1/sandboxes/{id}", api_sandbox_delete},
    {"POST", "/v1/sandboxes/{id}/exec", api_exec},
    {"GET", "/v1/sandboxes/{id}/processes", api_process_list},
    {"GET", "/v1/sandboxes/{id}/processes/{pid}", api_process_get},
    {"DELETE", "/v1/sandboxes/{id}/processes/{pid}", api_process_delete},
    {"POST", "/v1/sandboxes/{id}/processes/{pid}/signal", api_process_signal},
    {"POST", "/v1/sandboxes/{id}/processes/{pid}/stdin", api_process_stdin},
    {"GET", "/v1/sandboxes/{id}/processes/{pid}/output", api_process_output},
    {"GET", "/v1/sandboxes/{id}/pty", api_pty},
    {"PUT", "/v1/sandboxes/{id}/files", api_file_put},
    {"GET", "/v1/sandboxes/{id}/files", api_file_get},
    {"DELETE", "/v1/sandboxes/{id}/files", api_file_delete},
    {"GET", "/v1/sandboxes/{id}/files/stat", api_file_stat},
    {"GET", "/v1/sandboxes/{id}/files/list", api_file_list},
    {"GET", "/v1/sandboxes/{id}/files/search", api_file_search},
    {"GET", "/v1/sandboxes/{id}/files/watch", api_file_watch},
    {"POST", "/v1/sandboxes/{id}/files/mkdir", api_file_mkdir},
    {"POST", "/v1/sandboxes/{id}/files/rename", api_file_rename},
    {"POST", "/v1/sandboxes/{id}/files/chmod", api_file_chmod},
    {"POST", "/v1/sandboxes/{id}/files/symlink", api_file_symlink},
};
const size_t api_route_count = sizeof(api_routes) / sizeof(api_routes[0]);
