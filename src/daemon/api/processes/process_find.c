#include "daemon/api/processes/process_find.h"

#include "daemon/api/common/api.h"
#include "daemon/process/process_table.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/server/exchange.h"

struct process *process_find(struct exchange *x, const char *const *query, struct error *e)
{
    struct sandbox *s = NULL;

    if (exchange_check_query(x, query, e) == 0)
        s = api_sandbox(x, e);
    return s == NULL ? NULL : process_table_find(sandbox_processes(s), exchange_param(x, "pid"), e);
}
