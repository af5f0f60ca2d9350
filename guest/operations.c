#include "guest/operations.h"

#include "guest/files/file_ops.h"
#include "guest/trees/tree_ops.h"

int operations_init(struct operations *o, const char *cgroup_path, const struct layers *layers,
                    struct error *e)
{
    *o = (struct operations){
        .rows =
            {
                {&command_op, &o->commands},
                {&file_read_op, &o->stagings},
                {&file_write_op, &o->stagings},
                {&file_stat_op, NULL},
                {&file_list_op, NULL},
                {&file_search_op, NULL},
                {&file_change_op, NULL},
                {&file_watch_op, NULL},
                {&file_diff_op, &o->layers},
                {&tree_in_op, NULL},
                {&tree_out_op, NULL},
            },
        .layers = *layers,
    };
    if (commands_init(&o->commands, cgroup_path, e) < 0)
        return -1;
    return stagings_init(&o->stagings, e);
}

void operations_fini(struct operations *o)
{
    commands_fini(&o->commands);
    stagings_fini(&o->stagings);
}

void operations_tidy(void *operations)
{
    struct operations *o = operations;

    commands_tidy(&o->commands);
}
