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
    {"PUT", "/v1/sandboxes/{id}/files", api_file_put},
    {"GET", "/v1/sandboxes/{id}/files", api_file_get},
};
const size_t api_route_count = sizeof(api_routes) / sizeof(api_routes[0]);
