#include "daemon/api/common/api.h"

#include "daemon/sandbox/sandbox_table.h"
#include "daemon/server/exchange.h"

struct sandbox *api_sandbox(struct exchange *x, struct error *e)
{
    const struct api *api = exchange_context(x);

    return sandbox_find(api->sandboxes, exchange_param(x, "id"), e);
}
