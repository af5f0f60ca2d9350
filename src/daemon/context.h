/* What the daemon role is made of: one struct, passed to everything that needs more than its own.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "cloche/limits.h"
#include "daemon/machine/template.h"
#include "daemon/process/process_table.h"
#include "daemon/settings.h"

struct priv_link;
struct sandbox_table;
struct server;
struct shape_set;

struct daemon {
    uv_loop_t loop;
    struct settings settings;
    struct template_set templates;
    struct priv_link *priv;
    struct shape_set *shapes;
    struct sandbox_table *sandboxes;
    struct server *server;
    struct process_memory process_memory;
    int snapshots_fd; /* folders of the state directory */
    int scratch_fd;
    int tmp_fd;
    uint64_t started_ns;
    bool stopping;
    bool warm; /* every shape that is to be kept warm has its minimum of shells */
    int exit_code;
};
