#include "daemon/api/files/file_path.h"

#include <string.h>

#include "daemon/api/common/api.h"
#include "daemon/link/guest_call.h"
#include "daemon/sandbox/sandbox.h"
#include "daemon/server/exchange.h"

int file_path_take(const char *path, size_t size, char ret_path[CHANNEL_PATH_MAX], struct error *e)
{
    while (size > 1 && path[size - 1] == '/')
        size--;
    if (size == 1 && path[0] == '/') {
        memcpy(ret_path, "/", 2);
        return 0;
    }
    if (size >= CHANNEL_PATH_MAX)
        return guest_call_check_path(path, size, e);
    /* A copy that ends where the path does: the check reads up to a NUL. */
    char checked[CHANNEL_PATH_MAX];
    memcpy(checked, path, size);
    checked[size] = '\0';
    if (guest_call_check_path(checked, size, e) != 0)
        return -1;
    memcpy(ret_path, checked, size + 1);
    return 0;
}

static int begin(struct exchange *x, const struct file_path_call *call, struct error *e)
{
    const char *path = exchange_query(x, "path");
    char taken[CHANNEL_PATH_MAX];

    if (exchange_check_query(x, call->query, e) != 0)
        return -1;
    if (path == NULL) {
        (void)error_set(e, ERR_INVALID_PATH, "the query has no path");
        return error_remedy(e, "Name the file, as in files?path=/workspace/data.csv.");
    }
    struct sandbox *s = api_sandbox(x, e);
    if (s == NULL)
        return -1;
    if (call->is_file && guest_call_check_path(path, strlen(path), e) != 0)
        return -1;
    if (file_path_take(path, strlen(path), taken, e) != 0)
        return -1;
    return call->start(x, sandbox_agent(s), taken, e);
}

void file_path_begin(struct exchange *x, const struct file_path_call *call)
{
    struct error e = ERROR_INIT;

    if (begin(x, call, &e) != 0)
        exchange_reply_error(x, &e);
}

void file_path_accuse(struct exchange *x, const struct error *why, struct error *e)
{
    struct error gone = ERROR_INIT;
    struct sandbox *s = api_sandbox(x, &gone);

    if (s != NULL)
        agent_link_accuse(sandbox_agent(s), why->message);
    (void)error_set(e, ERR_SANDBOX_GONE, "the sandbox's agent broke its protocol");
    (void)error_cause(e, "%.200s", why->message);
}
