#include "daemon/process/process_table.h"

#include <stdlib.h>

void process_table_init(struct process_table *t, struct process_memory *memory)
{
    *t = (struct process_table){.memory = memory};
    TAILQ_INIT(&t->list);
    LIST_INIT(&t->sessions);
}

void process_table_fini(struct process_table *t)
{
    struct process *p;

    while ((p = TAILQ_FIRST(&t->list)) != NULL)
        process_table_remove(p);
}

void process_table_remove(struct process *p)
{
    struct process_table *t = p->table;

    if (t == NULL)
        return;
    TAILQ_REMOVE(&t->list, p, entry);
    if (p->is_counted)
        t->ended_count--;
    p->table = NULL;
    p->on_ended = NULL;
    process_put(p);
}

/* What runs in the foreground is gone with its end; of the others the newest stay. */
static void on_ended(struct process *p)
{
    struct process_table *t = p->table;
    struct process *oldest;

    if (!p->is_background || p->pid == 0) { /* or it never ran */
        process_table_remove(p);
        return;
    }
    p->is_counted = true;
    if (++t->ended_count <= PROCESS_ENDED_MAX)
        return;
    oldest = TAILQ_FIRST(&t->list);
    while (!oldest->is_counted)
        oldest = TAILQ_NEXT(oldest, entry);
    process_table_remove(oldest);
}

int process_table_start(struct process_table *t, uv_loop_t *loop, struct agent_link *link,
                        const struct process_spec *spec, struct process **ret_process,
                        struct error *e)
{
    struct process *p = NULL;

    if (process_new_exec(loop, link, t->memory, spec, &p, e) != 0)
        return -1;
    p->table = t;
    p->on_ended = on_ended;
    TAILQ_INSERT_TAIL(&t->list, p, entry);
    *ret_process = p;
    return 0;
}

struct process *process_table_find(struct process_table *t, const char *pid, struct error *e)
{
    struct process *p;
    char *end;
    unsigned long number = strtoul(pid, &end, 10);

    if (pid[0] >= '1' && pid[0] <= '9' && *end == '\0') {
        TAILQ_FOREACH_REVERSE(p, &t->list, process_list, entry)
        {
            if (p->pid == number)
                return p;
        }
    }
    (void)error_set(e, ERR_PROCESS_NOT_FOUND, "the sandbox has no process %.40s", pid);
    (void)error_remedy(e, "GET .../processes (`cloche ps ID`) lists them; one in the foreground "
                          "is gone when it has ended.");
    return NULL;
}
